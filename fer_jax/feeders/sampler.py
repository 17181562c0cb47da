"""Which faces a step sees: the one sampling plan of both feeders.

An epoch is a random order of its faces; the epochs follow each other without a gap, and step s reads positions
s B to (s + 1) B of that endless sequence. So every batch is full, every face of an epoch is seen once, and any
step follows from (key, step) alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.errors import InputError


def rebalanced_counts(counts, *, min_class_share: float, max_class_share: float):
    """Returns how many faces of each class an epoch shows.

    First each class is cut to at most max_class_share of the epoch (undersampling the majority, R2), then each is
    raised to at least min_class_share of it (oversampling).

    Args:
      counts: faces of each class [K].
      min_class_share: 0 (no oversampling) to 1 / K.
      max_class_share: 1 / K to 1 (no undersampling).

    Raises:
      InputError: a share out of its range, or a class without a face to show.
    """
    counts, classes = np.asarray(counts, float), len(counts)
    if not 0 <= min_class_share <= 1 / classes + 1e-9:
        raise InputError(
            f"data.min_class_share is {min_class_share}: with {classes} classes give 0 to {1 / classes:.4f}"
        )
    if not 1 / classes - 1e-9 <= max_class_share <= 1:
        raise InputError(
            f"data.max_class_share is {max_class_share}: with {classes} classes give {1 / classes:.4f} to 1"
        )
    if not counts.all():
        raise InputError(
            "data.min_class_share and data.max_class_share need faces of every class, but "
            f"class {int(np.argmin(counts))} has none in the training split: leave it out with data.classes"
        )
    counts = _bound(counts, max_class_share, -1)
    return np.rint(_bound(counts, min_class_share, 1)).astype(int)


def _bound(counts, share, sign):
    """Moves the classes under (sign 1) or over (sign -1) a share of the total to exactly that share."""
    moved = np.zeros(len(counts), bool)
    while True:
        free = counts[~moved].sum()
        total = free / max(1 - share * moved.sum(), 1e-9)
        more = ~moved & (sign * (share * total - counts) > 1e-9)
        if not more.any():
            return np.where(moved, share * total, counts)
        if moved.sum() + more.sum() == len(counts):
            # An even share for all: the class nearest to it keeps its faces and sets the size of the epoch.
            anchor = (counts if sign > 0 else -counts).max() * sign
            return np.full(len(counts), anchor)
        moved |= more


class Sampler:
    """The sampling plan of a training split.

    Attributes:
      class_counts: faces of each class that an epoch shows [K], after rebalancing.
      epoch_faces: their sum.
      steps_per_epoch: ceil(epoch_faces / batch_size).
    """

    def __init__(self, labels, *, classes: int, batch_size: int, key, min_class_share=0.0, max_class_share=1.0):
        labels = np.asarray(labels)
        counts = np.bincount(labels, minlength=classes)
        self.batch_size = batch_size
        self._faces, self._key = len(labels), key
        self._slots, self.class_counts = None, counts
        if (min_class_share, max_class_share) != (0, 1):
            wanted = rebalanced_counts(counts, min_class_share=min_class_share, max_class_share=max_class_share)
            starts = np.cumsum(counts) - counts
            # A class that is shown more often than it has faces is repeated; one shown less often is truncated.
            self._slots = np.concatenate(
                [start + np.arange(n) % count for start, n, count in zip(starts, wanted, counts, strict=True)]
            )
            self._labels, self.class_counts = labels, wanted
        self.epoch_faces = self._faces if self._slots is None else len(self._slots)
        self.steps_per_epoch = -(-self.epoch_faces // batch_size)

    def _epoch(self, epoch):
        """Returns the faces of one epoch in their order, [epoch_faces] int32."""
        key = jax.random.fold_in(self._key, epoch)
        if self._slots is None:
            return jax.random.permutation(key, self._faces).astype(jnp.int32)
        pick, shuffle = jax.random.split(key)
        by_class = jnp.lexsort((jax.random.bits(pick, (self._faces,)), jnp.asarray(self._labels)))
        return jax.random.permutation(shuffle, by_class[self._slots]).astype(jnp.int32)

    @functools.partial(jax.jit, static_argnums=(0, 2))
    def indices(self, step, steps: int):
        """Returns the faces of `steps` steps from `step` on: positions in the split, [steps, batch_size] int32."""
        span = steps * self.batch_size
        epochs = (span + self.epoch_faces - 2) // self.epoch_faces + 1
        first = step * self.batch_size
        epoch = first // self.epoch_faces
        row = jax.vmap(self._epoch)(epoch + jnp.arange(epochs)).reshape(-1)
        return jax.lax.dynamic_slice(row, (first - epoch * self.epoch_faces,), (span,)).reshape(steps, -1)

    def epochs(self, step):
        """Returns the epoch, from 0, of each face of a step, [batch_size] int32."""
        return (step * self.batch_size + jnp.arange(self.batch_size)) // self.epoch_faces
