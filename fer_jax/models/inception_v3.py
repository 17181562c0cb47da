"""Inception V3 (Szegedy et al. 2016), as in Keras, and the parts that it shares with Inception-ResNet V2."""

import itertools

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models import layers
from fer_jax.models.backbone import Row


class Inception(layers.Layers):
    """A network of chains: convolutions with batch normalization and ReLU, under Keras's automatic names."""

    def make_chain(self, *, train: bool):
        """Returns `chain(x, *steps)`, which applies a convolution, batch normalization and ReLU per step.

        A step is (filters, kernel[, padding[, strides]]), 'SAME' and 1 by default. Keras numbers layers in the order of
        their creation, so one chain must serve the whole network: the order of its calls fixes the names.
        """
        numbers = itertools.count()

        def apply(x, filters, kernel, padding="SAME", strides=1):
            number = next(numbers)
            suffix = f"_{number}" if number else ""
            names = (f"conv2d{suffix}", f"batch_normalization{suffix}")
            return self.conv_norm_relu(x, names, filters, kernel, padding=padding, strides=strides, train=train)

        def chain(x, *steps):
            for step in steps:
                x = apply(x, *step)
            return x

        return chain

    def conv_norm_relu(self, x, names, filters, kernel, *, padding="SAME", strides=1, train: bool):
        """A convolution, a batch normalization without gamma, and ReLU; names: of convolution and normalization."""
        x = self.conv(x, names[0], filters, kernel, strides=strides, padding=padding, use_bias=False)
        return nn.relu(self.norm(x, names[1], train=train, scale=False))


class InceptionV3(Inception):
    """The maps are about 1/32 of the input (75 pixels: one cell, 299: 8x8), with 2048 channels."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        chain = self.make_chain(train=train)
        x = stem(chain, x)
        for pooled in (32, 64, 64):
            x = inception_a(chain, x, 64, pooled)
        x = join(
            chain(x, (384, 3, "VALID", 2)),
            chain(x, (64, 1), (96, 3), (96, 3, "VALID", 2)),
            layers.max_pool(x, 3, 2),
        )
        for width in (128, 160, 160, 192):
            x = _inception_b(chain, x, width)
        x = join(
            chain(x, (192, 1), (320, 3, "VALID", 2)),
            chain(x, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, "VALID", 2)),
            layers.max_pool(x, 3, 2),
        )
        for _ in range(2):
            x = _inception_c(chain, x)
        return x


def stem(chain, x):
    """[B, S, S, 3] -> maps of about 1/8 of S, with 192 channels."""
    x = layers.max_pool(chain(x, (32, 3, "VALID", 2), (32, 3, "VALID"), (64, 3)), 3, 2)
    return layers.max_pool(chain(x, (80, 1), (192, 3, "VALID")), 3, 2)


def inception_a(chain, x, direct, pooled):
    """The block of square kernels; `direct` and `pooled`: channels of its first and its last branch."""
    return join(
        chain(x, (direct, 1)),
        chain(x, (48, 1), (64, 5)),
        chain(x, (64, 1), (96, 3), (96, 3)),
        _pooled(chain, x, pooled),
    )


def _inception_b(chain, x, width):
    """The block of 7x7 kernels, factorized into 1x7 and 7x1; `width`: channels inside its branches."""
    row, column = (1, 7), (7, 1)
    return join(
        chain(x, (192, 1)),
        chain(x, (width, 1), (width, row), (192, column)),
        chain(x, (width, 1), (width, column), (width, row), (width, column), (192, row)),
        _pooled(chain, x, 192),
    )


def _inception_c(chain, x):
    """The block whose branches end in parallel 1x3 and 3x1 kernels."""

    def fork(x):
        return chain(x, (384, (1, 3))), chain(x, (384, (3, 1)))

    return join(
        chain(x, (320, 1)),
        *fork(chain(x, (384, 1))),
        *fork(chain(x, (448, 1), (384, 3))),
        _pooled(chain, x, 192),
    )


def _pooled(chain, x, filters):
    return chain(layers.avg_pool(x, 3, 1, "SAME"), (filters, 1))


def join(*branches):
    """Concatenates maps along their channels."""
    return jnp.concatenate(branches, axis=-1)


MODELS = {"inception_v3": Row(InceptionV3, scaling="symmetric", native_px=299, min_px=75)}
