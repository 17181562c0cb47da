"""A dropout mask that costs a few integer operations per value and fuses with its consumer."""

import math

import jax
import jax.numpy as jnp
from jax import lax


def keep_mask(key, shape, rate: float):
    """Returns a mask [*shape], true with probability 1 - rate (to 2^-32).

    murmur3's finaliser (Appleby 2011) applied to a counter and the key's words: good enough for dropout, not for
    statistics. The mask depends on the key and the shape only, not on the device or the sharding.
    """
    words = jax.random.key_data(key).reshape(-1).astype(jnp.uint32)
    z = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) * jnp.uint32(0x9E3779B9) + words[0]
    z = (z ^ (z >> 16) ^ words[-1]) * jnp.uint32(0x85EBCA6B)
    z = (z ^ (z >> 13)) * jnp.uint32(0xC2B2AE35)
    return (z ^ (z >> 16)) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
