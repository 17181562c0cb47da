"""Scenes with faces at known positions: FER-2013's faces on photographs without people."""

import dataclasses
import math
import os
import pathlib

import numpy as np
from PIL import Image

SIZES_PX = (24, 48, 64, 96, 128, 192, 400)
TILTS = (0, 20, 45)  # degrees
# Photographs and pictures in scikit-image's wheel without people.
BACKGROUNDS = ("coffee", "rocket", "brick", "grass", "gravel", "page", "hubble_deep_field", "retina")
FEATHER = 0.12  # of the side of a face, over which it fades into the background


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture uint8 [H, W, 3] and the squares (x, y of the centre, side, tilt in degrees) of its faces."""

    picture: np.ndarray
    squares: tuple[tuple[float, float, float, float], ...]


def backgrounds():
    """Returns {name: uint8 [H, W, 3]}."""
    import skimage.data

    found = {}
    for name in BACKGROUNDS:
        picture = getattr(skimage.data, name)()
        picture = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture
        found[name] = np.ascontiguousarray(picture[..., :3])
    return found


def read_labelled(folder, usage="Training", count=400, seed=0):
    """Reads random faces uint8 [N, 48, 48] and classes int [N] of a split of fer2013.csv, except PrivateTest."""
    if usage not in ("Training", "PublicTest"):
        raise ValueError(usage)
    with open(pathlib.Path(folder) / "csv" / "fer2013.csv", encoding="utf-8") as file:
        rows = [line.split(",")[:2] for line in file if line.rstrip().endswith(usage)]
    chosen = np.random.default_rng(seed).choice(len(rows), count, replace=False)
    faces = [np.array(rows[number][1].strip('"').split(), np.uint8) for number in chosen]
    return np.stack(faces).reshape(-1, 48, 48), np.array([int(rows[number][0]) for number in chosen])


def read_faces(folder, usage="Training", count=400, seed=0):
    """Reads faces like `read_labelled`, without labels."""
    return read_labelled(folder, usage, count, seed)[0]


def compose(faces, picture, squares):
    """Pastes faces uint8 [n, 48, 48] on a picture at squares (x, y, side, tilt), with soft edges."""
    canvas = Image.fromarray(picture)
    for face, (x, y, side, tilt) in zip(faces, squares, strict=True):
        reach = math.ceil(side * 0.75)
        left, top = math.floor(x) - reach, math.floor(y) - reach
        step = 48 / side
        cos, sin = math.cos(math.radians(tilt)) * step, math.sin(math.radians(tilt)) * step
        cx, cy = x - left, y - top
        affine = (cos, sin, 24 - cos * cx - sin * cy, -sin, cos, 24 + sin * cx - cos * cy)
        size = (2 * reach + 2,) * 2
        # Small faces are averaged over all px of the original.
        source = Image.fromarray(face)
        if step > 1:
            more = math.ceil(step)
            wide = tuple(value / more if number % 3 < 2 else value for number, value in enumerate(affine))
            big = (size[0] * more,) * 2
            pixels = source.transform(big, Image.Transform.AFFINE, wide, Image.Resampling.BILINEAR).reduce(more)
        else:
            pixels = source.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        v, u = np.mgrid[: size[1], : size[0]] + 0.5
        inside = np.stack([affine[0] * u + affine[1] * v + affine[2], affine[3] * u + affine[4] * v + affine[5]])
        depth = np.minimum(inside, 48 - inside).min(0) / 48
        mask = Image.fromarray((np.clip(depth / FEATHER, 0, 1) * 255).astype(np.uint8))
        canvas.paste(pixels.convert("RGB"), (left, top), mask)
    return np.asarray(canvas)


def make(faces, size_px, tilt=0.0, *, side_px=800, grounds=None, seed=0):
    """Yields scenes with faces of one size, up to 9 each, that do not touch; every face is shown once.

    side_px: the width of the scenes; their height is 3/4 of it.
    """
    rng = np.random.default_rng((seed, size_px, round(tilt)))
    grounds = list((grounds or backgrounds()).values())
    width, height = side_px, side_px * 3 // 4
    cell = size_px * 1.5
    columns, rows = max(1, min(3, int(width // cell))), max(1, min(3, int(height // cell)))
    for start in range(0, len(faces), columns * rows):
        shown = faces[start : start + columns * rows]
        ground = grounds[rng.integers(len(grounds))]
        scale = max(width / ground.shape[1], height / ground.shape[0])
        size = (math.ceil(ground.shape[1] * scale), math.ceil(ground.shape[0] * scale))
        picture = np.asarray(Image.fromarray(ground).resize(size, Image.Resampling.BICUBIC))[:height, :width]
        cells = rng.permutation(columns * rows)[: len(shown)]
        squares = []
        for number in cells:
            room = np.array([width / columns, height / rows]) - size_px * 1.1
            shift = rng.uniform(-0.5, 0.5, 2) * np.maximum(room, 0)
            x = (number % columns + 0.5) * width / columns + shift[0]
            y = (number // columns + 0.5) * height / rows + shift[1]
            squares.append((float(x), float(y), float(size_px), tilt * rng.choice((-1, 1))))
        yield Scene(compose(shown, picture, squares), tuple(squares))


def data_folder():
    """Returns FER2013_DIR, or ''."""
    return os.environ.get("FER2013_DIR", "")
