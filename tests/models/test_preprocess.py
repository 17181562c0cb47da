import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import InputError
from fer_jax.models import layers
from fer_jax.models.preprocess import VGGFACE2_MEAN, VGGFACE_MEAN, Preprocess


def draw_faces(channels, size_px=9):
    return np.random.default_rng(0).integers(0, 256, (3, size_px, size_px, channels), dtype=np.uint8)


@pytest.mark.parametrize(("scaling", "mode"), [("caffe", "caffe"), ("symmetric", "tf"), ("imagenet", "torch")])
def test_scalings_are_those_of_keras(keras, scaling, mode):
    faces = draw_faces(3)
    theirs = keras.applications.imagenet_utils.preprocess_input(faces.astype(np.float32), mode=mode)
    np.testing.assert_allclose(Preprocess(scaling, 3)(faces), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("scaling", "mean"), [("vggface", VGGFACE_MEAN), ("vggface2", VGGFACE2_MEAN)])
def test_vggface_subtracts_its_own_means_from_blue_green_red(scaling, mean):
    red_green_blue = np.array([mean[2], mean[1], mean[0]])
    face = np.broadcast_to(np.round(red_green_blue), (1, 2, 2, 3)).astype(np.uint8)
    assert np.abs(Preprocess(scaling, 3)(face)).max() < 0.51


@pytest.mark.parametrize("size_px", [5, 9, 17, 24])
def test_grey_faces_are_resized_and_replicated_as_by_keras(keras, size_px):
    faces = draw_faces(1)
    resized = keras.ops.image.resize(faces.astype(np.float32), (size_px, size_px), "bilinear", antialias=size_px < 9)
    ours = Preprocess("raw", 3, size_px)(faces)
    assert ours.shape == (3, size_px, size_px, 3)
    for channel in range(3):
        np.testing.assert_allclose(ours[..., channel], np.asarray(resized)[..., 0], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scaling": "tf"}, "known are auto, raw"),
        ({"channels": 2}, "give 1 .grey. or 3"),
        ({"scaling": "caffe"}, "is for colour"),
        ({"size_px": -1}, "give the side in pixels"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Preprocess(**fields)


def test_colour_faces_for_a_grey_model_are_refused():
    with pytest.raises(InputError, match=r"3 channels \(data.channels\) and the model 1 \(model.channels\): set "):
        Preprocess("raw", 1)(draw_faces(3))


@pytest.mark.parametrize("size_px", [0, 5, 17])
def test_rgb_faces_are_resized_channel_by_channel_and_keep_their_order(size_px):
    faces = draw_faces(3)
    ours = Preprocess("raw", 3, size_px)(faces)
    for channel in range(3):
        alone = Preprocess("raw", 1, size_px)(faces[..., channel : channel + 1])
        np.testing.assert_allclose(ours[..., channel], alone[..., 0], atol=1e-4)


def test_rgb_faces_that_are_grey_are_what_grey_faces_are_replicated_to():
    faces, preprocess = draw_faces(1), Preprocess("caffe", 3, 17)
    np.testing.assert_allclose(preprocess(np.repeat(faces, 3, axis=3)), preprocess(faces), atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 3, 64, 128), (400, 100), (6, 50)], ids=str)
def test_initializers_have_the_published_spread(shape):
    fan_in = np.prod(shape[:-1])
    draw = lambda name: layers.make_init(name)(jax.random.key(0), shape, jnp.float32)  # noqa: E731
    limit = (6 / fan_in) ** 0.5  # He et al. 2015
    assert 0.9 * limit < np.abs(draw("he_uniform")).max() <= limit
    assert np.isclose(np.std(draw("he_normal")), (2 / fan_in) ** 0.5, rtol=0.1)


@pytest.mark.parametrize(
    ("shape", "mean"),
    [((400, 128), -8 / 128), ((3, 3, 16, 200), -8 / 200), ((5, 5, 1, 64), -8 / 64), ((512, 4), -1.0)],
    ids=str,
)
def test_yilmaz_polis_mean_goes_by_the_neurons_of_the_layer_and_not_by_their_inputs(shape, mean):
    kernel = layers.make_init("yilmaz_poli")(jax.random.key(0), shape, jnp.float32)
    error = np.std(kernel) / kernel.size**0.5
    assert abs(np.mean(kernel) - mean) < 5 * error + 1e-6
    np.testing.assert_allclose(np.std(kernel), np.std(layers.GLOROT(jax.random.key(0), shape)), rtol=1e-3)


def test_an_unknown_initializer_is_refused():
    with pytest.raises(InputError, match="'zeros'; known are keras, glorot_uniform"):
        layers.make_init("zeros")
