"""Reads picture files of any common kind as upright 8-bit RGB, and finds the files that arguments name."""

import dataclasses
import glob
import importlib.util
import io
import math
import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_jax.errors import InputError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".avif", ".mpo")
# Pillow reads many more formats; some of them run other programs, and none are for photographs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
if importlib.util.find_spec("PIL.AvifImagePlugin"):
    FORMATS += ("AVIF",)
MAX_PIXELS = 100_000_000
_ORIENTATION = 0x0112  # the tag of EXIF
_TILE_SIDES = (322, 323)  # the tags of TIFF
_JUNK = "__MACOSX"  # macOS's folder in archives, with files that are named like pictures but are not
_QUARTER_TURNS = (5, 6, 7, 8)


class TooManyPixels(InputError):
    """A picture is larger than allowed, by its header; it was not decoded."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded picture.

    pixels: uint8 [H, W, 3], RGB, possibly reduced; size: (width, height) of the original picture, upright.
    """

    pixels: np.ndarray
    size: tuple[int, int]


def read(source, *, name: str | None = None) -> np.ndarray:
    """Reads a picture; returns uint8 [H, W, 3], RGB, rotated upright by its EXIF tag.

    source: a path, bytes, or a binary file. Transparency is composited over white, 16-bit greys are scaled to 8 bits,
    and of an animation the first frame is read.

    Raises:
      InputError: it cannot be read; the message begins with `name`, by default the path.
    """
    return read_reduced(source, None, name=name).pixels


