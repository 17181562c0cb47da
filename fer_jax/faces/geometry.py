"""What a face in a picture is, and which square of the picture FER-2013 would show of it."""

import dataclasses
import math

import numpy as np
from PIL import Image

from fer_jax.faces import views


@dataclasses.dataclass(frozen=True)
class Framing:
    """From the boxes of a detector to FER-2013's square: its side, and by how much its centre is off the box's.

    All in sizes of the box, which are the means of width and height; y goes down.
    """

    scale: float = 1.0
    right: float = 0.0
    down: float = 0.0


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a picture; all in px of the picture, whose upper left corner is (0, 0).

    box: (x, y, width, height), as the detector gives it; it may reach out of the picture. score: in [0, 1]. eyes:
    their middles ((x, y), (x, y)), first the one that is the left one in the picture; None if the detector gives none.
    framing: of its detector.
    """

    box: tuple[float, float, float, float]
    score: float
    eyes: tuple[tuple[float, float], tuple[float, float]] | None = None
    framing: Framing = Framing()

    @property
    def tilt(self) -> float:
        """The angle of the eyes to the horizontal in radians, clockwise as one sees it; 0 without eyes."""
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
    """Cuts the square around a face out of a picture as FER-2013 frames faces.

    Args:
      picture: uint8 [H, W, 3].
      face: in that picture.
      size_px: the side of the result.
      align: whether to rotate the face so that its eyes are level; where they are known.

    Returns:
      uint8 [size_px, size_px, 3], antialiased; what lies outside of the picture repeats its edge.
    """
    tilt = face.tilt if align else 0.0
    return cut(picture, square(face, tilt), tilt, size_px)


def cut(picture: np.ndarray, place: tuple[float, float, float], tilt: float, size_px: int) -> np.ndarray:
    """Cuts a square (x, y of the centre, side), rotated by `tilt`, out of a picture; as `crop` does."""
    x, y, side = place
    side = max(side, 1.0)
    # Only what is around the square is touched, shrunk to at most four px for one of the result.
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
    """Returns where points [..., 2] (x, y) of a square that was cut out lie in the picture."""
    x, y, side = place
    cos, sin = math.cos(tilt), math.sin(tilt)
    return (points - size_px / 2) * (side / size_px) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def _region(picture, rectangle, factor):
    """Returns (a rectangle of a picture and 2 px of margin, shrunk and beyond the edge repeated; its corner)."""
    spans, around, corner = [], [], []
    for begin, end, length in zip(rectangle[:2], rectangle[2:], picture.shape[1::-1], strict=True):
        # At least a px of the picture, so that there is an edge to repeat.
        first = min(max(math.floor(begin) - 2 * factor, 0), length - 1)
        last = max(min(math.ceil(end) + 2 * factor, length), first + 1)
        before = max(0, math.ceil((first - begin) / factor) + 2)
        spans.append(slice(first, last))
        around.append((before, max(0, math.ceil((end - last) / factor) + 2)))
        corner.append(first - before * factor)
    pixels = views.reduce(picture[spans[1], spans[0]], factor)
    return np.pad(pixels, (around[1], around[0], (0, 0)), "edge"), corner
