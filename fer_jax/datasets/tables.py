"""Reading FER-2013's table, in the challenge's two forms, and the table of FER+ votes.

Goodfellow et al. 2013 (fer2013.csv, icml_face_data.csv); Barsoum et al. 2016 (fer2013new.csv).
"""

import csv
import dataclasses
import io
import os
import warnings

import numpy as np

from fer_jax.datasets import bars, facts, stores
from fer_jax.errors import InputError

ACCEPTED_HEADERS = "'emotion,pixels,Usage' (fer2013.csv) or 'emotion, Usage, pixels' (icml_face_data.csv)"
_COLUMNS = ("emotion", "pixels", "usage")
PACKED_COLUMNS = ("emotion", "usage", "tile")
_PIXELS = facts.IMAGE_SIZE_PX**2
# Seven times the length of a row of FER-2013. An endless line, which fits in a small archive, would fill the memory.
MAX_LINE_CHARS = 1 << 16


@dataclasses.dataclass(frozen=True)
class Rows:
    """The valid rows of a source, and the reasons why the others are not.

    images uint8 [N, 48, 48, 1]; labels int64 [N]; splits [N], names; positions int64 [N] in the source,
    from 0; usages: the Usage of every row, bad ones included, None where it cannot be read; bad: one line
    of text each.
    """

    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    positions: np.ndarray
    usages: list
    bad: list


def columns(head: bytes, wanted=_COLUMNS):
    """Returns {column: position} of a header line that has the `wanted` columns, else None."""
    line = "".join(head.decode("utf-8-sig", "replace").splitlines()[:1])
    cells = [_clean(cell).casefold() for cell in line.split(",")]
    return {name: cells.index(name) for name in wanted} if set(wanted) <= set(cells) else None


def wrong_header(head: bytes) -> str:
    """Returns the message about a header that lacks a column."""
    found = "".join(head.decode("utf-8-sig", "replace").splitlines()[:1])
    found = found if len(found) <= 80 else found[:80] + "..."
    hint = ""
    if _clean(found).casefold() in ("emotion,pixels", "pixels"):
        hint = " This is the challenge's train.csv or test.csv, which lacks the split or the labels."
    elif columns(head, PACKED_COLUMNS):
        hint = " This is the table of packed faces: give the zip or folder that holds it and its mosaic, a PNG."
    return f"the header {found!r} is not FER-2013's; accepted are {ACCEPTED_HEADERS}.{hint}"


def _lines(text, label):
    """Yields the lines of a table, its header first. Raises InputError on one that is too long for any table."""
    number = 0
    while line := text.readline(MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARS:
            raise InputError(
                f"{label}: line {number} is longer than {MAX_LINE_CHARS:,} characters, and a row of 48x48 pixels needs "
                "10,000 at most: this is another file, or it is corrupt."
            )
        yield line


def _clean(cell):
    return cell.strip().strip('"').strip()


class _BadRowError(ValueError):
    """Why a row cannot be used."""


def read(stream, *, label, size=None, tiles=None) -> Rows:
    """Reads a FER-2013 table from a binary stream; `label` names it, `size` is its bytes if known.

    tiles: uint8 [T, 48, 48, 1], the pictures that the rows of a packed table name by number; None: rows hold pixels.
    Broken rows are collected in `Rows.bad` ("<label>, row 7: reason", rows as a text editor counts them).
    Raises InputError on a wrong header, a corrupt archive, and a table without rows.
    """
    images, labels, splits, positions, usages, bad = [], [], [], [], [], []
    # QUOTE_NONE: a stray quote spoils its own row and not those after it.
    with stores.reading(label), warnings.catch_warnings(), _progress(size) as bar:
        warnings.simplefilter("error", DeprecationWarning)  # older NumPy warns where newer raises
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="")
        lines = _lines(text, label)
        header = next(lines, "")
        where = columns(header.encode(), _COLUMNS if tiles is None else PACKED_COLUMNS)
        if where is None:
            raise InputError(f"{label}: {wrong_header(header.encode())}")
        rows = csv.reader(lines, quoting=csv.QUOTE_NONE)
        for cells in rows:
            if not cells:
                continue
            bar.update(sum(map(len, cells)) + len(cells))
            usages.append(None)
            try:
                usages[-1] = _usage(cells, where["usage"])
                label_ = _label(cells, where["emotion"])
                image = _image(cells, where["pixels"]) if tiles is None else _tile(cells, where["tile"], tiles)
            except _BadRowError as error:
                bad.append(f"{label}, row {rows.line_num + 1}: {error}")
                continue
            images.append(image)
            labels.append(label_)
            splits.append(facts.USAGES[usages[-1]])
            positions.append(len(usages) - 1)
        text.detach()
    if not usages:
        raise InputError(f"{label} has a header and no rows.")
    images = np.stack(images) if images else np.zeros((0, *facts.IMAGE_SHAPE), np.uint8)
    return Rows(images, np.array(labels, np.int64), np.array(splits, str), np.array(positions), usages, bad)


