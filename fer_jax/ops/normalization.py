"""Batch normalization with batch statistics; the gradient reads the input, so no centred copy is stored."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(x, scale, bias, epsilon: float):
    """Normalizes each channel over the batch and its maps (Ioffe and Szegedy 2015).

    x [..., C]; scale, bias [C]. Returns (y like x, mean [C], variance [C]); the variance is biased, and both are at
    least float32. They carry no gradient: they are for the running statistics.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    axes, wide = tuple(range(x.ndim - 1)), _wide(x)
    mean = jnp.mean(wide, axes)
    variance = jnp.maximum(jnp.mean(jnp.square(wide), axes) - jnp.square(mean), 0.0)
    inverse = lax.rsqrt(variance + epsilon)
    slope = _like(inverse * scale, x)
    y = (wide * slope + _like(bias, x) - _like(mean, x) * slope).astype(x.dtype)
    return (y, mean, variance), (x, mean, inverse, scale)


def _backward(epsilon, residuals, gradients):
    x, mean, inverse, scale = residuals
    axes, wide, dy = tuple(range(x.ndim - 1)), _wide(x), _wide(gradients[0])
    count = x.size // x.shape[-1]
    of_bias = jnp.sum(dy, axes)
    of_scale = (jnp.sum(dy * wide, axes) - mean * of_bias) * inverse
    # dx = scale * inverse * (dy - mean(dy) - centred * mean(dy * centred)), regrouped by the factors of dy and x.
    slope = scale * inverse
    of_x = -slope * inverse * of_scale / count
    rest = -slope * of_bias / count - of_x * mean
    dx = dy * _like(slope, x) + wide * _like(of_x, x) + _like(rest, x)
    return dx.astype(x.dtype), of_scale, of_bias


batch_norm.defvjp(_forward, _backward)


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _like(values, x):
    """Returns [C] as [1, ..., C], with as many dimensions as x."""
    return values.reshape((1,) * (x.ndim - 1) + (-1,))
