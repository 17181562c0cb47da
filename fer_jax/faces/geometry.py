"""A face in a picture, and the square around it as FER-2013 frames faces."""

import dataclasses
import math

import numpy as np
from PIL import Image

from fer_jax.faces import views


@dataclasses.dataclass(frozen=True)
class Framing:
    """Maps a detector's box to FER-2013's square: the square's side, and the offset of its centre from the box's.

    All in units of the box's size, the mean of width and height; y points down.
    """

    scale: float = 1.0
    right: float = 0.0
    down: float = 0.0


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a picture, in px; the picture's upper left corner is (0, 0).

    box: (x, y, width, height) from the detector; it may extend beyond the picture. score: in [0, 1]. eyes: their
    centres ((x, y), (x, y)), the left one in the picture first; None if the detector gives none. framing: of its
    detector.
    """

    box: tuple[float, float, float, float]
    score: float
    eyes: tuple[tuple[float, float], tuple[float, float]] | None = None
    framing: Framing = Framing()

    @property
    def tilt(self) -> float:
        """The angle of the line between the eyes to the horizontal in radians, clockwise as seen; 0 without eyes."""
        if self.eyes is None:
            return 0.0
        (x0, y0), (x1, y1) = self.eyes
        return math.atan2(y1 - y0, x1 - x0)


def square(face: Face, tilt: float = 0.0) -> tuple[float, float, float]:
    """Returns (x, y of the centre, side) of FER-2013's square, for a face that is rotated by `tilt`."""
    x, y, width, height = face.box
    size, framing = (width + height) / 2, face.framing
    cos, sin = math.cos(tilt) * size, math.sin(tilt) * size
    return (
        x + width / 2 + cos * framing.right - sin * framing.down,
        y + height / 2 + sin * framing.right + cos * framing.down,
        framing.scale * size,
    )


def crop(picture: np.ndarray, face: Face, size_px: int, align: bool = True) -> np.ndarray:
    """Crops the square around a face as FER-2013 frames faces.

    Args:
      picture: uint8 [H, W, 3].
      face: in that picture.
      size_px: the side of the result.
      align: whether to rotate the face so that its eyes are level, if they are known.

    Returns:
      uint8 [size_px, size_px, 3], antialiased; beyond the picture its edge is repeated.
    """
    tilt = face.tilt if align else 0.0
    return cut(picture, square(face, tilt), tilt, size_px)


def cut(picture: np.ndarray, place: tuple[float, float, float], tilt: float, size_px: int) -> np.ndarray:
    """Crops a square (x, y of the centre, side), rotated by `tilt`; otherwise like `crop`."""
    x, y, side = place
    side = max(side, 1.0)
    # Only the part around the square is processed, shrunk to at most four px per px of the result.
    reach = side / 2 * (abs(math.cos(tilt)) + abs(math.sin(tilt)))
    factor = max(1, int(side / size_px / 2))
    region, (left, top) = _region(picture, (x - reach, y - reach, x + reach, y + reach), factor)
    image = Image.fromarray(region)
    x, y, side = (x - left) / factor, (y - top) / factor, side / factor
    # Each px of the result is the mean of more x more samples.
    more = max(1, math.ceil(side / size_px))
    step = side / (size_px * more)
    cos, sin = math.cos(tilt) * step, math.sin(tilt) * step
    half = size_px * more / 2
    affine = (cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos))
    image = image.transform((size_px * more,) * 2, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(image.reduce(more) if more > 1 else image)


def locate(points: np.ndarray, place: tuple[float, float, float], tilt: float, size_px: int) -> np.ndarray:
    """Maps points [..., 2] (x, y) of a crop back to the picture."""
    x, y, side = place
    cos, sin = math.cos(tilt), math.sin(tilt)
    return (points - size_px / 2) * (side / size_px) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def _region(picture, rectangle, factor):
    """Returns (a rectangle of a picture with a 2 px margin, shrunk, the edge repeated beyond it; its corner)."""
    spans, around, corner = [], [], []
    for begin, end, length in zip(rectangle[:2], rectangle[2:], picture.shape[1::-1], strict=True):
        # At least one px of the picture, so that there is an edge to repeat.
        first = min(max(math.floor(begin) - 2 * factor, 0), length - 1)
        last = max(min(math.ceil(end) + 2 * factor, length), first + 1)
        before = max(0, math.ceil((first - begin) / factor) + 2)
        spans.append(slice(first, last))
        around.append((before, max(0, math.ceil((end - last) / factor) + 2)))
        corner.append(first - before * factor)
    pixels = views.reduce(picture[spans[1], spans[0]], factor)
    return np.pad(pixels, (around[1], around[0], (0, 0)), "edge"), corner
