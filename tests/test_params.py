import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import params
from fer_jax.errors import InputError

PARAMS = {
    "dense": {"kernel": np.zeros((6, 4)), "bias": np.zeros(4)},
    "conv2d_10": {"kernel": np.zeros((3, 3, 1, 2)), "bias": np.zeros(2)},
    "conv2d_2": {"kernel": np.zeros((5, 3, 1, 2)), "bias": np.zeros(2)},
    "batch_normalization": {"scale": np.zeros(2), "bias": np.zeros(2)},
}
STATISTICS = {"batch_normalization": {"mean": np.zeros(2), "var": np.zeros(2)}}


def test_count_counts_the_values_of_arrays_and_of_shapes():
    assert params.count(PARAMS) == (24 + 4) + (18 + 2) + (30 + 2) + 4
    assert params.count(jax.eval_shape(lambda: {"a": jnp.zeros((3, 5)), "b": [jnp.zeros([])]})) == 16
    assert params.count({}) == 0


def test_only_kernels_are_marked():
    mask = params.kernel_mask({"block": {"conv2d": PARAMS["conv2d_2"]}, **PARAMS})
    assert mask == {
        "block": {"conv2d": {"kernel": True, "bias": False}},
        "dense": {"kernel": True, "bias": False},
        "conv2d_10": {"kernel": True, "bias": False},
        "conv2d_2": {"kernel": True, "bias": False},
        "batch_normalization": {"scale": False, "bias": False},
    }


def test_the_overview_has_a_line_a_layer_in_natural_order_and_keras_totals():
    head, *rows, totals = params.overview(PARAMS, STATISTICS).split("\n")
    assert head.split() == ["layer", "kernel", "parameters"]
    assert [row.split() for row in rows] == [
        ["batch_normalization", "8"],
        ["conv2d_2", "5x3x1x2", "32"],
        ["conv2d_10", "3x3x1x2", "20"],
        ["dense", "6x4", "28"],
    ]
    assert totals == "total 88; trainable 84; statistics 4"


def test_a_parameter_beside_layers_counts_as_a_layer():
    tree = {"scale": np.zeros(3), "block": {"gamma": np.zeros(2), "dense": {"kernel": np.zeros((2, 2))}}}
    assert {path: list(leaves) for path, leaves in params.layers(tree).items()} == {
        "scale": ["scale"],
        "block/gamma": ["gamma"],
        "block/dense": ["kernel"],
    }
    trained, frozen_part = params.split(tree, params.select(tree, ("scale", "block/gamma")))
    assert trained == {"block": {"dense": tree["block"]["dense"]}}
    assert params.join(frozen_part, trained).keys() == tree.keys()
    assert "total 9; trainable 9" in params.overview(tree, {})


NESTED = {"backbone": {"stem": {"kernel": 1}, "top": {"kernel": 2, "bias": 3}}, "head": {"dense": {"kernel": 4}}}


def test_split_and_join_are_inverse():
    for frozen in (set(), {"backbone/stem"}, {"backbone/stem", "backbone/top"}, {"head/dense", "backbone/top"}):
        trained, frozen_part = params.split(NESTED, frozenset(frozen))
        assert params.layers(frozen_part).keys() == frozen
        assert params.layers(trained).keys() == params.layers(NESTED).keys() - frozen
        assert params.join(trained, frozen_part) == NESTED


def test_a_pattern_takes_a_scope_or_a_layer_as_a_whole():
    paths = {
        ("backbone",): {"backbone/stem", "backbone/top"},
        ("backbone/t.*",): {"backbone/top"},
        (".*/dense", "backbone/stem"): {"head/dense", "backbone/stem"},
        (): set(),
    }
    for patterns, expected in paths.items():
        assert params.select(NESTED, patterns) == expected


def test_a_pattern_without_a_match_is_refused():
    with pytest.raises(InputError, match="'stem' matches no layer; layers are, for instance, backbone, head"):
        params.select(NESTED, ("stem",))


def test_the_overview_names_what_is_frozen_and_sums_up_long_scopes():
    tree = {
        "backbone": {f"conv_{i}": {"kernel": np.zeros((2, 3))} for i in range(params.SHOWN_LAYERS + 1)},
        "head": {"dense": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}},
    }
    frozen = frozenset(f"backbone/conv_{i}" for i in range(10))
    _, backbone, head, totals = params.overview(tree, {}, frozen).split("\n")
    assert backbone.split() == ["backbone", "(31", "layers)", "186"]
    assert head.split() == ["head/dense", "3x2", "8"]
    assert totals == "total 194; trainable 134; statistics 0; frozen 60 in 10 layers"
