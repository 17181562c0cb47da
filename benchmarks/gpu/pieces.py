"""One zip of results, cut into files that are small enough to come back, and put together again."""

import pathlib
import zipfile

PIECE_BYTES = 15 * 2**20  # of 16 MiB a file
PIECES = 4  # of 64 MiB together


def write(out, groups: list[dict]) -> list[bool]:
    """Writes files {name: path} as pieces in a folder, group by group; returns which groups found room.

    A group is written whole or not at all; where one has no room, smaller ones after it still come back.
    """
    out, written = pathlib.Path(out), []
    whole = out / "unfinished"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for files in groups:
            size = sum(pathlib.Path(path).stat().st_size for path in files.values())
            written.append(archive.fp.tell() + size <= PIECE_BYTES * PIECES)
            for name, path in files.items() if written[-1] else ():
                archive.write(path, name)
    content = whole.read_bytes()
    whole.unlink()
    for old in out.glob("results.zip.*"):
        old.unlink()
    for number, start in enumerate(range(0, len(content), PIECE_BYTES)):
        (out / f"results.zip.{number}").write_bytes(content[start : start + PIECE_BYTES])
    return written


def read(folder, into) -> None:
    """Unpacks the pieces in a folder. Raises zipfile.BadZipFile where one is missing or damaged."""
    paths = sorted(pathlib.Path(folder).glob("results.zip.*"), key=lambda path: int(path.suffix[1:]))
    into = pathlib.Path(into)
    into.mkdir(parents=True, exist_ok=True)
    whole = into / "unfinished"
    whole.write_bytes(b"".join(path.read_bytes() for path in paths))
    try:
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(into)
    finally:
        whole.unlink()
