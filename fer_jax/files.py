"""Atomic writes: files are written under a temporary name, then renamed; and a stdout that its reader may close."""

import contextlib
import os
import pathlib
import sys
import uuid


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path in the folder of `path`; the file there replaces `path` if the block succeeds.

    Otherwise `path` is unchanged, and the temporary file is removed. Several processes may write the same path at once.
    """
    path = pathlib.Path(path)
    # The suffix is kept at the end: libraries choose the format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_write(path, mode: str = "w", **options):
    """Yields a file that replaces `path` if the block succeeds; see `replacing`.

    mode: 'w' or 'wb'; options: as for `open`.
    """
    with replacing(path) as temporary, temporary.open(mode, **options) as file:
        yield file


def flush_stdout() -> None:
    """Flushes stdout; if its reader has closed the pipe, as `head` does, discards the rest."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
