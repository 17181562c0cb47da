"""Winograd's algorithm for 3x3 and 5x5 convolutions of stride 1, with gradients: matrix products on tiles of 4x4.

Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks": y = A^T [(G w G^T) * (B^T x B)] A on tiles of
4x4 outputs: F(4x4, 3x3) and F(4x4, 5x5), with a quarter and less than a sixth of the multiplications. The transforms
cost memory traffic, so few channels gain nothing.

A step has thousands of these operations, and tracing them is a part of every start: so they are `lax`'s and not
jax.numpy's, which take twice as long.
"""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 4
# Side of a kernel: the points at which its polynomials are evaluated, beside infinity; few and small, as each costs
# products and exactness (Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution for
# Deep Neural Networks").
POINTS = {3: (0, 1, -1, 2, -2), 5: (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))}
MIN_CHANNELS = {3: 64, 5: 32}


@functools.cache
def transforms(taps: int):
    """Returns the transforms of the input B^T [S, S], kernel G [S, taps] and output A^T [TILE, S]; S = TILE + taps - 1.

    By Cook and Toom: a product of polynomials from its values at S - 1 points and its leading coefficient.
    """
    points = [Fraction(point) for point in POINTS[taps]]
    span = TILE + taps - 1
    inputs, kernel, output = (np.zeros(shape) for shape in ((span, span), (span, taps), (TILE, span)))
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1 :]
        row, scale = _from_roots(others)
        inputs[i, :-1] = row
        kernel[i] = [point**j / (scale * np.prod([point - other for other in others])) for j in range(taps)]
        output[:, i] = [point**j for j in range(TILE)]
    inputs[-1], scale = _from_roots(points)
    kernel[-1, -1], output[-1, -1] = 1 / scale, 1
    return inputs, kernel, output


def _from_roots(roots):
    """Returns the coefficients, lowest first, of scale * prod(x - root), and the least scale that makes them whole."""
    row = [Fraction(1)]
    for root in roots:
        row = [low - root * high for low, high in zip([0, *row], [*row, 0], strict=True)]
    scale = np.lcm.reduce([value.denominator for value in row])
    return [float(value * scale) for value in row], Fraction(int(scale))


def pays(x, kernel, padding) -> bool:
    """Whether the algorithm is expected to beat a direct convolution; measured in experiments/cpu_ops/."""
    taps = kernel.shape[0]
    if kernel.shape[1] != taps or taps not in POINTS or x.dtype not in (jnp.float32, jnp.float64):
        return False
    size, tiles = _sizes(x.shape, taps, padding)
    waste = TILE**2 * tiles[0] * tiles[1] / (size[0] * size[1])
    channels = min(kernel.shape[2:])
    enough = x.shape[0] * tiles[0] * tiles[1] >= max(kernel.shape[2:]) / 4  # else the kernel's transform dominates
    return enough and channels >= MIN_CHANNELS[taps] * waste**2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x, kernel, padding):
    """x [B, H, W, C], kernel [k, k, C, F] (k 3 or 5), padding ((before, after), (before, after)) -> [B, H', W', F]."""
    return _convolve(lax.optimization_barrier(x), kernel, padding)


def _forward(x, kernel, padding):
    x = lax.optimization_barrier(x)
    return _convolve(x, kernel, padding), (x, kernel)


def _backward(padding, held, grad):
    x, kernel = held
    grad = lax.optimization_barrier(grad)
    taps = kernel.shape[0]
    span = TILE + taps - 1
    mirrored = lax.transpose(lax.rev(kernel, (0, 1)), (0, 1, 3, 2))
    x_grad = _convolve(grad, mirrored, tuple((taps - 1 - before, taps - 1 - after) for before, after in padding))
    patches = _input_tiles(x, taps, padding)
    products = [
        lax.dot(lax.transpose(patch, (1, 0)), tile)
        for patch, tile in zip(patches, _gradient_tiles(grad, taps), strict=True)
    ]
    of_kernel = transforms(taps)[1].T
    columns = lax.optimization_barrier([[_combine(line, products[j::span]) for j in range(span)] for line in of_kernel])
    return x_grad, _stack([_stack([_combine(row, line) for row in of_kernel], 0) for line in columns], 0)


conv.defvjp(_forward, _backward)


def _convolve(x, kernel, padding):
    taps = kernel.shape[0]
    span = TILE + taps - 1
    _, of_kernel, of_output = transforms(taps)
    size, tiles = _sizes(x.shape, taps, padding)
    cells = [lax.index_in_dim(lax.collapse(kernel, 0, 2), i, keepdims=False) for i in range(taps**2)]
    columns = lax.optimization_barrier([[_combine(row, cells[j::taps]) for j in range(taps)] for row in of_kernel])
    weights = [_combine(row, line) for line in columns for row in of_kernel]
    # Each product stays by itself: fused into the transform of the output it would be read piecemeal.
    products = [
        lax.optimization_barrier(lax.dot(tile, weight))
        for tile, weight in zip(_input_tiles(x, taps, padding), weights, strict=True)
    ]
    grid_shape = (x.shape[0], *tiles, kernel.shape[3])
    grid = [[lax.reshape(products[span * i + j], grid_shape) for j in range(span)] for i in range(span)]
    columns = [_interleave([_combine(row, line) for row in of_output], axis=2) for line in grid]
    columns = lax.optimization_barrier(columns)
    y = _interleave([_combine(row, columns) for row in of_output], axis=1)
    return lax.optimization_barrier(y[:, : size[0], : size[1]])


def _sizes(shape, taps, padding):
    """Returns height and width of the output, and how many tiles cover each."""
    size = [shape[1 + axis] + sum(padding[axis]) - (taps - 1) for axis in (0, 1)]
    return size, [-(-side // TILE) for side in size]


def _input_tiles(x, taps, padding):
    """Returns B^T x B of all tiles: S * S arrays [tiles, C]."""
    of_input = transforms(taps)[0]
    side = x.shape[1:3]
    _, tiles = _sizes(x.shape, taps, padding)
    # Tiles at the end may reach beyond the padded input.
    rims = [(padding[i][0], TILE * tiles[i] + taps - 1 - side[i] - padding[i][0]) for i in (0, 1)]
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *rims, (0, 0))))
    rows = [lax.slice_in_dim(x, i, i + TILE * (tiles[0] - 1) + 1, TILE, axis=1) for i in range(len(of_input))]
    transformed = []
    for weights in of_input:
        line = lax.optimization_barrier(_combine(weights, rows))
        cells = [lax.slice_in_dim(line, j, j + TILE * (tiles[1] - 1) + 1, TILE, axis=2) for j in range(len(of_input))]
        transformed += [lax.collapse(_combine(row, cells), 0, 3) for row in of_input]
    return [lax.optimization_barrier(tile) for tile in transformed]


def _gradient_tiles(grad, taps):
    """Returns A g A^T of all tiles: S * S arrays [tiles, F]."""
    of_output = transforms(taps)[2].T
    rims = [(0, -side % TILE) for side in grad.shape[1:3]]
    grad = jnp.pad(grad, ((0, 0), *rims, (0, 0)))
    rows = [lax.slice_in_dim(grad, i, None, TILE, axis=1) for i in range(TILE)]
    transformed = []
    for weights in of_output:
        line = lax.optimization_barrier(_combine(weights, rows))
        cells = [lax.slice_in_dim(line, j, None, TILE, axis=2) for j in range(TILE)]
        transformed += [lax.collapse(_combine(row, cells), 0, 3) for row in of_output]
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
