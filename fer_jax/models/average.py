"""Averages the probabilities of several networks, as Keras's Average layer over softmax outputs does."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp


class Average(nn.Module):
    """Maps uint8 faces [B, H, W, 1 or 3] to float32 logits [B, K], the logarithms of the mean probabilities.

    members: networks that map the same faces to logits [B, K] of the same classes; each has its own preprocessing and
    head, and its variables are under `members_0`, `members_1`, ...

    The softmax of these logits is the mean, so cross-entropy and its gradient are those of the mean too.
    """

    members: tuple[nn.Module, ...]

    def __call__(self, image, *, train: bool):
        log_probs = jnp.stack([nn.log_softmax(member(image, train=train)) for member in self.members])
        return jax.nn.logsumexp(log_probs, axis=0) - math.log(len(self.members))
