"""Convolutions for training small networks on a CPU, in place of `lax.conv_general_dilated`."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from fer_jax.ops import winograd
from fer_jax.ops.depthwise import depthwise_conv, windows

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
CHUNK_BYTES = 2 << 20  # of the input, for the kernel's gradient: XLA transposes it, so it should fit the cache
MIN_CHUNK = 8  # faces


def conv(  # noqa: PLR0917 - the signature of lax.conv_general_dilated
    x,
    kernel,
    strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    **options,
):
    """A convolution like `lax.conv_general_dilated`, which it calls for all shapes that gain nothing.

    x [B, H, W, C]; kernel [k, l, C / groups, F]; strides and padding as in `lax.conv_general_dilated`. On a CPU,
    kernels of one channel are computed as sums of shifted products, kernels larger than the picture as a matrix
    product, and 3x3 and 5x5 kernels between many channels by Winograd's algorithm; for the others, the gradient of the
    kernel is summed over chunks of the batch.
    """
    spec = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)
    plain = (
        jax.default_backend() != "cpu"
        or spec != lax.conv_dimension_numbers(x.shape, kernel.shape, DIMENSIONS)
        or any(dilation not in (None, (1, 1)) for dilation in (lhs_dilation, rhs_dilation))
    )
    depthwise = feature_group_count == x.shape[-1] == kernel.shape[-1]
    if plain or (feature_group_count > 1 and not depthwise):
        return lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            **options,
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple(tuple(rim) for rim in padding)
    if depthwise:
        return depthwise_conv(x, kernel, strides, padding)
    size = [
        (n + sum(rim) - taps) // stride + 1
        for n, taps, stride, rim in zip(x.shape[1:3], kernel.shape[:2], strides, padding, strict=True)
    ]
    if min(size) > 0 and min(math.prod(x.shape[1:3]), math.prod(size)) < math.prod(kernel.shape[:2]):
        return _product(x, kernel, tuple(strides), padding)
    if tuple(strides) == (1, 1) and winograd.pays(x, kernel, padding):
        return winograd.conv(x, kernel, padding)
    return _direct(x, kernel, tuple(strides), padding)


def _plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def _product(x, kernel, strides, padding):
    """A convolution as a matrix product of the kernel and the patches under it.

    XLA swaps the roles of a kernel and a smaller picture, and then has only slow loops, 10 to 70 times slower than this
    product (benchmarks/cpu_ops); also in the gradient, whose result is the picture.
    """
    under = lax.optimization_barrier(jnp.concatenate(windows(x, kernel.shape[:2], strides, padding), axis=-1))
    return under @ kernel.reshape(-1, kernel.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _direct(x, kernel, strides, padding):
    return _plain(lax.optimization_barrier(x), kernel, strides, padding)


def _direct_forward(x, kernel, strides, padding):
    x = lax.optimization_barrier(x)
    return _plain(x, kernel, strides, padding), (x, kernel)


def _direct_backward(strides, padding, residuals, grad):
    x, kernel = residuals
    grad = lax.optimization_barrier(grad)
    (x_grad,) = jax.vjp(lambda x: _plain(x, kernel, strides, padding), x)[1](grad)
    size = x.shape[0] // _chunks(x, kernel)
    parts = []
    for start in range(0, x.shape[0], size):
        pieces = (lax.slice_in_dim(array, start, start + size) for array in (x, grad))
        parts.append(_kernel_gradient(*pieces, kernel.shape, strides, padding))
    return x_grad, functools.reduce(jnp.add, parts)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))  # so that equal chunks are traced once
def _kernel_gradient(x, grad, shape, strides, padding):
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(lambda kernel: _plain(x, kernel, strides, padding), kernel)(grad)[0]


_direct.defvjp(_direct_forward, _direct_backward)


def _chunks(x, kernel):
    """Returns the number of chunks of the batch in which the kernel's gradient is computed."""
    if jax.device_count() > 1:  # a chunk of a sharded batch is on one device
        return 1
    number, least = 1, max(CHUNK_BYTES, 8 * kernel.nbytes)
    while (
        x.shape[0] % (2 * number) == 0 and x.shape[0] // (2 * number) >= MIN_CHUNK and x.nbytes // number >= 2 * least
    ):
        number *= 2
    return number
