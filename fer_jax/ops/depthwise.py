"""Depthwise convolutions: each channel has its own kernel."""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(x, kernel, strides, padding):
    """x [B, H, W, C], kernel [k, l, 1, C], padding ((before, after), (before, after)) -> [B, H', W', C].

    The sum of k l shifted copies, each times its weight per channel: 5 to 100 times as fast as XLA:CPU's grouped
    convolution, which computes one channel after the other.
    """
    return _shifted_sum(x, kernel, strides, padding)


def _forward(x, kernel, strides, padding):
    x = lax.optimization_barrier(x)
    return _shifted_sum(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, residuals, grad):
    x, kernel = residuals
    grad = lax.optimization_barrier(grad)
    met = windows(x, kernel.shape[:2], strides, padding)
    # Each face is summed first, so that the work is split among the cores by face.
    sums = [jnp.sum(lax.optimization_barrier(jnp.sum(window * grad, (1, 2))), 0) for window in met]
    kernel_grad = jnp.stack(sums).reshape(kernel.shape)
    # The gradient, dilated with zeros by the strides, then the mirrored kernel over it.
    rims = []
    for axis in (0, 1):
        spread = (grad.shape[1 + axis] - 1) * strides[axis] + 1
        before = kernel.shape[axis] - 1 - padding[axis][0]
        rims.append((before, x.shape[1 + axis] + kernel.shape[axis] - 1 - spread - before, strides[axis] - 1))
    spread = lax.pad(grad, jnp.zeros((), grad.dtype), ((0, 0, 0), *rims, (0, 0, 0)))
    return _shifted_sum(spread, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0))), kernel_grad


depthwise_conv.defvjp(_forward, _backward)


def _shifted_sum(x, kernel, strides, padding):
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    met = windows(x, kernel.shape[:2], strides, padding)
    return functools.reduce(jnp.add, [window * weight for window, weight in zip(met, weights, strict=True)])


def windows(x, size, strides, padding):
    """Returns the inputs under each cell of a kernel: k l arrays [B, H', W', C]."""
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
    ends = [((x.shape[1 + i] - size[i]) // strides[i]) * strides[i] + 1 for i in (0, 1)]
    return [
        lax.slice(x, (0, i, j, 0), (x.shape[0], i + ends[0], j + ends[1], x.shape[3]), (1, *strides, 1))
        for i, j in itertools.product(*map(range, size))
    ]
