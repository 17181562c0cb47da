"""TFDS builders of FER-2013, class folders and drawn faces. Only they need TFDS."""

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax.datasets import drawn_faces, facts, readings, sources

_CITATION = """@inproceedings{goodfellow2013challenges,
  title={Challenges in representation learning: A report on three machine learning contests},
  author={Goodfellow, Ian J. and others},
  booktitle={International Conference on Neural Information Processing},
  year={2013}
}"""

_DESCRIPTION = """
Synthetic grey faces of 48x48 pixels, drawn by a program: no picture shows a real person. Each face shows one
of the seven expressions of FER-2013, made by its facial action units at random intensities; people, pose and
light vary. Results on these faces say nothing about recognition on photographs.
"""


def make_features(classes, *, image_shape=facts.IMAGE_SHAPE, votes=False):
    """Returns the TFDS FeaturesDict of a set of faces.

    `image` uint8 [H, W, C], of `image_shape`; `label` int64 [], the position in `classes`; `row` int64 [], the
    position in the source; with `votes`, also `votes` uint8 [10] in the order of facts.VOTES.
    """
    features = {
        # As bytes: a list of integers takes four times as long to write and twice as long to read.
        "image": tfds.features.Tensor(shape=image_shape, dtype=np.uint8, encoding="bytes"),
        "label": tfds.features.ClassLabel(names=list(classes)),
        "row": tfds.features.Tensor(shape=(), dtype=np.int64),
    }
    if votes:
        features["votes"] = tfds.features.Tensor(shape=(len(facts.VOTES),), dtype=np.uint8)
    return tfds.features.FeaturesDict(features)


@dataclasses.dataclass(eq=False)
class FacesConfig(tfds.core.BuilderConfig):
    """Where the faces come from; `name` holds the source's signature, so that a changed source is prepared again.

    source: from sources.find; votes_path: FER+ votes or ''; on_bad_row: 'stop' or 'skip'; image_shape: (H, W, C) of
    every face; detector: as in `readings.read`.
    """

    source: sources.Source | None = None
    votes_path: str = ""
    on_bad_row: str = "stop"
    image_shape: tuple[int, int, int] = facts.IMAGE_SHAPE
    detector: str = ""


class _FacesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the faces of readings.read; `info.metadata` has its notes and fingerprints."""

    # TFDS would look for it with importlib_resources, which it does not install.
    code_path = epath.Path(__file__)

    VERSION = tfds.core.Version("1.0.0")
    KEEPS_METADATA = True  # prepared.load reads notes and fingerprints from it

    def _classes(self):
        raise NotImplementedError

    def _info(self):
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=make_features(self._classes(), image_shape=config.image_shape, votes=bool(config.votes_path)),
            supervised_keys=("image", "label"),
            citation=_CITATION if self.name == "fer2013" else "",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        config = self.builder_config
        reading = readings.read(
            config.source,
            votes_path=config.votes_path,
            on_bad_row=config.on_bad_row,
            image_shape=config.image_shape,
            detector=config.detector,
        )
        self.info.metadata.update(
            notes=list(reading.notes),
            fingerprint=readings.fingerprint(reading.faces, reading.classes),
            content=readings.fingerprint(reading.faces, reading.classes, votes=True),
        )
        return {split: self._generate_examples(faces, reading.rows[split]) for split, faces in reading.faces.items()}

    def _generate_examples(self, faces, rows):
        for position, row in enumerate(rows):
            example = {"image": faces.images[position], "label": int(faces.labels[position]), "row": row}
            if faces.votes is not None:
                example["votes"] = faces.votes[position]
            yield int(row), example


class Fer2013(_FacesBuilder):
    """FER-2013 from the user's own copy: 35,887 faces in seven classes (Goodfellow et al. 2013)."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """FER-2013 is for research and may not be redistributed. Download it from Kaggle
    ("Challenges in Representation Learning: Facial Expression Recognition Challenge") and give `data.path`:
    fer2013.csv, icml_face_data.csv, the zip, fer2013.tar.gz, or class folders that keep the file names."""

    def _classes(self):
        return facts.CLASSES


class ClassFolders(_FacesBuilder):
    """Faces in the user's own class folders, all of one size, grey or RGB."""

    def _classes(self):
        return self.builder_config.source.tree.classes


@dataclasses.dataclass(kw_only=True)
class DrawnFacesConfig(tfds.core.BuilderConfig):
    """Faces per split, in the order of facts.SPLITS."""

    sizes: tuple[int, int, int]


class DrawnFaces(tfds.core.GeneratorBasedBuilder):
    """The builder. Prepare it with file_format="array_record", which needs no TensorFlow.

    `row` counts through all splits, training faces first.
    """

    # TFDS would find this file through importlib_resources, which it does not install.
    code_path = epath.Path(__file__)

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        DrawnFacesConfig(name="full", description="For training: 10,000 faces.", sizes=drawn_faces.SIZES["full"]),
        DrawnFacesConfig(name="tiny", description="For trying things out: 980 faces.", sizes=drawn_faces.SIZES["tiny"]),
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
        return drawn_faces.Examples(split, size, first_row=first_row)
