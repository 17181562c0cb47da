"""Whole photographs in class folders: the face is found, cut out and trained on."""

import numpy as np
import pytest
from PIL import Image

from fer_jax import config as config_lib
from fer_jax import datasets, faces
from fer_jax.errors import InputError

SIDE = 60


class Detector:
    """Finds the one bright square of a picture, at any place."""

    name = "bright:squares"

    def detect(self, pictures):
        found = []
        for picture in pictures:
            rows, columns = np.nonzero(picture.max(axis=2) > 100)
            box = (float(columns.min()), float(rows.min()), SIDE, SIDE) if len(rows) else None
            found.append([faces.Face(box, 0.9)] if box else [])
        return found


@pytest.fixture
def detector(monkeypatch):
    monkeypatch.setattr(faces, "make_detector", lambda name: Detector())


def photograph(draw, label):
    """Returns a dark picture with a bright square somewhere, whose left or right half is brighter by the label."""
    pixels = draw.integers(0, 60, (200, 300, 3), np.uint8)
    x, y = draw.integers(0, 240), draw.integers(0, 140)
    pixels[y : y + SIDE, x : x + SIDE] = 120
    half = x + 30 * label
    pixels[y : y + SIDE, half : half + 30] = 240
    return pixels


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    for label, name in enumerate(("left", "right")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(photograph(draw, label)).save(tmp_path / "photos" / name / f"{number:02d}.png")
    Image.fromarray(draw.integers(0, 60, (99, 50, 3), np.uint8)).save(tmp_path / "photos" / "left" / "empty.png")
    return tmp_path / "photos"


def section(folder, tmp_path, **fields):
    data = config_lib.get_default().data
    data.update({"path": str(folder), "name": "class_folders", "cache_dir": str(tmp_path / "cache"), **fields})
    return data


@pytest.mark.parametrize("channels", [1, 3])
def test_the_face_is_cut_out_of_each_photograph(folder, detector, tmp_path, channels):
    data = datasets.load(section(folder, tmp_path, detector="auto", channels=channels))
    every = [data.train, data.validation, data.test]
    images, labels = (np.concatenate([getattr(part, name) for part in every]) for name in ("images", "labels"))
    assert images.shape == (40, 48, 48, channels)
    halves = np.stack([images[:, :, :23].mean((1, 2, 3)), images[:, :, 25:].mean((1, 2, 3))], axis=1)
    np.testing.assert_array_equal(halves.argmax(axis=1), labels)
    assert halves.min() > 100, "nothing of the dark surroundings is in the crops"
    assert "The faces were found in 41 photographs by bright:squares." in data.notes
    assert "1 of them shows no face that it finds and was dropped: left/empty.png." in data.notes


def test_photographs_and_faces_are_kept_apart(folder, detector, tmp_path):
    cut = datasets.load(section(folder, tmp_path, detector="lbp"))
    whole = datasets.load(section(folder, tmp_path))
    assert cut.fingerprint != whole.fingerprint
    assert datasets.load(section(folder, tmp_path, detector="lbp")).fingerprint == cut.fingerprint


def test_a_detector_is_for_class_folders(tmp_path):
    data = config_lib.get_default().data
    data.update({"name": "drawn_faces", "detector": "auto"})
    with pytest.raises(InputError, match=r"data.detector finds faces in photographs.*the faces are drawn_faces"):
        datasets.load(data)


def test_an_unknown_detector_is_named_before_pictures_are_read(folder, tmp_path):
    with pytest.raises(InputError, match="unknown detector 'haar'; known are auto, blazeface"):
        datasets.load(section(folder, tmp_path, detector="haar"))


def test_photographs_without_any_face_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(Detector, "name", "lbp")
    monkeypatch.setattr(faces, "make_detector", lambda name: Detector())
    for name in ("a", "b"):
        (tmp_path / "dark" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "dark" / name / "dark.png")
    with pytest.raises(InputError, match=r"lbp finds no face in any of the 2 photographs: set data\.detector"):
        datasets.load(section(tmp_path / "dark", tmp_path, detector="lbp"))
