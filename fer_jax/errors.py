"""Exceptions for wrong user input, whose messages name the fix."""

import errno
import re

FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_TEXTS = r"No space left|File too large|RESOURCE_EXHAUSTED|Disk quota"  # in the text of errors that a library wraps


class InputError(ValueError):
    """Wrong input: a file, a row, a config value, a checkpoint.

    The message names the thing and the fix. Commands print only the message, without a traceback, and exit with 2.
    """


class Busy(InputError):
    """Another process is working on the same thing."""


class Diverged(InputError):
    """The loss of a training is no longer a number."""


def tells_full_disk(error: Exception, wrapped: bool = False) -> bool:
    """Whether an error means that a disk is full; wrapped: also if its text only quotes such an error."""
    if getattr(error, "errno", None) in FULL_ERRNOS:
        return True
    return wrapped and re.search(FULL_TEXTS, str(error)) is not None
