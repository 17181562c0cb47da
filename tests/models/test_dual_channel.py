"""The dual-channel network: where it looks, what it sees there, and that it learns to look."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fer_jax import config as config_lib
from fer_jax import models, params
from fer_jax.errors import InputError
from fer_jax.models import dual_channel

LAYERS, HEAD = "conv 4 relu, max_pool, batch_norm, conv 6 relu, max_pool", "global_avg_pool, dense 8 relu"
CENTRES = [(0.5, 0.5), (0.25, 0.75), (0.31, 0.64), (0.75, 0.25)]


def make(name="dual_channel_roi", layers=LAYERS, head=HEAD, **fields):
    section = config_lib.get_default().model
    section.update(name=name, layers=layers, head=head, **fields)
    return models.make(section, 7)


def draw_faces(n=4, size_px=16, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size_px, size_px, channels), dtype=np.uint8)


@functools.cache
def _start(name):
    network, faces = make(name), draw_faces()
    return network, faces, jax.jit(lambda: network.init(jax.random.key(0), faces, train=False))()


def start(name="dual_channel_roi"):
    """Returns a network, faces, and the variables with which training starts."""
    network, faces, variables = _start(name)
    return network, faces, jax.tree.map(lambda leaf: leaf, variables)  # dicts that a test may change


def drawn(scale=9.0):
    """Returns a network, faces, and variables whose region is not the one at the start of training."""
    network, faces, variables = start()
    heat = variables["params"]["heat"]
    variables["params"]["heat"] = heat | {"kernel": scale * np.random.default_rng(0).normal(size=heat["kernel"].shape)}
    return network, faces, variables


def features(network, variables, faces):
    """Returns what the heat map is made of."""
    return network.apply(
        variables, faces, method=lambda network, faces: network.locate(network.preprocess(faces), train=False)
    )


def find(network, variables, faces):
    return network.apply(
        variables, faces, method=lambda network, faces: network.find(network.preprocess(faces), train=False)
    )


@pytest.mark.parametrize("shape", [(12, 12, 1), (10, 16, 3)], ids=str)
def test_a_region_is_sampled_as_by_scipy(shape):
    faces = np.random.default_rng(0).normal(size=(len(CENTRES), *shape)).astype(np.float32)
    ours = dual_channel.sample(faces, jnp.asarray(CENTRES))
    assert ours.shape == faces.shape
    for face, region, centre in zip(faces, ours, CENTRES, strict=True):
        # Pixel i covers i to i + 1 and has its value in the middle; the region covers half of either side.
        axes = [
            side * (at - 0.25) + (np.arange(side) + 0.5) / 2 - 0.5 for side, at in zip(shape[:2], centre, strict=True)
        ]
        grid = np.meshgrid(*axes, indexing="ij")
        for channel in range(shape[2]):
            theirs = ndimage.map_coordinates(face[..., channel].astype(float), grid, order=1, mode="nearest")
            np.testing.assert_allclose(region[..., channel], theirs, rtol=0, atol=1e-5)


def test_the_region_has_the_faces_pixels_at_twice_the_resolution():
    ramp = np.broadcast_to(np.arange(16, dtype=np.float32)[None, :, None, None], (1, 16, 16, 1))
    region = np.asarray(dual_channel.sample(ramp, jnp.asarray([[0.5, 0.5]])))[0, :, 0, 0]
    np.testing.assert_allclose(np.diff(region), 0.5, atol=1e-5)
    np.testing.assert_allclose(region.mean(), ramp.mean(), atol=1e-5)


@pytest.mark.full
def test_training_starts_in_the_middle():
    network, faces, variables = start()
    np.testing.assert_allclose(find(network, variables, faces), 0.5, atol=1e-6)


def soft_argmax(maps, kernel):
    """Returns the centre for one face's features [4, 4, D], in float64, of the cells around which a region fits.

    Four cells have their middles at 1/8, 3/8, 5/8 and 7/8: those are the two in the middle of either axis.
    """
    cells = [(y, x) for y in (1, 2) for x in (1, 2)]
    heat = np.exp([maps[cell] @ kernel[:, 0] for cell in cells])
    return (np.array(cells) + 0.5).T @ heat / heat.sum() / 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_region_is_at_the_soft_argmax_of_the_heat_in_float32_and_within_the_face(dtype):
    network = make(dtype=dtype)
    _, faces, variables = drawn()
    found = find(network, variables, faces)
    maps = features(network, variables, faces)
    assert (maps.shape[1:3], maps.dtype, found.dtype) == ((4, 4), jnp.dtype(dtype), jnp.float32)
    kernel = np.asarray(variables["params"]["heat"]["kernel"], np.float64)
    expected = [soft_argmax(of_face, kernel) for of_face in np.asarray(maps, np.float64)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert 0.25 <= found.min() <= found.max() <= 0.75


def test_the_region_moves_with_the_picture_and_with_the_parameters():
    network, faces, variables = drawn()
    found = np.asarray(find(network, variables, faces))
    assert np.abs(found - found[0])[1:].max(axis=1).min() > 1e-3  # another face, another place
    moved = jax.tree.map(jnp.array, variables)
    moved["params"]["locate"]["conv2d"]["kernel"] *= 1.5
    assert np.abs(find(network, moved, faces) - found).max(axis=1).min() > 1e-3


def test_a_heat_that_knows_a_spot_finds_it_wherever_it_is():
    network, _, variables = start()
    places = [(16, 16), (16, 28), (24, 20), (28, 28)]
    faces = np.full((len(places), 48, 48, 1), 90, np.uint8)
    for face, (y, x) in zip(faces, places, strict=True):
        face[y : y + 4, x : x + 4] = 255
    maps = np.asarray(features(network, variables, faces))
    # The features of the first spot, less those of the background, are what the heat looks for.
    spot = maps[0, 4, 4] - maps[0, 8, 8]
    variables["params"]["heat"] = {"kernel": 60 * (spot / np.sum(spot**2))[:, None], "bias": np.zeros(1, np.float32)}
    found = np.asarray(find(network, variables, faces))
    np.testing.assert_allclose(found, (np.asarray(places) + 2) / 48, rtol=0, atol=0.06)


def test_what_is_seen_there_and_nothing_else_changes_the_second_channel():
    network, faces, variables = start()
    faces = faces[:1]
    outside, inside = faces.copy(), faces.copy()
    outside[:, [0, 1, 2, 13, 14, 15]] = outside[:, :, [0, 1, 2, 13, 14, 15]] = 0
    inside[:, 12] = 255 - inside[:, 12]  # the region at the start is 4 to 12; rows 3 and 12 are interpolated with

    @jax.jit
    def of_region(faces):
        _, kept = network.apply(variables, faces, train=False, capture_intermediates=True, mutable=["intermediates"])
        return kept["intermediates"]["region"]["__call__"][0]

    np.testing.assert_array_equal(of_region(outside), of_region(faces))
    assert not np.allclose(of_region(inside), of_region(faces))


def test_the_twin_sees_the_whole_face_in_both_channels():
    network, faces, variables = start("dual_channel_whole")
    assert variables["params"].keys() == {"whole", "region", "head"}
    variables["params"]["region"] = variables["params"]["whole"]
    _, kept = network.apply(variables, faces, train=False, capture_intermediates=True, mutable=["intermediates"])
    whole, region = (kept["intermediates"][name]["__call__"][0] for name in ("whole", "region"))
    np.testing.assert_array_equal(whole, region)


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.full)])
def test_the_loss_reaches_the_layers_that_place_the_region(dtype):
    network = make(dtype=dtype)
    _, faces, variables = drawn(scale=1.0)
    targets = jax.nn.one_hot(jnp.arange(4), 7)

    def loss(parameters):
        logits, _ = network.apply(variables | {"params": parameters}, faces, train=True, mutable=["batch_stats"])
        assert logits.dtype == jnp.float32
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * targets, axis=-1))

    differentiate = jax.jit(jax.grad(loss))
    gradient = differentiate(variables["params"])
    for layer in ("locate/conv2d", "locate/conv2d_1", "locate/conv2d_2", "heat", "whole/conv2d", "region/conv2d_1"):
        assert np.abs(params.layers(gradient)[layer]["kernel"]).max() > 1e-6, layer
    # At the start of training the last layer is zero, and learns first.
    assert np.abs(differentiate(start()[2]["params"])["heat"]["kernel"]).max() > 1e-6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": "conv 4, flatten"}, "model.layers: 'flatten' leaves no map for model.head: move it there"),
        ({"layers": "conv 4, cfc 8"}, "model.layers: 'cfc 8' leaves no map"),
        ({"layers": ""}, "model.layers is empty"),
        ({"head": "dense 8"}, "model.head has none of flatten, global_avg_pool, cfc"),
        ({"name": "dual_channel"}, "known are cnn, average, dual_channel_roi, dual_channel_whole, vgg16"),
    ],
)
def test_a_wrong_specification_is_refused_by_name(fields, message):
    with pytest.raises(InputError) as caught:
        make(**fields)
    assert message in str(caught.value)
