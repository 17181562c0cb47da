"""Mixup and CutMix: each face of a batch is mixed with another one, and so are their targets."""

import jax
import jax.numpy as jnp

from fer_jax import losses

CHANCE_OF_CUTMIX = 0.5  # where both are on


def make(augment, classes: int):
    """Returns mix(batch, key) -> batch, by the config's section `augment`; None where nothing is mixed.

    The batch's `image` keeps its shape and type; `target` [B, K] float32 is mixed, from the labels where the batch has
    none. Where mixup and CutMix are both on, a face gets the one or the other with equal chance.
    """
    mixup_alpha, cutmix_alpha = augment.mixup_alpha, augment.cutmix_alpha
    if not (mixup_alpha or cutmix_alpha):
        return None

    def mix(batch, key):
        keys = dict(zip(("partner", "choice", "mixup", "cutmix"), jax.random.split(key, 4), strict=True))
        image, count = batch["image"], len(batch["image"])
        target = batch.get("target")
        if target is None:
            target = losses.smooth(batch["label"], classes)
        partner = jax.random.permutation(keys["partner"], count)
        other = image[partner]
        mixed, share = image, jnp.ones(count)
        if mixup_alpha:
            mixed, share = mixup(image, other, keys["mixup"], mixup_alpha)
        if cutmix_alpha:
            cut, cut_share = cutmix(image, other, keys["cutmix"], cutmix_alpha)
            chance = CHANCE_OF_CUTMIX if mixup_alpha else 1.0
            chosen = jax.random.uniform(keys["choice"], (count,)) < chance
            mixed, share = jnp.where(_per_face(chosen), cut, mixed), jnp.where(chosen, cut_share, share)
        share = share[:, None]
        return {**batch, "image": mixed, "target": share * target + (1 - share) * target[partner]}

    return mix


def mixup(image, other, key, alpha: float):
    """Returns (lambda image + (1 - lambda) other, lambda [B]), lambda ~ Beta(alpha, alpha) a face (Zhang et al. 2018).

    image, other: uint8 [B, H, W, C]; the mixture is rounded to uint8.
    """
    share = jax.random.beta(key, alpha, alpha, (len(image),))
    weight = _per_face(share)
    mixed = weight * image.astype(jnp.float32) + (1 - weight) * other.astype(jnp.float32)
    return jnp.round(mixed).astype(image.dtype), share


def cutmix(image, other, key, alpha: float):
    """Returns image with a rectangle of other in it, and the share of pixels [B] that stay (Yun et al. 2019).

    The rectangle has the face's proportions and an area of 1 - lambda, lambda ~ Beta(alpha, alpha); its centre is
    uniform over the face, and what crosses the border is cut, so that the share is counted afterwards.
    """
    of_area, of_row, of_column = jax.random.split(key, 3)
    count, height, width = image.shape[:3]
    half = jnp.sqrt(1 - jax.random.beta(of_area, alpha, alpha, (count,))) / 2
    row, column = (jax.random.uniform(one, (count,)) for one in (of_row, of_column))
    inside = _within(row, half, height)[:, :, None] & _within(column, half, width)[:, None, :]
    return jnp.where(inside[..., None], other, image), 1 - jnp.mean(inside, axis=(1, 2))


def _within(centre, half, length):
    """Returns which pixels of an axis are within half of centre, both shares of its length: [B, length] bool."""
    start, stop = (jnp.round(edge * length)[:, None] for edge in (centre - half, centre + half))
    place = jnp.arange(length)[None]
    return (place >= start) & (place < stop)


def _per_face(values):
    return values[:, None, None, None]
