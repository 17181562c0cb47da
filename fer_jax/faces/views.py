"""Square views of a picture for a network with a fixed input size, and the mapping back to the picture."""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

OVERLAP = 2  # neighbouring tiles of a level overlap by half: a face of up to half a tile is complete in one of them
LEAST_TILE = 0.5  # minimum side of a tile, in px of the picture per px of the view


@dataclasses.dataclass(frozen=True)
class View:
    """A square of a picture, resized.

    pixels: uint8 [S, S, 3], black beyond the picture. origin, step: (x, y) in the picture, in px, is
    origin + step * (x, y) in the view. bounds: (left, top, right, bottom) in the picture within which boxes are taken
    from this view; beyond them another view shows more of the face.
    """

    pixels: np.ndarray
    origin: np.ndarray
    step: np.ndarray
    bounds: tuple[float, float, float, float]


def shrink(picture: np.ndarray, side: int) -> tuple[np.ndarray, int]:
    """Shrinks a picture by the largest integer factor that leaves its longer side at least `side` px.

    Returns:
      (uint8 [H', W', 3], the factor).
    """
    factor = max(1, max(picture.shape[:2]) // side)
    return reduce(picture, factor), factor


def reduce(picture: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of factor x factor px; copies strips of the picture, never all of it."""
    if factor == 1:
        return picture
    rows = factor * max(1, 2**20 // (factor * picture.shape[1]))
    strips = [
        np.asarray(Image.fromarray(np.ascontiguousarray(picture[top : top + rows])).reduce(factor))
        for top in range(0, picture.shape[0], rows)
    ]
    return np.concatenate(strips)


def fit(picture: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Shrinks a picture to a longer side of `side` px; smaller pictures are unchanged.

    Returns:
      (uint8 [H', W', 3], [4] px of the picture per px of the result: x, y, x, y).
    """
    height, width = picture.shape[:2]
    if max(height, width) <= side:
        return picture, np.ones(4)
    share = side / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small, factor = shrink(picture, 2 * side)
    box = (0, 0, min(width / factor, small.shape[1]), min(height / factor, small.shape[0]))
    resized = Image.fromarray(np.ascontiguousarray(small)).resize(size, Image.Resampling.BILINEAR, box)
    return np.asarray(resized), np.tile(np.array([width, height]) / size, 2)


def cut(picture: np.ndarray, size_px: int, levels: int) -> Iterator[View]:
    """Yields views of `size_px`: the whole picture, then for each further level tiles of half the side."""
    height, width = picture.shape[:2]
    small, factor = shrink(picture, size_px << levels)
    image = Image.fromarray(np.ascontiguousarray(small))
    for level in range(levels):
        side = max(height, width) / 2**level
        if level and side < LEAST_TILE * size_px:
            return
        for top in _places(height, side):
            for left in _places(width, side):
                spans = _Span.make(left, side, width, size_px), _Span.make(top, side, height, size_px)
                yield _view(image, factor, spans, size_px)


class _Span(NamedTuple):
    """The part of an axis of a picture, `begin` to `end`, that becomes px `first` to `last` of a view."""

    begin: float
    end: float
    first: int
    last: int
    bounds: tuple[float, float]

    @classmethod
    def make(cls, start, side, length, size_px):
        begin, end = max(start, 0.0), min(start + side, length)
        first, last = (round((edge - start) * size_px / side) for edge in (begin, end))
        bounds = (begin if begin > 0 else -math.inf, end if end < length else math.inf)
        return cls(begin, end, first, max(last, first + 1), bounds)

    @property
    def step(self):
        return (self.end - self.begin) / (self.last - self.first)


def _places(length, side):
    """Returns where overlapping squares start that cover a length."""
    if length <= side:
        return [(length - side) / 2]
    count = math.ceil(OVERLAP * (length / side - 1) - 1e-9) + 1
    return np.linspace(0, length - side, count).tolist()


def _view(image, factor, spans, size_px):
    x, y = spans
    size = (x.last - x.first, y.last - y.first)
    ends = [min(span.end / factor, available) for span, available in zip(spans, image.size, strict=True)]
    box = (x.begin / factor, y.begin / factor, *ends)
    pixels = np.zeros((size_px, size_px, 3), np.uint8)
    pixels[y.first : y.last, x.first : x.last] = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box))
    origin = np.array([span.begin - span.first * span.step for span in spans])
    (left, right), (top, bottom) = x.bounds, y.bounds
    return View(pixels, origin, np.array([x.step, y.step]), (left, top, right, bottom))
