"""The parts of a loaded dataset."""

import dataclasses
import hashlib

import numpy as np

from fer_jax.datasets import facts
from fer_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Faces:
    """The faces of one split.

    images uint8 [N, H, W, C], grey or RGB; labels int32 [N], positions in the class names; votes uint8 [N, 10] in
    the order of facts.VOTES, or None; targets float32 [N, K], rows sum to 1: the soft targets of training, None
    for the labels.
    """

    images: np.ndarray
    labels: np.ndarray
    votes: np.ndarray | None = None
    targets: np.ndarray | None = None

    def __len__(self):
        return len(self.labels)

    def take(self, positions) -> "Faces":
        """Returns the faces at `positions`, an index array or a mask."""
        return Faces(**{name: None if rows is None else rows[positions] for name, rows in vars(self).items()})


def concatenate(parts) -> Faces:
    """Joins several Faces in their order; votes and targets are kept if every part has them."""
    columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    return Faces(
        **{name: None if any(r is None for r in rows) else np.concatenate(rows) for name, rows in columns.items()}
    )


@dataclasses.dataclass(frozen=True)
class FaceData:
    """A dataset, ready to train on.

    name 'fer2013', 'drawn_faces' or 'class_folders'; classes: their names in the order of the labels;
    fingerprint 'sha256:<16 hex digits>' of the source's faces, labels (by `data.labels`), splits and class names,
    before `data.split` and `data.classes` rearrange them; notes: what the user must know, one sentence or list
    each; synthetic: the faces are drawn, so results say nothing about people.
    """

    name: str
    classes: tuple[str, ...]
    train: Faces
    validation: Faces
    test: Faces
    fingerprint: str
    notes: tuple[str, ...]
    synthetic: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of every face, (H, W, C)."""
        return self.train.images.shape[1:]

    @property
    def targets_digest(self) -> str | None:
        """Returns 'sha256:<16 hex digits>' of the training targets, None without any."""
        targets = self.train.targets
        return None if targets is None else f"sha256:{hashlib.sha256(np.ascontiguousarray(targets)).hexdigest()[:16]}"

    def split(self, name) -> Faces:
        """Returns the faces of split 'train', 'validation' or 'test'; InputError on another name."""
        if name not in facts.SPLITS:
            raise InputError(f"There is no split {name!r}; the splits are {', '.join(facts.SPLITS)}.")
        return getattr(self, name)
