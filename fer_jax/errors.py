"""The exceptions that mean: the user's input is wrong, and here is the mend."""

import errno
import re

FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_TEXTS = r"No space left|File too large|RESOURCE_EXHAUSTED|Disk quota"  # where a library wraps the error


class InputError(ValueError):
    """Bad input from outside: a file, a row, a config value, a checkpoint.

    The message names the thing and the mend. The commands print it alone, without a traceback, and exit with 2.
    """


class Busy(InputError):
    """Another process is at work on the same thing."""


def tells_full_disk(error: Exception, wrapped: bool = False) -> bool:
    """Returns whether an error says that a disk is full; wrapped: also if it only quotes the one that does."""
    if getattr(error, "errno", None) in FULL_ERRNOS:
        return True
    return wrapped and re.search(FULL_TEXTS, str(error)) is not None
