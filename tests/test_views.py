"""Test-time views: what they show of a face, and that evaluation averages over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy import ndimage

from fer_jax import datasets, inference, scoring, train, views
from fer_jax.errors import InputError

FACES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), dtype=np.uint8)


def expected(faces, mirrored, down, right):
    """Returns a view by scipy's shift."""
    moved = ndimage.shift(faces, (0, 2 * down, 2 * right, 0), order=0, mode="nearest")
    return np.flip(moved, axis=2) if mirrored else moved


@pytest.mark.parametrize("name", ["none", "flip", "flip_shifts"])
def test_views_are_mirrored_and_shifted_faces(name):
    found = np.asarray(views.make_views(name, FACES))
    assert found.dtype == np.uint8 and len(found) == len(views.VIEWS[name])
    for view, what in zip(found, views.VIEWS[name], strict=True):
        np.testing.assert_array_equal(view, expected(FACES, *what))


def test_ten_crops_are_corners_and_centre_enlarged_and_mirrored():
    found = np.asarray(views.make_views("ten_crop", FACES)).astype(float)
    assert len(found) == 10
    np.testing.assert_array_equal(found[5:], found[:5, :, :, ::-1])
    places = ((3, 3), (0, 0), (0, 6), (6, 0), (6, 6))  # of 42 px in 48
    for view, (top, left) in zip(found, places, strict=False):
        crop = FACES[:, top : top + 42, left : left + 42].astype(float)
        # Pixel centres of the enlarged crop, which reach half a pixel less far than its edges.
        place = np.arange(48) * 42 / 48 + (42 / 48 - 1) / 2
        rows, columns = np.meshgrid(place, place, indexing="ij")
        for face, expected in zip(view[..., 0], crop[..., 0], strict=True):
            wanted = ndimage.map_coordinates(expected, [rows, columns], order=1, mode="nearest")
            inside = np.s_[1:-1, 1:-1]  # at its border a crop may see what surrounds it
            assert abs(face - wanted)[inside].max() <= 0.51


def test_the_first_view_is_the_face_and_no_two_are_equal():
    found = np.asarray(views.make_views("flip_shifts", FACES))
    np.testing.assert_array_equal(found[0], FACES)
    assert len({view.tobytes() for view in found}) == 10


def test_probabilities_are_averaged():
    kernel = jax.random.normal(jax.random.key(1), (48 * 48, 7)) / 1000

    def apply_fn(images):
        return images.reshape(len(images), -1).astype(jnp.float32) @ kernel

    probs = jax.nn.softmax(views.make_logits(apply_fn, "flip")(jnp.asarray(FACES)))
    both = [np.asarray(jax.nn.softmax(apply_fn(jnp.asarray(faces)))) for faces in (FACES, FACES[:, :, ::-1])]
    np.testing.assert_allclose(probs, np.mean(both, axis=0), rtol=1e-5)
    assert views.make_logits(apply_fn, "none") is apply_fn


def test_unknown_views_are_named():
    with pytest.raises(InputError, match="unknown views 'ten'; known are none, flip, flip_shifts, ten_crop"):
        views.make_logits(None, "ten")


@pytest.mark.full
def test_an_evaluation_with_views_has_a_report_of_its_own(tmp_path):
    config = tiny.make_config(tmp_path / "cache", **{"train.epochs": 1})
    train.train(config, tmp_path / "run")
    plain = scoring.evaluate(tmp_path / "run", split="validation")
    scores = scoring.evaluate(tmp_path / "run", split="validation", views="flip")
    assert scores["views"] == "flip" and plain["views"] == "none"
    model, faces = inference.load(tmp_path / "run"), datasets.load(config.data).validation
    both = [
        jax.nn.softmax(model.model.apply(model.variables, images, train=False))
        for images in (faces.images, faces.images[:, :, ::-1])
    ]
    with np.load(tmp_path / "run" / "evaluation-validation-flip.npz") as found:
        np.testing.assert_allclose(found["probs"], np.mean(both, axis=0), atol=1e-5)
    assert (tmp_path / "run" / "evaluation-validation.npz").exists()


def test_the_program_holds_the_network_once():
    """Ten copies took ten times as long to compile."""
    traced = []

    def apply_fn(images):
        traced.append(images.shape)
        return images.mean((1, 2))

    jax.jit(views.make_logits(apply_fn, "flip_shifts")).lower(np.zeros((4, 48, 48, 3), np.float32))
    assert traced == [(4, 48, 48, 3)]
