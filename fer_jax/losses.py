"""Losses as sums over real faces, so that uneven batches and devices merge exactly."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import extensions, fields
from fer_jax.errors import InputError

TARGETS = ("labels", "votes")
CLASS_WEIGHTS = ("none", "balanced", "class_balanced")


def smooth(labels, classes: int, label_smoothing: float = 0.0):
    """Turns labels [B] int into targets [B, K] float32 whose rows sum to 1, smoothed as by `smooth_targets`."""
    return smooth_targets(jax.nn.one_hot(labels, classes), label_smoothing)


def smooth_targets(targets, label_smoothing: float):
    """Gives a share `label_smoothing` of each target [B, K] to all classes evenly (Szegedy et al. 2016)."""
    return targets * (1.0 - label_smoothing) + label_smoothing / targets.shape[-1]


def cross_entropy(logits, targets, mask):
    """Sums the cross-entropy of a batch, in nats, over its real faces.

    logits [B, K] float32; targets [B, K], rows sum to 1; mask [B], 0 marks padding.
    Returns (total [], count []): sums, not a mean, so uneven batches merge exactly.
    """
    nats = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
    return jnp.sum(nats * mask), jnp.sum(mask)


def focal(logits, targets, mask, *, gamma: float = 2.0):
    """Sums the focal loss of a batch, in nats: sum_k t_k (1 - p_k)^gamma (-log p_k) (Lin et al. 2017).

    Shapes and result as in `cross_entropy`, which it equals for gamma 0.
    """
    log_probs = jax.nn.log_softmax(logits)
    # expm1 keeps the digits of 1 - p near p = 1; the minimum avoids 0, where powers below 1 have no finite gradient.
    missing = jnp.maximum(-jnp.expm1(log_probs), jnp.finfo(log_probs.dtype).tiny)
    nats = -jnp.sum(targets * missing**gamma * log_probs, axis=-1)
    return jnp.sum(nats * mask), jnp.sum(mask)


def dice(logits, targets, mask):
    """Sums the Dice loss of a batch over its real faces: 1 - 2 p.t / (p.p + t.t), 0..1 each.

    The squares in the denominator are those of Milletari et al. 2016 (V-Net); each face is a volume of K voxels, as in
    Li et al. 2020. Shapes and result as in `cross_entropy`.
    """
    probs = jax.nn.softmax(logits)
    overlap = 2 * jnp.sum(probs * targets, axis=-1)
    size = jnp.sum(jnp.square(probs) + jnp.square(targets), axis=-1)
    return jnp.sum((1 - overlap / size) * mask), jnp.sum(mask)


def distillation(logits, teacher_logits, mask, *, temperature: float):
    """Sums T^2 times the cross-entropy to the teacher's probabilities, both at temperature T, in nats.

    Hinton et al. 2015: the factor keeps gradients of the same size at every T. Shapes and result as in `cross_entropy`.
    """
    probs = jax.nn.softmax(teacher_logits / temperature)
    total, count = cross_entropy(logits / temperature, probs, mask)
    return temperature**2 * total, count


LOSSES = {"cross_entropy": cross_entropy, "focal": focal, "dice": dice}


def make(section):
    """Returns the loss of the config's section `loss`: a function (logits, targets, mask) -> (total, count).

    Raises:
      InputError: an unknown name, an unsuitable function in a user's file, or a number out of its range.
    """
    fields.check(section, "loss")
    if extensions.names_file(section.name):
        return _from_file(section.name)
    if section.name not in LOSSES:
        raise InputError(f"loss.name is '{section.name}'; known are {', '.join(LOSSES)}, or {extensions.FORM}")
    return functools.partial(focal, gamma=section.focal_gamma) if section.name == "focal" else LOSSES[section.name]


def _from_file(name):
    """Loads a loss from a user's file; rejects one whose result is not like that of `cross_entropy`."""
    field, wanted = "loss.name", "a function (logits [B, K], targets [B, K], mask [B]) -> (total [], count [])"
    loss = extensions.load(name, field)
    if not callable(loss) or isinstance(loss, type):
        raise extensions.wrong_kind(name, field, loss, wanted)
    rows, mask = jax.ShapeDtypeStruct((4, 7), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.float32)
    with extensions.errors_of(name, field):
        sums = jax.eval_shape(loss, rows, rows, mask)
    shapes = [value.shape for value in jax.tree.leaves(sums)]
    if not isinstance(sums, tuple) or shapes != [(), ()]:
        raise InputError(f"{field}: {name} returns {', '.join(map(str, map(list, shapes)))}; it must be {wanted}")
    return loss


