"""What a loaded data set is made of."""

import dataclasses

import numpy as np

from fer_jax.datasets import facts
from fer_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Faces:
    """The faces of one split.

    images uint8 [N, H, W, C], grey or RGB; labels int32 [N], positions in the class names; votes uint8 [N, 10] in
    the order of facts.VOTES, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    votes: np.ndarray | None = None

    def __len__(self):
        return len(self.labels)

    def take(self, positions) -> "Faces":
        """Returns the faces at `positions`, an index array or a mask."""
        votes = None if self.votes is None else self.votes[positions]
        return Faces(self.images[positions], self.labels[positions], votes)


def concatenate(parts) -> Faces:
    """Joins several Faces in their order; the votes stay where every part has them."""
    parts = list(parts)
    votes = None
    if all(part.votes is not None for part in parts):
        votes = np.concatenate([part.votes for part in parts])
    images = np.concatenate([part.images for part in parts])
    return Faces(images, np.concatenate([part.labels for part in parts]), votes)


@dataclasses.dataclass(frozen=True)
class FaceData:
    """A whole data set, ready to train on.

    name 'fer2013', 'drawn_faces' or 'class_folders'; classes: their names in the order of the labels;
    fingerprint 'sha256:<16 hex digits>' of the source's faces, labels, splits and class names, before
    `data.split` and `data.classes` rearrange them; notes: what the user must know, one sentence or list
    each; synthetic: the faces are drawn, and no result on them is a result on people.
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

    def split(self, name) -> Faces:
        """Returns the faces of split 'train', 'validation' or 'test'; InputError on another name."""
        if name not in facts.SPLITS:
            raise InputError(f"There is no split {name!r}; the splits are {', '.join(facts.SPLITS)}.")
        return getattr(self, name)
