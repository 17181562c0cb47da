"""2x2 pooling with stride 2 from four strided slices, without XLA's select-and-scatter."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def pool_2x2(x, kind: str):
    """x [B, H, W, C] -> [B, H // 2, W // 2, C]; kind: 'max' or 'avg'. An odd row or column at the edge is dropped.

    As in XLA, the first of several equal maxima gets the gradient.
    """
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return _max(x) if kind == "max" else _avg(x)


def _quarters(x):
    return [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def _spread(y):
    """[B, h, w, C] -> [B, h, 2, w, 2, C], each value repeated over its window."""
    batch, height, width, channels = y.shape
    return jnp.broadcast_to(y[:, :, None, :, None], (batch, height, 2, width, 2, channels))


def _join(windows):
    batch, height, _, width, _, channels = windows.shape
    return windows.reshape(batch, 2 * height, 2 * width, channels)


@jax.custom_vjp
def _avg(x):
    return functools.reduce(jnp.add, _quarters(x)) * 0.25


def _avg_forward(x):
    return _avg(lax.optimization_barrier(x)), None


def _avg_backward(_, grad):
    # Without the barrier, the producer of the gradient is recomputed for each of the four cells.
    return (_join(_spread(lax.optimization_barrier(grad * 0.25))),)


_avg.defvjp(_avg_forward, _avg_backward)


@jax.custom_vjp
def _max(x):
    return functools.reduce(jnp.maximum, _quarters(x))


def _max_forward(x):
    x = lax.optimization_barrier(x)
    quarters, largest = _quarters(x), _max(x)
    winner = jnp.full(largest.shape, 3, jnp.uint8)
    for number in (2, 1, 0):
        winner = jnp.where(quarters[number] == largest, jnp.uint8(number), winner)
    return largest, lax.optimization_barrier(winner)


def _max_backward(winner, grad):
    number = jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 2, 1, 2, 1)
    grad = lax.optimization_barrier(grad)
    return (_join(jnp.where(_spread(winner) == number, _spread(grad), 0)),)


_max.defvjp(_max_forward, _max_backward)