def read_reduced(
    source, least_side_px: int | None, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Reads a picture like `read`, but reduces a huge one by an integer factor, which is much faster for a JPEG.

    least_side_px: the minimum for the longer side of the reduced picture; None: no reduction. max_pixels: see
    `open_lazily`.
    """
    image, size = _load(source, least_side_px, name, max_pixels)
    return Picture(np.asarray(image.convert("RGB")), size)


def to_rgb(picture: Image.Image) -> np.ndarray:
    """Converts a Pillow picture of any mode like `read`: uint8 [H, W, 3], RGB."""
    return np.asarray(_eight_bits(_upright(picture)).convert("RGB"))


def load(source, *, name: str | None = None) -> Image.Image:
    """Reads a picture like `read`, but returns a Pillow picture of mode L or RGB."""
    return _load(source, None, name)[0]


def open_lazily(source, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens a picture without decoding it; the caller closes it.

    Raises:
      InputError: it is not a picture, or has more than `max_pixels` (a TooManyPixels).
    """
    name = name or _name(source)
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise TooManyPixels(f"{name}: {_too_many_pixels(max_pixels)}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not a readable picture ({_what_else(source)})") from error
    except Exception as error:
        raise _error(name, error) from error
    if max(picture.width * picture.height, _tile_pixels(picture)) > max_pixels:
        picture.close()
        raise TooManyPixels(f"{name}: {_too_many_pixels(max_pixels)}")
    return picture


def _tile_pixels(picture):
    """Returns the pixels of a tile of a TIFF, which is decoded whole however small the picture is."""
    sides = [getattr(picture, "tag_v2", {}).get(tag, 0) for tag in _TILE_SIDES]
    return math.prod(sides) if all(isinstance(side, int) for side in sides) else math.inf


def _load(source, least_side_px, name, max_pixels=MAX_PIXELS):
    """Returns (Pillow picture of mode L or RGB, its original (width, height))."""
    name = name or _name(source)
    with open_lazily(source, name=name, max_pixels=max_pixels) as opened:
        try:
            size = opened.size
            if least_side_px:
                _draft(opened, least_side_px)
            opened.load()
            if _orientation(opened) in _QUARTER_TURNS:  # a TIFF is already rotated, and its tag removed
                size = size[::-1]
            picture = _reduce(_eight_bits(_upright(opened)), least_side_px)
            return picture if picture is not opened else opened.copy(), size
        except Exception as error:  # Pillow's decoders raise almost anything
            raise _error(name, error) from error


def _name(source):
    return str(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", None) or "the picture"


def _error(name, error):
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"{name}: there is no such file")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{name} is a folder: give a file")
    if isinstance(error, PermissionError):
        return InputError(f"{name} cannot be read: permission denied")
    return InputError(f"{name}: not a readable picture ({' '.join(str(error).split()) or type(error).__name__})")


def _too_many_pixels(max_pixels):
    side = int(max_pixels**0.5)
    return f"more than {max_pixels:,} pixels ({side:,}x{side:,}), which is too large: make it smaller"


def _what_else(source):
    """Returns why a file is not a readable picture."""
    head = b""
    if isinstance(source, bytes):
        head = source[:16]
    elif isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            head = file.read(16)
    elif source.seekable():
        source.seek(0)
        head = source.read(16)
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1"):
        return "HEIC, which Pillow cannot read: convert it to JPEG"
    return f"it is not one of {', '.join(FORMATS)}"


def _orientation(picture):
    try:
        return picture.getexif().get(_ORIENTATION)
    except Exception:  # corrupt EXIF; the picture itself may be intact
        return None


def _upright(picture):
    return picture if _orientation(picture) in (None, 1) else ImageOps.exif_transpose(picture)


def _draft(picture, least_side_px):
    """Makes Pillow decode a JPEG at a half, a quarter or an eighth of its size."""
    factor = max(picture.size) // least_side_px
    if factor > 1 and picture.format in ("JPEG", "MPO"):
        width, height = picture.size
        picture.draft(None, (-(-width // factor), -(-height // factor)))


def _reduce(picture, least_side_px):
    factor = max(picture.size) // least_side_px if least_side_px else 1
    return picture.reduce(factor) if factor > 1 else picture


def _eight_bits(picture):
    """Returns a picture of any mode as L or RGB."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_scaled(np.asarray(picture)))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _scaled(values):
    """Scales greys of more than 8 bits to uint8; Pillow's own conversion clips them.

    Integers up to 65535 are taken as 16 bits, floats as 0 to 1 or 0 to 255 if they fit; any other range is stretched
    from its lowest to its highest value.
    """
    low, high = np.nanmin(values), np.nanmax(values)
    if values.dtype.kind != "f" and low >= 0 and high <= 65535:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind == "f" and low >= 0 and high <= 255:
        return np.rint(np.nan_to_num(values) * (255 if high <= 1 else 1)).astype(np.uint8)
    span = max(float(high) - float(low), 1e-30)
    return np.rint(np.nan_to_num((values.astype(np.float32) - low) * (255 / span))).clip(0, 255).astype(np.uint8)


def find(arguments, *, suffixes=PICTURE_SUFFIXES, stdin=None) -> Iterator[str]:
    """Returns an iterator over the files named by the arguments of a command, in order.

    An argument is a file; a folder, which is walked in the order of names; a glob; `-`, for a list of files and
    folders on stdin, one per line or separated by NUL; or `@FILE`, for such a list in a file. In folders and globs,
    only files that end in `suffixes` and are not hidden count. A missing file in a list is reported when it is read.

    Raises:
      InputError: an argument that matches no file; all arguments but lists are checked before the first file is
        yielded.
    """
    found = [
        _listed(word, suffixes, stdin) if word == "-" or _is_list(word) else _meant(word, suffixes)
        for word in map(os.path.expanduser, arguments)
    ]
    return (file for files in found for file in files)


def _is_list(word):
    return word.startswith("@") and not os.path.exists(word)


def _listed(word, suffixes, stdin):
    """Returns the files named by a list."""
    if word == "-":
        text = stdin.read() if stdin else sys.stdin.buffer.read().decode("utf-8-sig", "surrogateescape")
    else:
        path = pathlib.Path(word[1:]).expanduser()
        try:
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise InputError(
                f"{path}: the list cannot be read ({error.strerror}); give a file with one line per picture"
            ) from error
    lines = [line for line in (text.split("\0") if "\0" in text else text.splitlines()) if line.strip()]
    if not lines:
        raise InputError(f"{'the list on stdin' if word == '-' else word[1:]} is empty: give one line per picture")
    return [file for line in lines for file in (_meant(line, suffixes) if os.path.isdir(line) else [line])]


def _meant(word, suffixes):
    """Returns the files named by an argument: a file, a folder or a glob."""
    if os.path.isdir(word):
        files = list(_walk(word, suffixes))
        if not files:
            raise InputError(f"{word}: no pictures in this folder; pictures end in {', '.join(suffixes)}")
        return files
    if os.path.lexists(word):
        return [word]
    if not glob.has_magic(word):
        raise InputError(f"{word}: there is no such file or folder")
    matches = sorted(glob.glob(word, recursive=True))
    matches = [match for match in matches if _JUNK not in pathlib.Path(match).parts]
    files = [
        file
        for match in matches
        for file in (_walk(match, suffixes) if os.path.isdir(match) else [match] * _ends_in(match, suffixes))
    ]
    if not files:
        but = f", only {matches[0]}" + (" and others" if len(matches) > 1 else "") if matches else ""
        raise InputError(f"{word}: no picture matches{but}")
    return list(dict.fromkeys(files))  # `**` matches both folders and their contents


def _ends_in(file, suffixes):
    return file.lower().endswith(suffixes)


def _walk(folder, suffixes):
    def refuse(error):
        raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror})") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != _JUNK)
        for name in sorted(files):
            path = os.path.join(place, name)
            # A dangling link becomes an error when it is read; reading a pipe would block.
            if not name.startswith(".") and _ends_in(name, suffixes) and (os.path.isfile(path) or os.path.islink(path)):
                yield path
