import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn
from jax import lax

from fer_jax import ops
from fer_jax.errors import InputError
from fer_jax.models import layers
from fer_jax.ops import winograd

NHWC = ("NHWC", "HWIO", "NHWC")


def arrays(seed, *shapes, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def with_gradients(function, *args):
    """Returns the result of a function and its gradients at a gradient that differs from place to place."""

    def both(*args):
        out, pull = jax.vjp(function, *args)
        return out, *pull(jnp.cos(out))

    return jax.jit(both)(*args)


def assert_equals_xla(x, kernel, strides, padding, **options):
    results = [
        with_gradients(
            lambda x, w, conv=conv: conv(x, w, strides, padding, dimension_numbers=NHWC, **options), x, kernel
        )
        for conv in (ops.conv, lax.conv_general_dilated)
    ]
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == x.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1))], ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), pytest.param((2, 1), marks=pytest.mark.full)], ids=str)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), pytest.param((5, 5), marks=pytest.mark.full), (2, 3)], ids=str)
def test_depthwise_and_direct_convolutions_and_their_gradients_equal_xlas_in_float64(kernel, strides, padding):
    with jax.enable_x64(True):
        x, depthwise, dense = arrays(0, (4, 9, 10, 4), (*kernel, 1, 4), (*kernel, 4, 6))
        assert_equals_xla(x, depthwise, strides, padding, feature_group_count=4)
        assert_equals_xla(x, dense, strides, padding)


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding"),
    [
        ((2, 2), (3, 3), (1, 1), "SAME"),
        ((4, 4), (3, 3), (1, 1), "VALID"),  # whose result is smaller than the kernel
        ((1, 1), (3, 3), (1, 1), "SAME"),
        ((3, 5), (5, 5), (2, 1), "SAME"),
        ((5, 4), (3, 2), (2, 2), ((0, 1), (1, 0))),
    ],
    ids=str,
)
def test_a_kernel_larger_than_the_picture_is_one_product(size, kernel, strides, padding):
    with jax.enable_x64(True):
        x, weights = arrays(5, (4, *size, 4), (*kernel, 4, 6))
        assert_equals_xla(x, weights, strides, padding)
        product = lambda x, w: ops.conv(x, w, strides, padding, dimension_numbers=NHWC)  # noqa: E731
        steps = jax.make_jaxpr(lambda x, w: with_gradients(product, x, w))(x, weights)
        assert "dot_general" in str(steps)
        assert "conv_general_dilated" not in str(steps)


@pytest.mark.parametrize("padding", ["SAME", pytest.param("VALID", marks=pytest.mark.full), ((2, 1), (0, 6))], ids=str)
@pytest.mark.parametrize(
    "size", [(8, 8), (7, 10), *(pytest.param(size, marks=pytest.mark.full) for size in ((6, 6), (12, 9)))], ids=str
)
@pytest.mark.parametrize("side", [3, pytest.param(5, marks=pytest.mark.full)])
def test_winograd_and_its_gradients_equal_xlas_in_float64(side, size, padding, monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *_: True)
    with jax.enable_x64(True):
        assert_equals_xla(*arrays(1, (3, *size, 5), (side, side, 5, 7)), (1, 1), padding)


def test_transforms_are_the_published_ones():
    """Lavin and Gray 2015, section 4.3: F(4x4, 3x3)."""
    inputs, kernel, output = winograd.transforms(3, 4)
    assert inputs[[0, 1, 5]].tolist() == [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, 0, -5, 0, 1]]
    np.testing.assert_allclose(kernel[[0, 1, 3]], [[1 / 4, 0, 0], [-1 / 6] * 3, [1 / 24, 1 / 12, 1 / 6]], rtol=1e-15)
    assert output[[0, 3]].tolist() == [[1, 1, 1, 1, 1, 0], [0, 1, -1, 8, -8, 1]]


def test_the_kernels_gradient_is_the_same_in_pieces_of_the_batch(monkeypatch):
    monkeypatch.setattr("fer_jax.ops.convolution.CHUNK_BYTES", 64)
    monkeypatch.setattr("fer_jax.ops.convolution.MIN_CHUNK", 2)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with jax.enable_x64(True):
        x, kernel = arrays(2, (12, 9, 9, 4), (3, 3, 4, 2))
        loss = jax.grad(lambda w: ops.conv(x, w, (1, 1), "SAME", dimension_numbers=NHWC).sum())
        assert jax.jit(loss).lower(kernel).compile().as_text().count(" convolution(") == 4
        assert_equals_xla(x, kernel, (1, 1), "SAME")


