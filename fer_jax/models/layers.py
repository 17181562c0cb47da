"""Keras's layers in linen, under Keras's names, for all networks.

Variables are flat and have Keras's layer names, `params[<layer>][kernel | bias | scale]` and
`batch_stats[<layer>][mean | var]`, so that Keras's weights and layer numbers need no mapping.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from fer_jax import ops
from fer_jax.errors import InputError
from fer_jax.runtime import remat

GLOROT = nn.initializers.glorot_uniform()  # Keras's default


def _negative_mean(key, shape, dtype=jnp.float32, **_):
    """Yilmaz and Poli 2022: weights with mean max(-1, -8 / N) in a layer of N neurons, and Glorot's spread.

    N is the layer's width, its units or filters: the last axis of every kernel here, depthwise ones included.
    """
    return GLOROT(key, shape, dtype) + max(-1.0, -8.0 / shape[-1])


# model.init -> initializer of kernels; "keras" means each family's own
INITS = {
    "keras": None,
    "glorot_uniform": GLOROT,
    "he_uniform": nn.initializers.he_uniform(),
    "he_normal": nn.initializers.he_normal(),
    "yilmaz_poli": _negative_mean,
}


class Layers(nn.Module):
    """The layers for a network's `@nn.compact` method; each maps [B, H, W, C] (dense: [B, C]) to the same form.

    Attributes:
      dtype: of the computation; parameters stay float32.
      stored: paths (`backbone/conv1_bn`) of the BatchNorms that use their stored statistics in training too.
      kernel_init: of all kernels; None: the family's own.
    """

    dtype: jnp.dtype = jnp.float32
    stored: frozenset[str] = frozenset()
    kernel_init: Callable | None = None

    def conv(self, x, name, filters, kernel, *, strides=1, padding="SAME", use_bias=True, init=GLOROT, **options):
        """A convolution; kernel and strides: a number or a pair; padding: 'SAME', 'VALID' or pairs (before, after)."""
        x = nn.Conv(
            filters,
            _pair(kernel),
            _pair(strides),
            padding,
            use_bias=use_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init or init,
            conv_general_dilated=ops.conv if ops.cpu_path() else lax.conv_general_dilated,
            name=name,
            **options,
        )(x)
        return remat.layer_output(x)

    def depthwise(self, x, name, kernel, *, strides=1, padding="SAME", use_bias=False, init=GLOROT):
        """A depthwise convolution; its kernel is [k, k, 1, C], Keras's is [k, k, C, 1]."""
        common = {"strides": strides, "padding": padding, "use_bias": use_bias, "init": init}
        return self.conv(x, name, x.shape[-1], kernel, feature_group_count=x.shape[-1], **common)

    def norm(self, x, name, *, train, epsilon=1e-3, momentum=0.99, scale=True):
        """A batch normalization; the momentum is the fraction of the old running statistics that is kept."""
        stored = not train or "/".join((*self.path, name)) in self.stored
        common = {"momentum": momentum, "epsilon": epsilon, "use_scale": scale, "dtype": self.dtype, "name": name}
        if ops.cpu_path() and not stored:
            return _BatchNorm(**common)(x)
        return nn.BatchNorm(use_running_average=stored, **common)(x)

    def dense(self, x, name, units, *, init=GLOROT, dtype=None):
        """A fully connected layer, computed in `dtype` (None: that of the network)."""
        x = nn.Dense(units, dtype=dtype or self.dtype, kernel_init=self.kernel_init or init, name=name)(x)
        return remat.layer_output(x)

    def dropout(self, x, rate, *, train):
        """Sets a fraction of the values to 0 in training, and scales the others to keep the mean."""
        if not train or not rate:
            return x
        keep = ops.keep_mask(self.make_rng("dropout"), x.shape, rate)
        return jnp.where(keep, x / (1 - rate), 0)


class _BatchNorm(nn.Module):
    """`nn.BatchNorm` in training, computed by `ops.batch_norm`; fields and variables are linen's."""

    momentum: float
    epsilon: float
    use_scale: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        shape = x.shape[-1:]
        running = {
            "mean": self.variable("batch_stats", "mean", jnp.zeros, shape),
            "var": self.variable("batch_stats", "var", jnp.ones, shape),
        }
        scale = self.param("scale", nn.initializers.ones, shape) if self.use_scale else jnp.ones(shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        y, *moments = ops.batch_norm(x.astype(self.dtype), scale, bias, self.epsilon)
        if not self.is_initializing():
            for old, new in zip(running.values(), moments, strict=True):
                old.value = self.momentum * old.value + (1 - self.momentum) * new
        return y


def zero_pad(x, before: int, after: int | None = None):
    """Keras's ZeroPadding2D, on both axes."""
    rim = (before, before if after is None else after)
    return jnp.pad(x, ((0, 0), rim, rim, (0, 0)))


def max_pool(x, size: int, strides: int, padding="VALID"):
    """Keras's MaxPooling2D; 'SAME' pads with minus infinity."""
    if _is_2x2(size, strides, padding):
        return ops.pool_2x2(x, "max")
    return nn.max_pool(x, (size, size), (strides, strides), padding)


def avg_pool(x, size: int, strides: int, padding="VALID"):
    """Keras's AveragePooling2D: at the border it divides by the number of real cells."""
    if _is_2x2(size, strides, padding):
        return ops.pool_2x2(x, "avg")
    return nn.avg_pool(x, (size, size), (strides, strides), padding, count_include_pad=False)


def _is_2x2(size, strides, padding):
    return ops.cpu_path() and size == strides == 2 and padding == "VALID"


def make_init(name: str):
    """Returns the initializer for `model.init`, None for 'keras'. Raises InputError for an unknown name."""
    if name not in INITS:
        raise InputError(f"model.init is '{name}'; known are {', '.join(INITS)}")
    return INITS[name]


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)
