import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fer_jax import ops


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1))], ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 3)], ids=str)
def test_depthwise_and_its_gradients_equal_xlas_in_float64(kernel, strides, padding):
    rng = np.random.default_rng(0)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 4}
    with jax.enable_x64(True):
        x, w = jnp.asarray(rng.normal(size=(2, 9, 10, 4))), jnp.asarray(rng.normal(size=(*kernel, 1, 4)))
        results = []
        for conv in (ops.depthwise_conv, lax.conv_general_dilated):
            out, pull = jax.vjp(lambda x, w, conv=conv: conv(x, w, strides, padding, **options), x, w)
            results.append((out, *pull(jnp.cos(out))))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_convolution_that_mixes_channels_is_left_to_xla():
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((1, 5, 5, 4), (3, 3, 2, 6)))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 2}
    ours, theirs = (f(x, w, (1, 1), "SAME", **options) for f in (ops.depthwise_conv, lax.conv_general_dilated))
    np.testing.assert_array_equal(ours, theirs)