@pytest.mark.full
@pytest.mark.parametrize(("size", "channels"), [(24, 64), (6, 128)])
@pytest.mark.parametrize("side", [3, pytest.param(5, marks=pytest.mark.full)])
def test_float32_errors_of_winograd_stay_within_a_few_of_the_direct_ones(side, size, channels):
    """Lavin and Gray 2015, table 6: F(4x4, 3x3) in float32 is less exact than a direct convolution, yet enough."""
    x, kernel = arrays(3, (8, size, size, channels), (side, side, channels, channels), dtype=np.float32)
    padding = ((side // 2, side // 2),) * 2
    assert winograd.pays(jax.ShapeDtypeStruct((128, *x.shape[1:]), np.float32), kernel, padding)
    (grad,) = arrays(4, x.shape, dtype=np.float32)

    def parts(conv, *args):
        out, pull = jax.vjp(conv, *args[:2])
        return [np.asarray(part, np.float64) for part in (out, *pull(args[2]))]

    plain = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)  # noqa: E731
    ours, direct_ones = (parts(conv, x, kernel, grad) for conv in (lambda x, w: winograd.conv(x, w, padding), plain))
    with jax.enable_x64(True):
        exact = parts(plain, *(jnp.asarray(np.asarray(array), np.float64) for array in (x, kernel, grad)))
    for name, winograds, directs, truth in zip(("y", "x", "kernel"), ours, direct_ones, exact, strict=True):
        scale = np.abs(truth).max()
        error, direct = (np.abs(some - truth).max() / scale for some in (winograds, directs))
        assert direct < 1e-5, name
        assert error < 1e-4, name


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((1, 5, 5, 4), (3, 3, 2, 6), {"feature_group_count": 2}),
        ((1, 9, 9, 4), (3, 3, 4, 6), {"rhs_dilation": (2, 2)}),
        ((1, 5, 5, 4), (3, 3, 4, 6), {"lhs_dilation": (2, 2)}),
    ],
)
def test_what_gains_nothing_is_left_to_xla(x, kernel, options):
    x, kernel = arrays(4, x, kernel, dtype=np.float32)
    ours, theirs = (
        f(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=NHWC, **options)
        for f in (ops.conv, lax.conv_general_dilated)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_on_another_backend_everything_is_xlas(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel = jnp.zeros((128, 24, 24, 64)), jnp.zeros((3, 3, 64, 64))
    traced = [
        str(jax.make_jaxpr(lambda x, w, f=f: f(x, w, (1, 1), "SAME", dimension_numbers=NHWC))(x, kernel))
        for f in (ops.conv, lax.conv_general_dilated)
    ]
    assert traced[0] == traced[1]
    assert ops.compiler_options() is None


def test_the_switch_of_the_process_gives_everything_to_xla(monkeypatch):
    (x,) = arrays(6, (8, 12, 12, 3), dtype=np.float32)

    class Convolution(layers.Layers):
        @nn.compact
        def __call__(self, x):
            return layers.max_pool(self.conv(x, "conv", 4, 3), 2, 2)

    def trace():
        model = Convolution()
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        return str(jax.make_jaxpr(jax.grad(lambda v: jnp.sum(model.apply(v, x))))(variables))

    with_path = trace()
    monkeypatch.setenv(ops.SWITCH, "off")
    assert "select_and_scatter" in trace()
    assert "select_and_scatter" not in with_path
    assert ops.compiler_options() is None
    monkeypatch.setenv(ops.SWITCH, "no")
    with pytest.raises(InputError, match="FER_JAX_CPU_PATH is 'no'; known are on, off"):
        ops.cpu_path()


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (2, 7, 9, 3)], ids=str)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling_and_its_gradient_equal_xlas(kind, shape):
    rng = np.random.default_rng(5)
    x = jnp.asarray(rng.integers(0, 3, shape), jnp.float32)  # few values, so that many are equal
    plain = nn.max_pool if kind == "max" else nn.avg_pool
    ours = with_gradients(lambda x: ops.pool_2x2(x, kind), x)
    theirs = with_gradients(lambda x: plain(x, (2, 2), (2, 2)), x)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def linen_norm(x, scale, bias):
    norm = nn.BatchNorm(use_running_average=False, epsilon=1e-3, momentum=0.0)
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": jnp.zeros_like(bias), "var": jnp.ones_like(bias)},
    }
    y, changed = norm.apply(variables, x, mutable=["batch_stats"])
    return y, changed["batch_stats"]["mean"], changed["batch_stats"]["var"]


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (32, 3)], ids=str)
def test_batch_normalization_and_its_gradients_equal_linens_in_float64(shape):
    with jax.enable_x64(True):
        x, scale, bias = arrays(3, shape, shape[-1:], shape[-1:])
        x = 3 * x + 5
        ours = with_gradients(lambda *args: ops.batch_norm(*args, 1e-3)[0], x, scale, bias)
        theirs = with_gradients(lambda *args: linen_norm(*args)[0], x, scale, bias)
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)
        moments = ops.batch_norm(x, scale, bias, 1e-3)[1:]
        np.testing.assert_allclose(moments, linen_norm(x, scale, bias)[1:], rtol=1e-12)
        axes = tuple(range(x.ndim - 1))
        np.testing.assert_allclose(moments, [np.mean(x, axes), np.var(x, axes)], rtol=1e-10)