def l2(params):
    """Sums the squares of all kernels: Keras's `kernel_regularizer=L2(1.0)` on every layer. Returns a scalar []."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(jnp.sum(jnp.square(leaf)) for path, leaf in leaves if path[-1].key == "kernel")


def balanced_class_weights(counts):
    """Returns the weight of each class [K] float32, n / (K n_k): scikit-learn's `class_weight="balanced"` (R1).

    counts [K]: faces of each class that an epoch shows. A class without any has weight 0 and is not counted in K.
    """
    counts = np.asarray(counts, np.float64)
    shown = counts > 0
    weights = np.divide(counts.sum(), shown.sum() * counts, out=np.zeros_like(counts), where=shown)
    return jnp.asarray(weights, jnp.float32)


def class_balanced_weights(counts, beta: float):
    """Returns the weight of each class [K] float32, (1 - beta) / (1 - beta^n_k), scaled to a mean of 1 over classes.

    This is the inverse of the effective number of faces (Cui et al. 2019). counts [K] as above. With beta 0 all weights
    are equal; near 1 they approach those by the number of faces.
    """
    counts = np.asarray(counts, np.float64)
    shown = counts > 0
    missing = -np.expm1(counts * math.log(beta)) if beta else np.ones_like(counts)
    weights = np.divide(1.0, missing, out=np.zeros_like(counts), where=shown)
    return jnp.asarray(weights * shown.sum() / weights.sum(), jnp.float32)


def class_weights(section, counts):
    """Returns the weight of each class [K], as the config's section `loss` says; None if all are 1.

    Raises:
      InputError: an unknown choice.
    """
    if section.class_weights not in CLASS_WEIGHTS:
        raise InputError(f"loss.class_weights is '{section.class_weights}'; known are {', '.join(CLASS_WEIGHTS)}")
    if section.class_weights == "balanced":
        return balanced_class_weights(counts)
    return class_balanced_weights(counts, section.class_balanced_beta) if section.class_weights != "none" else None


def make_objective(section, class_counts):
    """Returns the objective of training, from the config's section `loss`.

    objective(logits [B, K], batch, params) -> (loss [], sums): the mean over the batch's real faces plus the L2 penalty
    of params; and sums over these faces, by name, to be logged as means, with their number `count`. Class weights
    multiply a face's loss, and the batch still divides by its number of faces, as Keras's `class_weight` does.

    batch: `label` int [B], `mask` [B], and `target` float32 [B, K], rows sum to 1, if the faces have soft
    targets. A soft target t replaces the one-hot label and is smoothed too; the face has the weight sum_k t_k w_k, and
    its correct class is the argmax of t (the first of a tie). With `teacher` [B, K], the logits of a teacher, the
    distillation loss is mixed in by `loss.teacher_weight`.

    class_counts [K]: faces of each class that an epoch shows.

    Raises:
      InputError: an unknown loss or choice of targets or class weights, or a number out of its range.
    """
    if section.targets not in TARGETS:
        raise InputError(f"loss.targets is '{section.targets}'; known are {', '.join(TARGETS)}")
    loss_fn, weights = make(section), class_weights(section, class_counts)
    classes, label_smoothing, strength = len(class_counts), section.label_smoothing, section.l2

    def objective(logits, batch, params):
        label, mask = batch["label"], batch["mask"]
        weight = None if weights is None else weights[label]
        targets = smooth(label, classes, label_smoothing)
        if "target" in batch:
            label = jnp.argmax(batch["target"], -1)
            weight = None if weights is None else jnp.sum(batch["target"] * weights[None], -1)
            targets = smooth_targets(batch["target"], label_smoothing)
        total, _ = loss_fn(logits, targets, mask if weight is None else mask * weight)
        if "teacher" in batch:
            distilled, _ = distillation(logits, batch["teacher"], mask, temperature=section.teacher_temperature)
            total = (1 - section.teacher_weight) * total + section.teacher_weight * distilled
        count = jnp.sum(mask)
        loss = total / jnp.maximum(count, 1)
        if strength:
            loss = loss + strength * l2(params)
        correct = jnp.sum((jnp.argmax(logits, -1) == label) * mask)
        return loss, {"loss": loss * count, "accuracy": correct, "count": count}

    return objective
