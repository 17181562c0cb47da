"""FER-2013 packed: each distinct face once in a PNG mosaic, and a table that names the tile of every row.

`faces.csv` has the columns emotion, Usage and tile; `faces.png` the tiles of 48x48 grey pixels, row by row, black where
there are no more. Together in a zip they are 53 MiB, without loss, where fer2013.csv is 287.
"""

import csv
import io
import posixpath
import zipfile

import numpy as np
from PIL import Image

from fer_jax import pictures
from fer_jax.datasets import facts, stores, tables
from fer_jax.errors import InputError

COLUMNS = 240  # tiles in a row of the mosaic: PNG's filters gain a little from width, up to about here
TABLE, PICTURE = "faces.csv", "faces.png"


def write(path, faces: dict, positions: dict) -> None:
    """Writes FER-2013 as a zip of TABLE and PICTURE, without votes. Raises OSError where it cannot be written.

    faces: {split: Faces}, labels in the order of facts.CLASSES; positions: {split: int64 [N]} in the source, as in
    readings.Reading.
    """
    usages = {split: usage for usage, split in facts.USAGES.items()}
    order = np.argsort(np.concatenate([positions[split] for split in faces]))
    images = np.concatenate([part.images for part in faces.values()])[order]
    labels = np.concatenate([part.labels for part in faces.values()])[order]
    usage = np.concatenate([[usages[split]] * len(part) for split, part in faces.items()])[order]
    flat = images.reshape(len(images), -1)
    _, first, which = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    seen = np.argsort(first)  # tiles in the order in which they first appear
    tile = np.argsort(seen)[which.ravel()]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("emotion", "Usage", "tile"))
    lines.writerows(zip(labels.tolist(), usage.tolist(), tile.tolist(), strict=True))
    picture = io.BytesIO()
    Image.fromarray(_to_mosaic(images[first[seen], :, :, 0])).save(picture, "png", compress_level=9)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(TABLE, text.getvalue())
        file.writestr(PICTURE, picture.getvalue(), zipfile.ZIP_STORED)


def picture_of(store: stores.Store, table: str, head: bytes) -> str:
    """Returns the mosaic of a packed table, by the first bytes of the table; '' if it is not packed."""
    picture = posixpath.splitext(table)[0] + ".png"
    packed = tables.columns(head, tables.PACKED_COLUMNS) is not None
    return picture if packed and posixpath.basename(picture) in store.list(posixpath.dirname(table))[1] else ""


def read(store: stores.Store, table: str, picture: str, *, label) -> tables.Rows:
    """Reads a packed table and its mosaic. Raises InputError as tables.read, and on a corrupt mosaic."""
    place = f"{store.label}: {picture}"
    try:
        with stores.reading(place), store.open(picture) as stream, pictures.open_lazily(stream, name=place) as opened:
            mosaic = np.asarray(opened)
    except SyntaxError as error:  # Pillow's word for a PNG whose parts do not fit
        raise InputError(f"{place} cannot be read ({error}).") from error
    side = facts.IMAGE_SIZE_PX
    if mosaic.ndim != 2 or mosaic.dtype != np.uint8 or mosaic.shape[0] % side or mosaic.shape[1] % side:
        raise InputError(f"{place} is not a mosaic of grey tiles of {side}x{side} pixels.")
    with stores.reading(label):
        stream = store.open(table)
    with stream:
        return tables.read(stream, label=label, tiles=_to_tiles(mosaic)[..., None])


def _to_mosaic(tiles):
    """Returns [N, S, S] as [rows * S, columns * S]."""
    columns = min(COLUMNS, len(tiles))
    rows, side = -(-len(tiles) // columns), tiles.shape[1]
    padded = np.zeros((rows * columns, side, side), np.uint8)
    padded[: len(tiles)] = tiles
    return padded.reshape(rows, columns, side, side).swapaxes(1, 2).reshape(rows * side, columns * side)


def _to_tiles(mosaic):
    """Inverts `_to_mosaic`; the black tiles at the end remain."""
    side = facts.IMAGE_SIZE_PX
    rows, columns = mosaic.shape[0] // side, mosaic.shape[1] // side
    return mosaic.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
