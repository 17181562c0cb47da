"""Operations that XLA is slow at on a CPU, done another way there; on a GPU or a TPU they are XLA's own."""

import jax
import jax.numpy as jnp
from jax import lax


def depthwise_conv(x, kernel, strides, padding, *, dimension_numbers, feature_group_count, **options):
    """A convolution of each channel by itself, in place of `lax.conv_general_dilated`.

    x [B, H, W, C]; kernel [k, l, 1, C]; strides and padding as `lax.conv_general_dilated` takes them. On a CPU it is
    the sum of k l shifted copies, each times its weight of every channel: 5 to 100 times as fast as XLA's there, whose
    grouped convolution takes the channels one after the other.
    """
    plain = jax.default_backend() != "cpu" or feature_group_count != x.shape[-1] or kernel.shape[-1] != x.shape[-1]
    if plain or any(options.get(name) not in (None, (1, 1)) for name in ("lhs_dilation", "rhs_dilation")):
        return lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            **options,
        )
    size = kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], size, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = ((x.shape[1 + i] - size[i]) // strides[i] + 1 for i in (0, 1))
    ends = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1
    total = 0.0
    for i in range(size[0]):
        for j in range(size[1]):
            start, end = (0, i, j, 0), (x.shape[0], i + ends[0], j + ends[1], x.shape[3])
            total += lax.slice(x, start, end, (1, *strides, 1)) * kernel[i, j].reshape(1, 1, 1, -1)
    return total
