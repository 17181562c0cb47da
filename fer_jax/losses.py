"""Losses as sums over real faces, so that uneven batches and devices merge exactly."""

import jax
import jax.numpy as jnp


def smooth(labels, classes: int, label_smoothing: float = 0.0):
    """Turns labels [B] int into targets [B, K] float32 whose rows sum to 1.

    A share `label_smoothing` of each target is given to all classes evenly (Szegedy et al. 2016).
    """
    return jax.nn.one_hot(labels, classes) * (1.0 - label_smoothing) + label_smoothing / classes


def cross_entropy(logits, targets, mask):
    """Sums the cross-entropy of a batch, in nats, over its real faces.

    logits [B, K] float32; targets [B, K], rows sum to 1; mask [B], 0 marks padding.
    Returns (total [], count []): sums, not a mean, so uneven batches merge exactly.
    """
    nats = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
    return jnp.sum(nats * mask), jnp.sum(mask)


def l2(params):
    """Sums the squares of all kernels: Keras's `kernel_regularizer=L2(1.0)` on every layer. Returns a scalar []."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(jnp.sum(jnp.square(leaf)) for path, leaf in leaves if path[-1].key == "kernel")


def balanced_class_weights(counts):
    """Returns the weight of each class [K] float32, n / (K n_k): scikit-learn's `class_weight="balanced"` (R1).

    counts [K]: faces per class in the training split, all over 0.
    """
    counts = jnp.asarray(counts, jnp.float32)
    return jnp.sum(counts) / (counts.shape[0] * counts)
