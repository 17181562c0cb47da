"""Winograd's algorithm for 3x3 and 5x5 convolutions of stride 1, with gradients: matrix products on small tiles.

Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks": y = A^T [(G w G^T) * (B^T x B)] A on tiles of
4x4 outputs: F(4x4, 3x3) and F(4x4, 5x5), with a quarter and less than a sixth of the multiplications; on tiles of 3x3
where those fit the picture better, such as 6x6. The transforms cost memory traffic, so few channels gain nothing.

A step has thousands of these operations, which are traced at every start, so they use `lax`: jax.numpy takes twice as
long to trace.
"""

import dataclasses
import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILES = (4, 3)
# The polynomials are evaluated at the first of these and at infinity. They are few and small, as each costs products
# and accuracy (Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
# Neural Networks").
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
MIN_CHANNELS = {3: 64, 5: 32}


@functools.cache
def transforms(taps: int, tile: int):
    """Returns the transforms of the input B^T [S, S], kernel G [S, taps] and output A^T [tile, S]; S = tile + taps - 1.

    Cook and Toom: a product of polynomials is found from its values at S - 1 points and its leading coefficient.
    """
    span = tile + taps - 1
    points = [Fraction(point) for point in POINTS[: span - 1]]
    inputs, kernel, output = (np.zeros(shape) for shape in ((span, span), (span, taps), (tile, span)))
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1 :]
        row, scale = _from_roots(others)
        inputs[i, :-1] = row
        kernel[i] = [point**j / (scale * np.prod([point - other for other in others])) for j in range(taps)]
        output[:, i] = [point**j for j in range(tile)]
    inputs[-1], scale = _from_roots(points)
    kernel[-1, -1], output[-1, -1] = 1 / scale, 1
    return inputs, kernel, output


def _from_roots(roots):
    """Returns (the coefficients of scale * prod(x - root), lowest first; the least scale that makes them integers)."""
    row = [Fraction(1)]
    for root in roots:
        row = [low - root * high for low, high in zip([0, *row], [*row, 0], strict=True)]
    scale = np.lcm.reduce([value.denominator for value in row])
    return [float(value * scale) for value in row], Fraction(int(scale))


def pays(x, kernel, padding) -> bool:
    """Whether the algorithm is expected to beat a direct convolution; measured in benchmarks/cpu_ops/."""
    taps = kernel.shape[0]
    if kernel.shape[1] != taps or taps not in MIN_CHANNELS or x.dtype not in (jnp.float32, jnp.float64):
        return False
    grid = _make_grid(x.shape, taps, padding)
    least = ((TILES[0] + taps - 1) / TILES[0]) ** 2  # products for an output where whole tiles fit
    waste = grid.products / math.prod(grid.size) / least
    channels = min(kernel.shape[2:])
    # With fewer tiles, transforming the kernel dominates.
    enough = x.shape[0] * math.prod(grid.tiles) >= max(kernel.shape[2:]) / 8
    return enough and channels >= MIN_CHANNELS[taps] * waste**2


@dataclasses.dataclass(frozen=True)
class _Grid:
    """The tiles that cover an output of height and width `size`: `tiles` along each axis, each of `tile` outputs."""

    taps: int
    tile: int
    size: tuple[int, int]
    tiles: tuple[int, int]

    @property
    def span(self):
        return self.tile + self.taps - 1

    @property
    def products(self):
        """Multiplications per face and pair of channels."""
        return self.span**2 * math.prod(self.tiles)

    @property
    def transforms(self):
        return transforms(self.taps, self.tile)


