"""Small sets of random faces in the forms in which people have them."""

import io
import os
import pathlib
import tarfile
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

from fer_jax import config
from fer_jax.datasets import facts

VOTE_OF_CLASS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


class Rows:
    """Random faces in the official order of splits, each class in each: 70 train, 21 validation, 21 test."""

    def __init__(self, per_class=(10, 3, 3)):
        counts = zip(facts.USAGES, per_class, strict=True)
        self.usages = [usage for usage, count in counts for _ in range(7 * count)]
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (len(self.usages), 48, 48, 1), dtype=np.uint8)
        self.labels = np.arange(len(self.usages)) % 7

    def cells(self):
        return [
            (str(label), " ".join(map(str, image.ravel())), usage)
            for label, image, usage in zip(self.labels, self.images, self.usages, strict=True)
        ]

    def of(self, split):
        return np.array([facts.USAGES[usage] == split for usage in self.usages])


def to_csv(cells):
    return "emotion,pixels,Usage\n" + "".join(f"{label},{pixels},{usage}\n" for label, pixels, usage in cells)


def to_icml(cells):
    lines = (f"{label}, {usage}, {pixels}\n" for label, pixels, usage in cells)
    return "emotion, Usage, pixels\n" + "".join(lines)


def write_bytes(path, content):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write(path, text):
    return write_bytes(path, text.encode())


def write_tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_pictures(root, rows, *, named=True, suffix="png"):
    """Writes class folders as the widespread copy has them: validation and test both in `test`."""
    for number, (image, label, usage) in enumerate(zip(rows.images, rows.labels, rows.usages, strict=True)):
        folder = root / ("train" if usage == "Training" else "test") / facts.CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{usage}_{number}" if named else f"im{number}"
        Image.fromarray(image[:, :, 0]).save(folder / f"{name}.{suffix}")
    return root


def write_votes(path, rows, *, agree=True):
    lines = ["Usage,Image name," + ",".join(facts.VOTES)]
    for number, (usage, label) in enumerate(zip(rows.usages, rows.labels, strict=True)):
        winner = VOTE_OF_CLASS[label if agree else (label + 1) % 7]
        votes = [8 if name == winner else number % 3 if name == "NF" else 0 for name in facts.VOTES]
        lines.append(f"{usage},fer{number:07d}.png," + ",".join(map(str, votes)))
    return write(path, "\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def rows():
    return Rows()


@pytest.fixture(scope="session")
def files():
    """The functions that write a set's files, as one namespace."""
    functions = (to_csv, to_icml, write, write_bytes, write_tar, write_zip, write_pictures, write_votes, Rows)
    return types.SimpleNamespace(**{function.__name__: function for function in functions})


@pytest.fixture
def make_data(tmp_path):
    """Makes the config's section `data` with its cache in tmp_path."""

    def make(path="", **fields):
        data = config.get_default().data
        data.cache_dir = str(tmp_path / "cache")
        data.path = str(path)
        data.update(fields)
        return data

    return make


@pytest.fixture(scope="module")
def real():
    if "FER2013_DIR" not in os.environ:
        pytest.skip("FER2013_DIR is not set")
    return pathlib.Path(os.environ["FER2013_DIR"])
