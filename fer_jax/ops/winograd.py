"""Winograd's algorithm F(4x4, 3x3) for 3x3 convolutions of stride 1, with gradients: 36 matrix products a tile.

Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks": y = A^T [(G w G^T) * (B^T x B)] A on tiles of
4x4 outputs, with a quarter of the multiplications. The transforms cost memory traffic, so few channels gain nothing.

A step has thousands of these operations, and tracing them is a part of every start: so they are `lax`'s and not
jax.numpy's, which take twice as long.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 4
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
MIN_CHANNELS = 64


def pays(x, kernel, padding) -> bool:
    """Whether the algorithm is expected to beat a direct convolution; measured in experiments/cpu_ops/."""
    if kernel.shape[:2] != (3, 3) or x.dtype not in (jnp.float32, jnp.float64):
        return False
    size, tiles = _sizes(x.shape, padding)
    waste = TILE**2 * tiles[0] * tiles[1] / (size[0] * size[1])
    channels = min(kernel.shape[2:])
    enough = x.shape[0] * tiles[0] * tiles[1] >= max(kernel.shape[2:]) / 4  # else the kernel's transform dominates
    return enough and channels >= MIN_CHANNELS * waste**2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x, kernel, padding):
    """x [B, H, W, C], kernel [3, 3, C, F], padding ((before, after), (before, after)) -> [B, H', W', F]."""
    return _convolve(lax.optimization_barrier(x), kernel, padding)


def _forward(x, kernel, padding):
    x = lax.optimization_barrier(x)
    return _convolve(x, kernel, padding), (x, kernel)


def _backward(padding, held, grad):
    x, kernel = held
    grad = lax.optimization_barrier(grad)
    mirrored = lax.transpose(lax.rev(kernel, (0, 1)), (0, 1, 3, 2))
    x_grad = _convolve(grad, mirrored, tuple((2 - before, 2 - after) for before, after in padding))
    patches = _input_tiles(x, padding)
    products = [
        lax.dot(lax.transpose(patch, (1, 0)), tile) for patch, tile in zip(patches, _gradient_tiles(grad), strict=True)
    ]
    columns = [[_combine(KERNEL[:, i], products[j::6]) for j in range(6)] for i in range(3)]
    columns = lax.optimization_barrier(columns)
    return x_grad, _stack([_stack([_combine(row, line) for row in KERNEL.T], 0) for line in columns], 0)


conv.defvjp(_forward, _backward)


def _convolve(x, kernel, padding):
    size, tiles = _sizes(x.shape, padding)
    taps = [lax.index_in_dim(lax.collapse(kernel, 0, 2), i, keepdims=False) for i in range(9)]
    columns = lax.optimization_barrier([[_combine(row, taps[j::3]) for j in range(3)] for row in KERNEL])
    weights = [_combine(row, line) for line in columns for row in KERNEL]
    # Each product stays by itself: fused into the transform of the output it would be read piecemeal.
    products = [lax.optimization_barrier(lax.dot(tile, weights[i])) for i, tile in enumerate(_input_tiles(x, padding))]
    grid_shape = (x.shape[0], *tiles, kernel.shape[3])
    grid = [[lax.reshape(products[6 * i + j], grid_shape) for j in range(6)] for i in range(6)]
    columns = [_interleave([_combine(row, line) for row in OUTPUT], axis=2) for line in grid]
    columns = lax.optimization_barrier(columns)
    y = _interleave([_combine(row, columns) for row in OUTPUT], axis=1)
    return lax.optimization_barrier(y[:, : size[0], : size[1]])


def _sizes(shape, padding):
    """Returns height and width of the output, and how many tiles cover each."""
    size = [shape[1 + axis] + sum(padding[axis]) - 2 for axis in (0, 1)]
    return size, [-(-side // TILE) for side in size]


def _input_tiles(x, padding):
    """Returns B^T x B of all tiles: 36 arrays [tiles, C]."""
    side = x.shape[1:3]
    _, tiles = _sizes(x.shape, padding)
    # Tiles at the end may reach beyond the padded input.
    rims = [(padding[i][0], TILE * tiles[i] + 2 - side[i] - padding[i][0]) for i in (0, 1)]
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *rims, (0, 0))))
    rows = [lax.slice_in_dim(x, i, i + TILE * tiles[0] - 3, TILE, axis=1) for i in range(6)]
    transformed = []
    for weights in INPUT:
        line = lax.optimization_barrier(_combine(weights, rows))
        cells = [lax.slice_in_dim(line, j, j + TILE * tiles[1] - 3, TILE, axis=2) for j in range(6)]
        transformed += [lax.collapse(_combine(row, cells), 0, 3) for row in INPUT]
    return [lax.optimization_barrier(tile) for tile in transformed]


def _gradient_tiles(grad):
    """Returns A g A^T of all tiles: 36 arrays [tiles, F]."""
    rims = [(0, -side % TILE) for side in grad.shape[1:3]]
    grad = jnp.pad(grad, ((0, 0), *rims, (0, 0)))
    rows = [lax.slice_in_dim(grad, i, None, TILE, axis=1) for i in range(TILE)]
    transformed = []
    for weights in OUTPUT.T:
        line = lax.optimization_barrier(_combine(weights, rows))
        cells = [lax.slice_in_dim(line, j, None, TILE, axis=2) for j in range(TILE)]
        transformed += [lax.collapse(_combine(row, cells), 0, 3) for row in OUTPUT.T]
    return [lax.optimization_barrier(tile) for tile in transformed]


def _combine(weights, arrays):
    """The sum of weights[i] * arrays[i], without the terms that are 0 or the products that are 1."""
    terms = [
        array if weight == 1 else lax.neg(array) if weight == -1 else lax.mul(array, float(weight))
        for weight, array in zip(weights, arrays, strict=True)
        if weight
    ]
    return functools.reduce(lax.add, terms)


def _interleave(arrays, axis):
    """Puts equal arrays into one along an axis, element by element in turns."""
    shape = list(arrays[0].shape)
    shape[axis] *= len(arrays)
    return lax.reshape(_stack(arrays, axis + 1), shape)


def _stack(arrays, axis):
    return lax.concatenate([lax.expand_dims(array, (axis,)) for array in arrays], axis)
