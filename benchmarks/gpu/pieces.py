"""Splits a zip of results into files small enough to be returned, and joins them again."""

import io
import pathlib
import zipfile

from fer_jax.errors import InputError

PIECE_BYTES = 15 * 2**20  # of 16 MiB per file
PIECES = 4  # of 64 MiB together


def write(out, groups: list[dict]) -> list[bool]:
    """Writes files {name: path} as pieces in a folder, group by group; returns which groups fit.

    A group is written completely or not at all; after one that does not fit, smaller ones may still fit.
    """
    out, written, content = pathlib.Path(out), [], io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for files in groups:
            size = sum(pathlib.Path(path).stat().st_size for path in files.values())
            written.append(content.tell() + size <= PIECE_BYTES * PIECES)
            for name, path in files.items() if written[-1] else ():
                archive.write(path, name)
    for old in out.glob("results.zip.*"):
        old.unlink()
    content = content.getvalue()
    for number, start in enumerate(range(0, len(content), PIECE_BYTES)):
        (out / f"results.zip.{number}").write_bytes(content[start : start + PIECE_BYTES])
    return written


def read(folder, into) -> None:
    """Unpacks the pieces in a folder. Raises InputError if one is missing or corrupt."""
    paths = {int(path.suffix[1:]): path for path in pathlib.Path(folder).glob("results.zip.*")}
    try:
        content = io.BytesIO(b"".join(paths[number].read_bytes() for number in range(len(paths))))
        with zipfile.ZipFile(content) as archive:
            archive.extractall(into)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder}: a piece of results.zip is missing or corrupt ({error}); copy all again") from error
