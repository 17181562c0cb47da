"""The dataset `drawn_faces`: synthetic faces with the seven expressions, drawn when it is prepared.

It needs no download, so that a first run can train at once. Classes, splits and class shares are those of
FER-2013.
"""

import numpy as np

from fer_jax.datasets import anatomy, drawing, facts, readings
from fer_jax.datasets.faces import Faces

SEED = 0
# Faces per split, in the order of facts.SPLITS.
SIZES = {"full": (8000, 1000, 1000), "tiny": (700, 140, 140)}

# The action units of each expression with their (lowest, highest) intensity; those from 0 may be absent.
# Source: Ekman & Friesen 1983, "EMFACS-7: Emotional Facial Action Coding System".
ACTION_UNITS = {
    "angry": {4: (0.6, 1.0), 5: (0.2, 0.7), 7: (0.5, 1.0), 23: (0.5, 1.0), 24: (0.0, 0.8)},
    "disgust": {9: (0.6, 1.0), 15: (0.4, 1.0), 16: (0.3, 0.9), 25: (0.0, 0.6)},
    "fear": {1: (0.6, 1.0), 2: (0.4, 0.8), 4: (0.5, 1.0), 5: (0.5, 1.0), 20: (0.6, 1.0), 26: (0.2, 0.55)},
    "happy": {6: (0.5, 1.0), 12: (0.5, 1.0), 25: (0.0, 1.0)},
    "sad": {1: (0.55, 1.0), 4: (0.4, 1.0), 15: (0.5, 1.0), 17: (0.0, 0.8)},
    "surprise": {1: (0.6, 1.0), 2: (0.6, 1.0), 5: (0.4, 1.0), 26: (0.5, 1.0)},
    "neutral": {},
}


def draw_face(name, rng):
    """Draws one face of the class `name`, of a random person under a random view: [48, 48, 1] uint8."""
    units = {unit: rng.uniform(*bounds) for unit, bounds in ACTION_UNITS[name].items()}
    person = anatomy.sample_person(rng)
    view = anatomy.sample(drawing.VIEW, rng)
    return drawing.draw(person, units, view, rng)[..., None]


def class_counts(split, size):
    """Shares `size` faces among the classes as FER-2013's split does, by largest remainders: [7] int64."""
    official = np.array(facts.OFFICIAL_COUNTS[split])
    exact = size * official / official.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: size - counts.sum()]] += 1
    return counts


def draw_labels(split, size):
    """Returns the labels of a split in the order of its faces: [size] int64."""
    labels = np.repeat(np.arange(len(facts.CLASSES)), class_counts(split, size))
    return _make_rng(split, 0).permutation(labels)


def face_rng(split, index):
    """Returns the generator of face `index` of a split: no face depends on another."""
    return _make_rng(split, 1, index)


def _make_rng(split, *stream):
    return np.random.default_rng(np.random.SeedSequence((SEED, facts.SPLITS.index(split), *stream)))


class Examples:
    """The keyed examples of a split; sized, so that the progress line knows its end."""

    def __init__(self, split, size, *, first_row=0):
        self._split = split
        self._labels = draw_labels(split, size)
        self._first_row = first_row

    def __len__(self):
        return len(self._labels)

    def __iter__(self):
        for index, label in enumerate(self._labels.tolist()):
            image = draw_face(facts.CLASSES[label], face_rng(self._split, index))
            row = self._first_row + index
            yield row, {"image": image, "label": label, "row": row}


def read(sizes) -> readings.Reading:
    """Draws the faces of all splits; sizes: faces per split, in the order of facts.SPLITS."""
    faces, rows, first_row = {}, {}, 0
    for split, size in zip(facts.SPLITS, sizes, strict=True):
        images = np.stack([example["image"] for _, example in Examples(split, size)])
        faces[split] = Faces(images, draw_labels(split, size).astype(np.int32))
        rows[split] = np.arange(first_row, first_row + size)
        first_row += size
    return readings.Reading(faces, rows, facts.CLASSES, ())