def _progress(size):
    return bars.make_bar(desc="Reading faces", total=size, unit="B", unit_scale=True)


def _cell(cells, position):
    if position >= len(cells):
        raise _BadRowError(f"only {len(cells)} cells; it should have {len(_COLUMNS)}")
    return _clean(cells[position])


def _usage(cells, position):
    usage = _cell(cells, position)
    if usage not in facts.USAGES:
        raise _BadRowError(f"unknown Usage {usage[:40]!r}; it should be one of {', '.join(facts.USAGES)}")
    return usage


def _label(cells, position):
    emotion = _cell(cells, position)
    if emotion not in map(str, range(len(facts.CLASSES))):
        raise _BadRowError(f"unknown emotion {emotion[:40]!r}; it should be 0 to {len(facts.CLASSES) - 1}")
    return int(emotion)


def _image(cells, position):
    try:
        pixels = np.fromstring(_cell(cells, position), dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning) as error:
        if isinstance(error, _BadRowError):
            raise
        raise _BadRowError("a pixel is not a whole number") from error
    if len(pixels) != _PIXELS:
        raise _BadRowError(f"{len(pixels)} pixels; it should have {_PIXELS} (48 x 48)")
    if pixels.min() < 0 or pixels.max() > 255:
        wrong = pixels[(pixels < 0) | (pixels > 255)][0]
        raise _BadRowError(f"pixel value {wrong}; it should be 0 to 255")
    return pixels.astype(np.uint8).reshape(facts.IMAGE_SHAPE)


def _tile(cells, position, tiles):
    number = _cell(cells, position)
    if not number.isdecimal() or int(number) >= len(tiles):
        raise _BadRowError(f"there is no tile {number[:40]!r}; it should be 0 to {len(tiles) - 1}")
    return tiles[int(number)]


def read_pixels(path) -> np.ndarray:
    """Reads the faces of a table that need not have labels, as the challenge's test.csv: uint8 [N, 48, 48, 1].

    Every row must be valid, since the output is written row for row. Raises InputError on a header without
    `pixels`, on broken rows (the first ten are listed) and on a table without rows.
    """
    images, bad, size = [], [], os.path.getsize(path) if os.path.exists(path) else None
    with stores.reading(str(path)), warnings.catch_warnings(), _progress(size) as bar:
        warnings.simplefilter("error", DeprecationWarning)
        with open(path, encoding="utf-8", errors="replace", newline="") as text:
            lines = _lines(text, path)
            header = next(lines, "")
            where = columns(header.encode(), ("pixels",))
            if where is None:
                raise InputError(f"{path}: the header {header.strip()[:80]!r} has no column 'pixels'.")
            rows = csv.reader(lines, quoting=csv.QUOTE_NONE)
            for cells in filter(None, rows):
                bar.update(sum(map(len, cells)) + len(cells))
                try:
                    images.append(_image(cells, where["pixels"]))
                except _BadRowError as error:
                    bad.append(f"row {rows.line_num + 1}: {error}")
    if bad:
        listed = "\n  ".join(bad[:10])
        raise InputError(f"{path} has {len(bad)} broken rows; fix them first:\n  {listed}")
    if not images:
        raise InputError(f"{path} has a header and no rows.")
    return np.stack(images)


def read_votes(path):
    """Reads FER+'s fer2013new.csv; returns (Usage of every row, votes uint8 [N, 10] in facts.VOTES's order).

    Raises InputError, naming file and row, where it is not such a table.
    """
    wanted = ("usage", *(name.casefold() for name in facts.VOTES))
    usages, votes = [], []
    with stores.reading(str(path)), open(path, encoding="utf-8", errors="replace", newline="") as text:
        lines = _lines(text, path)
        header = next(lines, "")
        where = columns(header.encode(), wanted)
        if where is None:
            raise InputError(
                f"{path}: the header {header.strip()[:80]!r} is not that of FER+'s fer2013new.csv: "
                f"'Usage,Image name,{','.join(facts.VOTES)}'."
            )
        rows = csv.reader(lines, quoting=csv.QUOTE_NONE)
        for cells in rows:
            if not cells:
                continue
            try:
                row = [int(_clean(cells[where[name]])) for name in wanted[1:]]
                votes.append(np.array(row, dtype=np.uint8))
            except (ValueError, IndexError, OverflowError) as error:
                raise InputError(
                    f"{path}, row {rows.line_num + 1}: it should hold 10 counts of votes, each 0 to 255."
                ) from error
            usages.append(_clean(cells[where["usage"]]))
    if not votes:
        raise InputError(f"{path} has a header and no rows.")
    return usages, np.stack(votes)