def _make_grid(shape, taps, padding):
    """Returns the grid with the fewest products for an input [B, H, W, C]."""
    size = tuple(side + sum(rim) - (taps - 1) for side, rim in zip(shape[1:3], padding, strict=True))
    grids = [_Grid(taps, tile, size, tuple(-(-side // tile) for side in size)) for tile in TILES]
    return min(grids, key=lambda grid: grid.products)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x, kernel, padding):
    """x [B, H, W, C], kernel [k, k, C, F] (k 3 or 5), padding ((before, after), (before, after)) -> [B, H', W', F]."""
    return _forward(x, kernel, padding)[0]


def _forward(x, kernel, padding):
    x = lax.optimization_barrier(x)
    grid = _make_grid(x.shape, kernel.shape[0], padding)
    # The products stay separate: fused into the transform of the output, they would be read piecemeal.
    products = [
        lax.optimization_barrier(lax.dot(tile, weight))
        for tile, weight in zip(_input_tiles(x, grid, padding), _weights(kernel, grid), strict=True)
    ]
    of_output = grid.transforms[2]
    lines = [_interleave([_combine(row, line) for row in of_output], axis=2) for line in _lines(products, grid)]
    lines = lax.optimization_barrier(lines)
    y = _interleave([_combine(row, lines) for row in of_output], axis=1)
    return lax.optimization_barrier(y[:, : grid.size[0], : grid.size[1]]), (x, kernel)


def _backward(padding, residuals, grad):
    """The transposed algorithm: the gradient's tiles serve both the input and the kernel."""
    x, kernel = residuals
    grid = _make_grid(x.shape, kernel.shape[0], padding)
    tiles = _gradient_tiles(lax.optimization_barrier(grad), grid)
    # The weights are contracted untransposed: transposed, their own transform would read them column by column.
    products = [
        lax.optimization_barrier(lax.dot_general(tile, weight, (((1,), (1,)), ((), ()))))
        for tile, weight in zip(tiles, _weights(kernel, grid), strict=True)
    ]
    x_grad = _add_tiles(products, x.shape, grid, padding)
    products = [
        lax.dot(lax.transpose(patch, (1, 0)), tile)
        for patch, tile in zip(_input_tiles(x, grid, padding), tiles, strict=True)
    ]
    of_kernel = grid.transforms[1].T
    columns = lax.optimization_barrier(
        [[_combine(line, products[j :: grid.span]) for j in range(grid.span)] for line in of_kernel]
    )
    return x_grad, _stack([_stack([_combine(row, line) for row in of_kernel], 0) for line in columns], 0)


conv.defvjp(_forward, _backward)


def _weights(kernel, grid):
    """Returns G w G^T: S * S arrays [C, F]."""
    of_kernel, taps = grid.transforms[1], grid.taps
    cells = [lax.index_in_dim(lax.collapse(kernel, 0, 2), i, keepdims=False) for i in range(taps**2)]
    columns = lax.optimization_barrier([[_combine(row, cells[j::taps]) for j in range(taps)] for row in of_kernel])
    return [_combine(row, line) for line in columns for row in of_kernel]


def _input_tiles(x, grid, padding):
    """Returns B^T x B of all tiles: S * S arrays [tiles, C]."""
    of_input, tile, tiles, side = grid.transforms[0], grid.tile, grid.tiles, x.shape[1:3]
    # The last tiles may extend beyond the padded input.
    rims = [(padding[i][0], tile * tiles[i] + grid.taps - 1 - side[i] - padding[i][0]) for i in (0, 1)]
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *rims, (0, 0))))
    rows = [lax.slice_in_dim(x, i, i + tile * (tiles[0] - 1) + 1, tile, axis=1) for i in range(grid.span)]
    transformed = []
    for weights in of_input:
        line = lax.optimization_barrier(_combine(weights, rows))
        cells = [lax.slice_in_dim(line, j, j + tile * (tiles[1] - 1) + 1, tile, axis=2) for j in range(grid.span)]
        transformed += [lax.collapse(_combine(row, cells), 0, 3) for row in of_input]
    return [lax.optimization_barrier(tile) for tile in transformed]


def _gradient_tiles(grad, grid):
    """Returns A g A^T of all tiles: S * S arrays [tiles, F]."""
    of_output = grid.transforms[2].T
    grad = jnp.pad(grad, ((0, 0), *((0, -side % grid.tile) for side in grid.size), (0, 0)))
    rows = [lax.slice_in_dim(grad, i, None, grid.tile, axis=1) for i in range(grid.tile)]
    transformed = []
    for weights in of_output:
        line = lax.optimization_barrier(_combine(weights, rows))
        cells = [lax.slice_in_dim(line, j, None, grid.tile, axis=2) for j in range(grid.tile)]
        transformed += [lax.collapse(_combine(row, cells), 0, 3) for row in of_output]
    return [lax.optimization_barrier(tile) for tile in transformed]


def _add_tiles(products, shape, grid, padding):
    """Returns the sum [B, H, W, C] of the tiles B p B^T, which overlap by taps - 1, without the padding."""
    lines = [_add_overlaps(line, grid, 2, padding[1][0], shape[2]) for line in _lines(products, grid)]
    return lax.optimization_barrier(_add_overlaps(lax.optimization_barrier(lines), grid, 1, padding[0][0], shape[1]))


def _add_overlaps(arrays, grid, axis, before, side):
    """Transforms S arrays, each one cell of all tiles, and adds the tiles along an axis; returns `side` from `before`.

    The part of a tile beyond the tile length overlaps the start of the next tile, or of the one after.
    """
    cells = [_combine(row, arrays) for row in grid.transforms[0].T]
    most = (grid.span - 1) // grid.tile
    sums = []
    for first in range(grid.tile):
        moved = [_pad(cell, axis, i, most - i) for i, cell in enumerate(cells[first :: grid.tile])]
        sums.append(functools.reduce(lax.add, moved))
    return lax.slice_in_dim(_interleave(sums, axis), before, before + side, axis=axis)


def _pad(x, axis, before, after):
    rims = [(before, after, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), rims)


def _lines(products, grid):
    """Returns S lists of S arrays [B, tiles, tiles, N]."""
    batch = products[0].shape[0] // math.prod(grid.tiles)
    cells = [lax.reshape(product, (batch, *grid.tiles, product.shape[1])) for product in products]
    return [cells[i : i + grid.span] for i in range(0, len(cells), grid.span)]


def _combine(weights, arrays):
    """The sum of weights[i] * arrays[i], skipping weights of 0 and products by 1."""
    terms = [
        array if weight == 1 else lax.neg(array) if weight == -1 else lax.mul(array, float(weight))
        for weight, array in zip(weights, arrays, strict=True)
        if weight
    ]
    return functools.reduce(lax.add, terms)


def _interleave(arrays, axis):
    """Interleaves arrays of the same shape along an axis, element by element."""
    shape = list(arrays[0].shape)
    shape[axis] *= len(arrays)
    return lax.reshape(_stack(arrays, axis + 1), shape)


def _stack(arrays, axis):
    return lax.concatenate([lax.expand_dims(array, (axis,)) for array in arrays], axis)
