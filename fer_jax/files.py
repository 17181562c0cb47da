"""Files that are whole or absent: written under a temporary name, then put in place."""

import contextlib
import os
import pathlib
import uuid


@contextlib.contextmanager
def replacing(path):
    """Gives an unused path in the folder of `path`; what is written there takes its place if the block succeeds.

    Else `path` stays as it was, and the other file is removed. Several processes may write the same path at once.
    """
    path = pathlib.Path(path)
    # The suffix stays last: libraries choose the format by it.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_write(path, mode: str = "w", **options):
    """Gives a file that replaces `path` if the block succeeds, as `replacing` does.

    mode: 'w' or 'wb'; options: as of `open`.
    """
    with replacing(path) as temporary, temporary.open(mode, **options) as file:
        yield file
