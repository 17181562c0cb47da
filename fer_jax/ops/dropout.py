"""A mask for dropout that costs a few integer operations a value and fuses with what uses it."""

import math

import jax
import jax.numpy as jnp
from jax import lax


def keep_mask(key, shape, rate: float):
    """Returns a mask [*shape], true with probability 1 - rate (to 2^-32).

    The finaliser of murmur3 (Appleby 2011) of a counter and the key's words: good enough for dropout, not for
    statistics. The mask depends on the key and the shape alone, not on the device or on how it is sharded.
    """
    words = jax.random.key_data(key).reshape(-1).astype(jnp.uint32)
    z = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) * jnp.uint32(0x9E3779B9) + words[0]
    z = (z ^ (z >> 16) ^ words[-1]) * jnp.uint32(0x85EBCA6B)
    z = (z ^ (z >> 13)) * jnp.uint32(0xC2B2AE35)
    return (z ^ (z >> 16)) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
