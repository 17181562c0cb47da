"""Recall and false boxes on scenes with faces at known places, and memory on a picture of 50 megapixels."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax import faces

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scenes():
    """experiments/faces/scenes.py."""
    spec = importlib.util.spec_from_file_location("faces_scenes", ROOT / "experiments" / "faces" / "scenes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def astronaut():
    """The astronaut's face as FER-2013 would show it: uint8 [48, 48]."""
    import skimage.data

    face = Image.fromarray(skimage.data.astronaut()).convert("L").crop((165, 45, 287, 167))
    return np.asarray(face.resize((48, 48)))


def overlap(a, b):
    """Intersection over union of squares (x, y of the middle, side)."""
    shared = 1.0
    for axis in (0, 1):
        ends = min(a[axis] + a[2] / 2, b[axis] + b[2] / 2) - max(a[axis] - a[2] / 2, b[axis] - b[2] / 2)
        shared *= max(0.0, ends)
    return shared / (a[2] ** 2 + b[2] ** 2 - shared)


def count(detector, made):
    """Returns (faces, those whose square was found, boxes that are of none)."""
    total = hits = false = 0
    for scene, found in zip(made, detector.detect([scene.picture for scene in made]), strict=True):
        squares = [faces.square(face) for face in found]
        hit = [any(overlap(square, true) > 0.4 for square in squares) for true in scene.squares]
        false += sum(all(overlap(square, true) <= 0.4 for true in scene.squares) for square in squares)
        total, hits = total + len(hit), hits + sum(hit)
    return total, hits, false


@pytest.mark.full
@pytest.mark.parametrize(
    ("size_px", "tilt"),
    [
        pytest.param(48, 0, marks=pytest.mark.full),
        (96, 0),
        pytest.param(200, 0, marks=pytest.mark.full),
        (96, 30),
        pytest.param(300, 45, marks=pytest.mark.full),
    ],
)
def test_blazeface_finds_one_face_in_many_places(scenes, astronaut, detector, size_px, tilt):
    shown = np.repeat(astronaut[None], 18 if size_px < 200 else 4, 0)
    total, hits, false = count(detector("blazeface"), list(scenes.make(shown, size_px, tilt, side_px=640)))
    assert total == len(shown) and hits >= 0.9 * total and false <= 1


@pytest.mark.full
@pytest.mark.parametrize(("size_px", "tilt"), [(96, 0), (200, 0)])
def test_the_cascade_finds_upright_faces(scenes, astronaut, detector, size_px, tilt):
    shown = np.repeat(astronaut[None], 9 if size_px < 200 else 4, 0)
    total, hits, _ = count(detector("lbp"), list(scenes.make(shown, size_px, tilt, side_px=480)))
    assert hits >= 0.7 * total


@pytest.mark.full
@pytest.mark.parametrize(("name", "size_px", "tilt"), [("blazeface", 96, 0), ("blazeface", 128, 30), ("lbp", 96, 0)])
def test_faces_of_fer2013_are_found(scenes, detector, name, size_px, tilt):
    if "FER2013_DIR" not in os.environ:
        pytest.skip("FER2013_DIR is not set")
    shown = scenes.read_faces(os.environ["FER2013_DIR"], usage="PublicTest", count=54)
    total, hits, false = count(detector(name), list(scenes.make(shown, size_px, tilt)))
    assert hits >= {"blazeface": 0.85, "lbp": 0.5}[name] * total and false <= 0.2 * total


def test_an_aligned_crop_is_the_same_whichever_way_the_face_is_tilted(scenes, astronaut, detector):
    crops = {}
    for tilt in (0, 30):
        (scene,) = scenes.make(astronaut[None], 200, tilt, side_px=640)
        (found,) = detector("blazeface").detect([scene.picture])[0]
        for align in (True, False):
            cut = faces.crop(scene.picture, found, 48, align=align)
            crops[tilt, align] = cut[8:40, 8:40].mean(-1).ravel()
    aligned, other = (np.corrcoef(crops[0, True], crops[30, align])[0, 1] for align in (True, False))
    assert aligned > 0.65 and other < aligned - 0.2


@pytest.mark.full
def test_faces_are_turned_unless_the_caller_says_no(scenes, astronaut, detector):
    detector("blazeface")
    (scene,) = scenes.make(astronaut[None], 200, 30, side_px=640)
    model = fer_jax.load(views="none")
    turned, plain, usual = (
        model.predict(scene.picture, "blazeface", **options)[0].faces[0].probs
        for options in ({"align": True}, {"align": False}, {})
    )
    assert usual == turned != plain


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.parametrize("name", ["blazeface", "lbp"])
def test_a_picture_of_50_megapixels_takes_little_more_memory_than_itself(name, detector):
    detector(name)
    script = (
        "import resource, sys, numpy as np; from fer_jax import faces\n"
        f"detector = faces.make_detector('{name}', levels=2)\n"
        "detector.detect([np.zeros((800, 800, 3), np.uint8)])\n"
        "picture = np.full((6000, 8400, 3), 90, np.uint8)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "detector.detect([picture]); faces.crop(picture, faces.Face((0, 0, 6000, 6000), 1.0), 48)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 80  # MiB; the picture itself has 144
