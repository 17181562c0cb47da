"""What the EfficientNets promise beside their parity with Keras: stochastic depth, and what kernels start from."""

import jax
import numpy as np
import pytest
import reference

from fer_jax import models
from fer_jax.models import efficientnet

COUNT = 400
STAGES = (efficientnet.Stage(repeats=4, kernel=3, strides=1, expand=1, filters=8),)


def make(**fields):
    net = efficientnet.EfficientNet(stages=STAGES, stem=8, top=8, **fields)
    faces = np.random.default_rng(0).normal(0, 1, (COUNT, 2, 2, 3)).astype(np.float32)
    return net, faces, jax.jit(lambda: net.init(jax.random.key(0), faces, train=False))()


def branches(net, variables, faces, key):
    """Returns what each block adds to its input, divided by what its branch gave: 0, or 1 / (1 - rate); [blocks, B]."""
    _, state = net.apply(
        variables,
        faces,
        train=True,
        rngs={"dropout": key},
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=lambda module, _: str(module.name).endswith(("_project_bn", "_drop")),
    )
    seen = {name: np.asarray(out["__call__"][0]) for name, out in state["intermediates"].items()}
    kept = {name.removesuffix("_drop"): out for name, out in seen.items() if name.endswith("_drop")}
    return {name: kept[name][:, 0, 0] / seen[f"{name}_project_bn"][:, 0, 0] for name in kept}


@pytest.mark.full
def test_stochastic_depth_leaves_out_whole_branches_of_whole_faces_at_the_rates_of_keras():
    net, faces, variables = make(drop_connect=0.8)
    ratios = branches(net, variables, faces, jax.random.key(1))
    # 0.8 * b / 4 for block b; the first has rate 0, so no draw.
    assert set(ratios) == {"block1b", "block1c", "block1d"}
    for name, rate in {"block1b": 0.2, "block1c": 0.4, "block1d": 0.6}.items():
        dropped = (ratios[name] == 0).all(axis=1)
        np.testing.assert_allclose(ratios[name][~dropped], 1 / (1 - rate), rtol=1e-4)
        assert abs(dropped.mean() - rate) < 4 * (rate * (1 - rate) / COUNT) ** 0.5
    others = branches(net, variables, faces, jax.random.key(2))
    assert any((others[name] != ratios[name]).any() for name in ratios)


def test_stochastic_depth_needs_no_rng_where_it_is_off():
    net, faces, variables = make(drop_connect=0.0)
    net.apply(variables, faces, train=True, mutable=["batch_stats"])
    net, faces, variables = make()
    net.apply(variables, faces, train=False)
    with pytest.raises(Exception, match="dropout"):
        net.apply(variables, faces, train=True, mutable=["batch_stats"])


@pytest.mark.parametrize("name", ["efficientnetb0", "efficientnetb3", "efficientnetv2b2"])
def test_drop_rates_are_those_of_keras(keras, name):
    theirs = getattr(keras.applications, reference.KERAS[name])(weights=None, include_top=False)
    expected = {layer.name: layer.rate for layer in theirs.layers if type(layer).__name__ == "Dropout"}
    net = models.row(name).build()
    ours = {f"{block}_drop": rate for block, _, _, rate in net.plan()}
    assert len(expected) > 5
    assert {name: ours[name] for name in expected} == pytest.approx(expected)


def test_kernels_start_as_in_keras(keras):
    net = efficientnet.EfficientNet(
        stages=(efficientnet.Stage(repeats=1, kernel=5, strides=2, expand=6, filters=64),), stem=32, top=128
    )
    faces = np.zeros((1, 8, 8, 3), np.float32)
    kernels = {
        name: leaves["kernel"]
        for name, leaves in jax.jit(lambda: net.init(jax.random.key(0), faces, train=False))()["params"].items()
        if "kernel" in leaves
    }
    keras.utils.set_random_seed(0)
    draw = keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")
    assert len(kernels) == 7
    # Two such deviations differ by at most 4 / sqrt(n), four standard errors of their ratio.
    for name, kernel in kernels.items():
        shape = (*kernel.shape[:2], kernel.shape[3], 1) if "dwconv" in name else kernel.shape
        expected = np.asarray(draw(shape))
        assert np.std(kernel) == pytest.approx(np.std(expected), rel=4 / kernel.size**0.5), name
        assert np.abs(kernel).max() <= 2 * np.std(expected) / 0.87 * 1.1  # cut at two deviations of the uncut
