"""The recognizer: pictures in, one typed result out."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax import explain, recognizer
from fer_jax import faces as faces_lib
from fer_jax.errors import InputError
from fer_jax.runtime import timing

CLASSES = ("left", "right")
SIDE = 48


class Brighter:
    """A network that says which half of a face is brighter."""

    def apply(self, variables, images, train):
        import jax.numpy as jnp

        images = images.astype(jnp.float32)[..., 0] / 255
        halves = [images[:, :, : SIDE // 2].mean((1, 2)), images[:, :, SIDE // 2 :].mean((1, 2))]
        return variables["gain"] * jnp.stack(halves, axis=1)


def make(gain=9.0, **options):
    member = recognizer.Member(Brighter(), {"gain": np.float32(gain)}, CLASSES)
    return recognizer.Recognizer("brighter", [member], (SIDE, SIDE, 1), **options)


def face(brighter, size=SIDE):
    pixels = np.full((size, size, 3), 40, np.uint8)
    half = slice(0, size // 2) if brighter == "left" else slice(size // 2, size)
    pixels[:, half] = 210
    return pixels


class Detector:
    """Finds the squares that are not black, each of `size` pixels on a grid."""

    name = "squares"

    def detect(self, pictures):
        return [
            [
                faces_lib.Face((x, y, 60.0, 60.0), 0.9, None)
                for y in range(0, picture.shape[0], 100)
                for x in range(0, picture.shape[1], 100)
                if picture[y : y + 60, x : x + 60].any()
            ]
            for picture in pictures
        ]


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(faces_lib, "make_detector", lambda name: Detector())
    monkeypatch.setattr(
        faces_lib,
        "crop",
        lambda picture, found, side, align=True: np.asarray(
            Image.fromarray(picture[int(found.box[1]) :, int(found.box[0]) :][:60, :60]).resize((side, side))
        ),
    )
    return make()


def scene(*names):
    pixels = np.zeros((100, 100 * len(names), 3), np.uint8)
    for place, name in enumerate(names):
        if name:
            pixels[:60, 100 * place : 100 * place + 60] = face(name, 60)
    return pixels


def test_each_face_of_each_picture_gets_its_own_answer(model):
    pictures = [scene("left", "right", "left"), scene(None), scene("right"), scene(None, "left")]
    found = model.predict(pictures)
    assert [[one.label for one in picture.faces] for picture in found] == [
        ["left", "right", "left"],
        [],
        ["right"],
        ["left"],
    ]
    assert found[0].faces[1].box == (100.0, 0.0, 60.0, 60.0) and found[0].faces[1].score == 0.9
    assert found[0].size == (300, 100) and found[0].error is None


@pytest.mark.parametrize("kind", ["path", "text", "array", "grey", "pil", "list"])
def test_the_result_is_always_a_list_of_pictures(kind, tmp_path):
    pixels = face("right", 64)
    path = tmp_path / "face.png"
    Image.fromarray(pixels).save(path)
    images = {
        "path": path,
        "text": str(path),
        "array": pixels,
        "grey": pixels[..., 0],
        "pil": Image.fromarray(pixels).convert("RGBA"),
        "list": [path],
    }
    (picture,) = make().predict(images[kind], faces="given")
    (one,) = picture.faces
    assert one.label == "right" and one.box is None and picture.size == (64, 64)
    assert picture.source == (str(path) if kind in ("path", "text", "list") else None)
    assert one.top[0][1] >= one.top[1][1] and sum(one.probs.values()) == pytest.approx(1)


def test_a_given_face_of_the_right_size_is_not_touched():
    model = make()
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 1), np.uint8)
    found = model.predict(list(pixels), faces="given")
    probs = [list(picture.faces[0].probs.values()) for picture in found]
    np.testing.assert_allclose(probs, model.probs(pixels), atol=1e-7)


def test_a_picture_that_cannot_be_read_is_said_and_the_others_answered(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(face("left")).save(tmp_path / "face.png")
    found = make().predict([tmp_path / "text.jpg", tmp_path / "face.png", tmp_path / "gone.png"], faces="given")
    assert [picture.error is None for picture in found] == [False, True, False]
    assert "text.jpg" in found[0].error and found[0].faces == () and found[0].size is None
    assert found[1].faces[0].label == "left"


def test_uncertain_is_what_lies_under_the_threshold():
    (picture,) = make(gain=0.5).predict(face("left"), faces="given", threshold=0.8)
    assert picture.faces[0].uncertain and picture.faces[0].top[0][1] < 0.8
    (picture,) = make(gain=0.5).predict(face("left"), faces="given", threshold=0.4)
    assert not picture.faces[0].uncertain


def test_the_temperature_scales_and_keeps_the_label():
    (sharp,), (soft,) = (make(temperature=t).predict(face("left"), faces="given") for t in (0.5, 3.0))
    assert sharp.faces[0].label == soft.faces[0].label == "left"
    assert sharp.faces[0].probs["left"] > soft.faces[0].probs["left"] > 0.5


def test_members_are_averaged_by_class_name():
    members = [
        recognizer.Member(Brighter(), {"gain": np.float32(9)}, CLASSES, 0.75),
        recognizer.Member(Brighter(), {"gain": np.float32(9)}, CLASSES[::-1], 0.25),
    ]
    model = recognizer.Recognizer("both", members, (SIDE, SIDE, 1))
    single = make().probs(face("left")[None])[0]
    np.testing.assert_allclose(model.probs(face("left")[None])[0], 0.75 * single + 0.25 * single[::-1], atol=1e-6)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(InputError, match="a picture must be a path, a PIL picture or an array uint8"):
        make().predict(image, faces="given")


def test_results_are_plain_values(model):
    (picture,) = model.predict(scene("left"))
    import dataclasses

    assert json.loads(json.dumps(dataclasses.asdict(picture)))["faces"][0]["probs"].keys() == set(CLASSES)


def test_views_of_an_unknown_name_are_refused():
    with pytest.raises(InputError, match="unknown views 'many'"):
        make(views="many")


def test_load_is_that_of_the_recognizer():
    with pytest.raises(InputError, match="there is no model 'none'"):
        fer_jax.load("none")


def test_each_face_is_explained_for_the_class_that_is_predicted(model):
    found = model.explain(scene("left", "right"), method="occlusion", side_px=96)
    for painted, name in zip(found, CLASSES, strict=True):
        large, small = (np.asarray(Image.fromarray(face(name, 60)).resize((side, side))) for side in (96, SIDE))
        grey = np.asarray(Image.fromarray(small).convert("L"))[None, ..., None]
        number = CLASSES.index(name)
        heat = explain.occlusion(Brighter(), {"gain": np.float32(9)}, grey, [number])
        np.testing.assert_array_equal(painted, explain.overlay(large, explain.rescale(heat)[0]))
        assert (painted != large).any()
    assert model.explain(scene(None)) == []


def test_a_picture_that_cannot_be_explained_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone.png: there is no such file"):
        make().explain(tmp_path / "gone.png", faces="given")


@pytest.mark.full
def test_long_work_says_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setattr(timing, "PREDICTION_LINE_SECONDS", 0.0)
    faces = np.random.default_rng(0).integers(0, 256, (300, 48, 48, 1), np.uint8)
    model = fer_jax.load()
    with caplog.at_level(logging.INFO, "fer_jax"):
        probs = model.probs(faces, progress="scoring test")
    assert any(line.startswith("scoring test step 2/3: ") for line in caplog.messages), caplog.messages
    caplog.clear()
    np.testing.assert_array_equal(model.probs(faces), probs)
    assert caplog.messages == []