def test_batch_normalization_keeps_the_type_of_its_input_and_float32_moments():
    (x,) = arrays(4, (64, 3), dtype=jnp.bfloat16)
    y, mean, variance = ops.batch_norm(x, jnp.ones(3), jnp.zeros(3), 1e-3)
    assert (y.dtype, mean.dtype, variance.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(variance, np.var(np.asarray(x, np.float64), 0), rtol=1e-3)


def test_a_channel_that_does_not_change_stays_finite():
    y, _, variance = ops.batch_norm(jnp.full((16, 2), 1e4), jnp.ones(2), jnp.asarray([0.5, -0.5]), 1e-3)
    assert (np.asarray(variance) >= 0).all()
    np.testing.assert_allclose(y, np.broadcast_to([0.5, -0.5], (16, 2)), atol=1e-2)


@pytest.mark.parametrize("train", [True, False])
def test_the_layer_has_linens_variables_and_results(train, monkeypatch):
    class Network(layers.Layers):
        @nn.compact
        def __call__(self, x):
            return self.norm(x, "bn", train=train, momentum=0.9)

    (x,) = arrays(5, (8, 4, 4, 3), dtype=np.float32)
    results = []
    for choice in ops.CHOICES:
        monkeypatch.setenv(ops.SWITCH, choice)
        model = Network()
        variables = model.init(jax.random.key(0), x)
        np.testing.assert_array_equal(variables["batch_stats"]["bn"]["mean"], 0)
        results.append((variables, *model.apply(variables, x, mutable=["batch_stats"])))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_masks_keep_their_share_and_depend_on_nothing_but_the_key(rate):
    shape, count = (64, 12, 12, 32), 64 * 12 * 12 * 32
    masks = [np.asarray(ops.keep_mask(jax.random.key(seed), shape, rate)) for seed in (0, 1, 2)]
    for mask in masks:
        assert scipy.stats.binomtest(int(mask.sum()), count, 1 - rate).pvalue > 1e-4
        # neighbours in any direction know nothing of each other
        for axis in range(4):
            near, far = np.split(mask, 2, axis)
            assert abs(np.corrcoef(near.ravel(), far.ravel())[0, 1]) < 5 / np.sqrt(count / 2)
            pairs = np.moveaxis(mask, axis, 0)
            assert abs(np.corrcoef(pairs[1:].ravel(), pairs[:-1].ravel())[0, 1]) < 5 / np.sqrt(count / 2)
    assert abs(np.corrcoef(masks[0].ravel(), masks[1].ravel())[0, 1]) < 5 / np.sqrt(count)
    np.testing.assert_array_equal(masks[0], ops.keep_mask(jax.random.key(0), shape, rate))


def test_without_a_rate_everything_is_kept():
    assert np.asarray(ops.keep_mask(jax.random.key(3), (100, 100), 0.0)).all()


def test_barriers_hold_with_the_compilers_options():
    """What stands before a barrier is not computed again behind it: two loops in place of one."""
    options = ops.compiler_options()
    assert options is not None, "this jaxlib does not know the options: look for what they are called now"

    def spread(x):
        y = jax.lax.optimization_barrier(jnp.sin(x) * x + 1)
        return jnp.broadcast_to(y[:, None], (64, 8, 64)) * 2

    compiled = jax.jit(spread, compiler_options=options).lower(jnp.ones((64, 64))).compile()
    assert "opt-barrier" in compiled.as_text()
