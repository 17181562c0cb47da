"""The CfC network against a transcription of its equations in NumPy (Hasani et al. 2022, gated form)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import config as config_lib
from fer_jax import models
from fer_jax.errors import InputError
from fer_jax.models import stack
from fer_jax.runtime import remat

UNITS, CHANNELS = 6, 5


def make(dtype=jnp.float32, layers="cfc 6", **fields):
    return stack.Stack(layers=stack.parse(layers), dtype=dtype, **fields)


def draw(model, shape, seed=0):
    """Returns variables and a batch of maps, all of them drawn, biases too."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32), shapes)
    return variables, rng.normal(size=shape).astype(np.float32)


def transcribe(params, maps, stride=1.0):
    """Returns the last state [B, units] for maps [B, H, W, C], in float64, cell by cell and face by face.

    stride: the distance of two neighbouring cells.
    """

    def affine(name, x):
        return x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)

    states = []
    for face in maps.astype(np.float64):
        state, before = np.zeros(UNITS), None
        for y in range(face.shape[0]):
            for x in range(face.shape[1]):
                t = stride * (1.0 if before is None else ((y - before[0]) ** 2 + (x - before[1]) ** 2) ** 0.5)
                z = 1.7159 * np.tanh(0.666 * affine("hidden", np.concatenate([face[y, x], state])))
                g, h = np.tanh(affine("g", z)), np.tanh(affine("h", z))
                f_t = affine("time_a", z) * t + affine("time_b", z)  # the paper's f t
                share = 1 / (1 + np.exp(f_t))  # sigmoid(-f t)
                state, before = share * g + (1 - share) * h, (y, x)
        states.append(state)
    return np.stack(states)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (5, 1)], ids=str)
def test_a_map_is_read_as_the_equations_say(shape):
    model = make()
    variables, maps = draw(model, (2, *shape, CHANNELS))
    state = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, maps)
    expected = transcribe(variables["params"]["cfc"], maps)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(state, expected, rtol=0, atol=1e-5)
    if shape[1] > 1:  # time matters
        assert not np.allclose(expected, transcribe(variables["params"]["cfc"], maps, stride=2.0), atol=1e-2)


def test_the_parameters_are_those_of_five_dense_layers():
    variables, _ = draw(make(), (1, 2, 2, CHANNELS))
    shapes = jax.tree.map(jnp.shape, variables["params"]["cfc"])
    inner = {"kernel": (UNITS, UNITS), "bias": (UNITS,)}
    outer = {"kernel": (CHANNELS + UNITS, UNITS), "bias": (UNITS,)}
    assert shapes == {"hidden": outer, "g": inner, "h": inner, "time_a": inner, "time_b": inner}


def test_bfloat16_stays_near_float32_and_keeps_its_parameters():
    model, half = make(), make(jnp.bfloat16)
    variables, maps = draw(model, (4, 3, 3, CHANNELS))
    shapes = jax.eval_shape(lambda: half.init(jax.random.key(0), maps, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    exact = model.apply(variables, maps, train=False)
    rounded = half.apply(variables, maps.astype(jnp.bfloat16), train=False)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(np.float32), exact, rtol=0, atol=0.1)


@pytest.mark.parametrize("choice", ["none", "activations", "segments"])
def test_every_weight_and_every_cell_gets_the_gradient_of_finite_differences(choice):
    model = make()
    variables, maps = draw(model, (1, 2, 3, CHANNELS))
    weights = np.random.default_rng(1).normal(size=(1, UNITS)).astype(np.float32)

    def value(inputs):
        variables, maps = inputs
        return jnp.sum(model.apply(variables, maps, train=False) * weights)

    inputs = (variables, jnp.asarray(maps))
    gradient = jax.jit(jax.grad(remat.rematerialize(value, choice)))(inputs)
    for leaf in jax.tree.leaves(gradient):
        assert np.abs(leaf).max() > 1e-3
    assert np.abs(gradient[1]).max(axis=-1).min() > 1e-5  # the first cell counts as well

    def expected(params, maps):
        return float(np.sum(transcribe(params["cfc"], maps) * weights))

    step, params = 1e-4, jax.tree.map(np.asarray, variables["params"])
    for name in ("hidden", "time_a"):
        found = []
        for sign in (1, -1):
            moved = {layer: dict(leaves) for layer, leaves in params["cfc"].items()}
            moved[name]["kernel"] = moved[name]["kernel"].astype(np.float64)
            moved[name]["kernel"][1, 2] += sign * step
            found.append(expected({"cfc": moved}, maps))
        slope = (found[0] - found[1]) / (2 * step)
        np.testing.assert_allclose(gradient[0]["params"]["cfc"][name]["kernel"][1, 2], slope, rtol=0.01, atol=1e-4)


@pytest.mark.full
def test_a_network_and_a_head_may_have_it():
    section = config_lib.get_default().model
    section.update(layers="conv 4 relu, max_pool, max_pool, cfc 8 as reader, dense 5 relu")
    faces = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 1), dtype=np.uint8)
    network = models.make(section, 7)
    logits, variables = network.init_with_output(jax.random.key(0), faces, train=False)
    assert logits.shape == (2, 7)
    assert variables["params"].keys() == {"conv2d", "reader", "dense", "dense_1"}
    section.update(name="efficientnet_lite0", head="dropout 0.2, cfc 8", size_px=64)
    network = models.make(section, 7)
    shape = jax.eval_shape(lambda: network.init(jax.random.key(0), faces, train=False))["params"]["head"]
    assert shape["cfc"]["hidden"]["kernel"].shape == (1280 + 8, 8)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("cfc", "'cfc' needs a number of filters or units, as in 'cfc 64'"),
        ("cfc 8 relu", "'cfc 8 relu': cannot read 'relu'"),
        ("conv 4, flatten, cfc 8", "'cfc 8' needs a map, and 'flatten' before it leaves none"),
        ("conv 4, cfc 8, max_pool", "'max_pool' needs a map, and 'cfc 8' before it leaves none"),
        ("conv 4, global_avg_pool, conv 8", "'conv 8' needs a map, and 'global_avg_pool' before it"),
    ],
)
def test_a_wrong_place_is_refused_by_name(layers, message):
    with pytest.raises(InputError) as caught:
        stack.parse(layers)
    assert message in str(caught.value)
