import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import params

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
