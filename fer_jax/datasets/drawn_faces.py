"""The data set `drawn_faces`: synthetic faces with the seven expressions, drawn when the set is prepared.

It needs no download, so that a first run can train at once. Classes, splits and class shares are those of
FER-2013.
"""

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax.datasets import anatomy, drawing, facts
from fer_jax.datasets.features import make_features

SEED = 0

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

_DESCRIPTION = """
Synthetic grey faces of 48x48 pixels, drawn by a program: no picture shows a real person. Each face wears one
of the seven expressions of FER-2013, made by its facial action units at random intensities; people, pose and
light vary. Results on these faces say nothing about recognition on photographs.
"""


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


@dataclasses.dataclass(kw_only=True)
class DrawnFacesConfig(tfds.core.BuilderConfig):
    """Faces per split, in the order of facts.SPLITS."""

    sizes: tuple[int, int, int]


class DrawnFaces(tfds.core.GeneratorBasedBuilder):
    """The builder. Prepare it with file_format="array_record", which needs no TensorFlow.

    `row` counts through the whole set, training faces first.
    """

    # TFDS would find this file through importlib_resources, which it does not install.
    code_path = epath.Path(__file__)

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        DrawnFacesConfig(name="full", description="For training: 10,000 faces.", sizes=(8000, 1000, 1000)),
        DrawnFacesConfig(name="tiny", description="For trying things out: 980 faces.", sizes=(700, 140, 140)),
    ]

    def _info(self):
        # Not dataset_info_from_configs: that looks for metadata files next to this module.
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=make_features(facts.CLASSES),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        sizes = self.builder_config.sizes
        first_rows = np.cumsum((0, *sizes)).tolist()
        return {
            split: self._generate_examples(split, size, row)
            for split, size, row in zip(facts.SPLITS, sizes, first_rows, strict=False)
        }

    def _generate_examples(self, split, size, first_row):
        return Examples(split, size, first_row=first_row)
