"""TFDS builders of the faces that users bring: FER-2013 and class folders."""

import dataclasses

import tensorflow_datasets as tfds
from etils import epath

from fer_jax.datasets import facts, features, readings, sources

_CITATION = """@inproceedings{goodfellow2013challenges,
  title={Challenges in representation learning: A report on three machine learning contests},
  author={Goodfellow, Ian J. and others},
  booktitle={International Conference on Neural Information Processing},
  year={2013}
}"""


@dataclasses.dataclass(eq=False)
class FacesConfig(tfds.core.BuilderConfig):
    """Where the faces come from; `name` is a signature of it, so that a changed source is prepared anew.

    source: what sources.find gave; votes_path: FER+ votes or ''; on_bad_row: 'stop' or 'skip'.
    """

    source: sources.Source | None = None
    votes_path: str = ""
    on_bad_row: str = "stop"


def make_config(source, *, votes_path="", on_bad_row="stop") -> FacesConfig:
    """Returns the configuration of `source`, named by the paths, sizes and times of its files."""
    votes = (votes_path,) if votes_path else ()
    name = f"{on_bad_row}-{source.signature(*votes)}"
    return FacesConfig(name=name, source=source, votes_path=votes_path, on_bad_row=on_bad_row)


class _FacesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes what readings.read gives; `info.metadata` holds its notes and fingerprints."""

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
            features=features.make_features(self._classes(), votes=bool(config.votes_path)),
            supervised_keys=("image", "label"),
            citation=_CITATION if self.name == "fer2013" else "",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        config = self.builder_config
        reading = readings.read(config.source, votes_path=config.votes_path, on_bad_row=config.on_bad_row)
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

    MANUAL_DOWNLOAD_INSTRUCTIONS = """FER-2013 is for research and may not be passed on. Fetch it from Kaggle
    ("Challenges in Representation Learning: Facial Expression Recognition Challenge") and give `data.path`:
    fer2013.csv, icml_face_data.csv, the zip, fer2013.tar.gz, or class folders that keep the file names."""

    def _classes(self):
        return facts.CLASSES


class ClassFolders(_FacesBuilder):
    """Faces in the user's own class folders, converted to 48x48 grey."""

    def _classes(self):
        return self.builder_config.source.tree.classes
