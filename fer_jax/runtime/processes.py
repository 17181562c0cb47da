"""Several processes of one training: how they find each other, agree where to stop, and end when one is lost."""

import contextlib
import ctypes
import faulthandler
import logging
import os
import re
import signal
import sys
import tempfile
import traceback

from fer_jax.errors import InputError

HEARTBEAT_SECONDS = 30
JOIN_SECONDS = 300
FLAGS = "--coordinator_address, --num_processes and --process_id"
# What an error of a collective begins with, and words of which it has one; a device's own faults begin so too.
LOST_STATUS = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN")
LOST_WORDS = r"gloo|nccl|barrier|coordination|heartbeat|connection"
_notify = None  # JAX's handler of SIGTERM, which tells the other processes
_kept = []  # what C calls must not be collected


def join(address=None, count=None, number=None, *, heartbeat_seconds=HEARTBEAT_SECONDS, join_seconds=JOIN_SECONDS):
    """Joins the other processes of a training; to be called before JAX is used.

    address: HOST:PORT of process 0. count: number of processes. number: of this one, from 0. What is not given, JAX
    reads from the environment of Slurm, Open MPI, Kubernetes or a Cloud TPU. heartbeat_seconds: how long a process may
    be silent before it counts as lost. join_seconds: how long to wait for the others.

    Raises:
      InputError: incomplete or inconsistent arguments, no cluster in the environment, or not all processes came.
    """
    import jax

    global _notify  # noqa: PLW0603
    given = (address, count, number)
    if None not in (count, number) and not 0 <= number < count:
        raise InputError(f"--process_id is {number}: with {count} processes give 0 to {count - 1}")
    if address is not None and not address.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator_address is '{address}': give HOST:PORT, as 10.0.0.1:1234")
    if min(heartbeat_seconds, join_seconds) < 1:
        raise InputError("--heartbeat_seconds and --join_seconds are 1 or more")
    ours = signal.getsignal(signal.SIGTERM)
    place = f" at {address}" if address else ""
    _explain_aborts(f"not all processes met{place} within {join_seconds} s: start all of them, with the same address")
    try:
        jax.distributed.initialize(
            *given, heartbeat_timeout_seconds=heartbeat_seconds, initialization_timeout=join_seconds
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        if "defined" in reason:  # what JAX says of the arguments that neither the flags nor a cluster give
            reason = f"the environment names no cluster; give {FLAGS}"
        raise InputError(f"this process cannot join the others: {reason}") from error
    _notify = _take_handler(signal.SIGTERM, ours)
    if jax.process_index():
        logging.getLogger("fer_jax").setLevel(logging.WARNING)


def _libc_signal():
    function = ctypes.CDLL(None).signal
    function.argtypes, function.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    return function


def _take_handler(signum, ours):
    """Returns the C function that handles a signal, and has `ours` handle it again."""
    theirs = _libc_signal()(signum, None)  # None: SIG_DFL
    signal.signal(signum, ours or signal.SIG_DFL)
    return ctypes.CFUNCTYPE(None, ctypes.c_int)(theirs) if theirs else None


def _explain_aborts(missed):
    """Has one message printed where XLA aborts this process: it does so as soon as it misses another one.

    missed: what is wrong if this process has not yet joined.

    XLA writes pages to stderr before that, so file descriptor 2 becomes a file, and Python's stderr stays where it was.
    """
    stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    for handler in logging.getLogger().handlers:
        if getattr(handler, "stream", None) is sys.stderr:
            handler.setStream(stderr)
    sys.stderr = stderr
    faulthandler.enable(stderr)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

    def handle(signum):
        words = _native_words()
        _, fatal, reason = words.partition("distributed service detected fatal errors")
        if not fatal:
            _end(words, 128 + signum)
        if _notify is None:
            _end(f"error: {missed}", 2)
        silent = re.search(r"stopped sending heartbeats\):\n(?:.*task:)?(\d+)", reason)
        _leave_lost(f"process {silent[1]} is silent" if silent else "process 0, or the connection to it, is gone")

    _kept.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(handle))
    _libc_signal()(signal.SIGABRT, ctypes.cast(_kept[-1], ctypes.c_void_p))


def _native_words():
    """Returns what native code has written to stderr, or its end."""
    size = os.fstat(2).st_size
    return os.pread(2, size, max(0, size - 20_000)).decode(errors="replace")


def are_many() -> bool:
    """Whether this training has joined others."""
    return _notify is not None


def can_agree() -> bool:
    """Whether all processes can stop at one place: there is one, or they met by `join`."""
    jax = sys.modules.get("jax")
    return are_many() or jax is None or jax.process_count() == 1


def tell_the_others() -> None:
    """Has all processes stop at the next step that they agree on; `agreed` says at which."""
    _notify(signal.SIGTERM)


def agreed(number: int) -> bool:
    """Whether all processes stop at this place; each asks with the same numbers, in order."""
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(number)


def is_lost(error: BaseException | None) -> bool:
    """Whether an error comes of a collective in which another process was lost."""
    import jax

    while are_many() and error is not None:
        # A jitted function's fast path raises ValueError.
        if isinstance(error, (jax.errors.JaxRuntimeError, ValueError)):
            text = str(error)
            if text.startswith(LOST_STATUS) and re.search(LOST_WORDS, text, re.IGNORECASE):
                return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def leaving():
    """Ends this process at once after an error, if it is one of many: to wait for the others could take for ever.

    A stop that all have agreed on is none.
    """
    try:
        yield
    except BaseException as error:
        if are_many() and not getattr(error, "agreed", False):
            _leave(error)
        raise


def _leave(error):
    if isinstance(error, KeyboardInterrupt):
        _end(str(error) or "stopped", getattr(error, "exit_code", 130))
    if is_lost(error):
        _leave_lost(str(error).strip().splitlines()[0][:200])
    if isinstance(error, InputError):
        _end(f"error: {error}", 2)
    traceback.print_exception(error)
    print(_native_words(), file=sys.stderr)
    _end("this process ends, and the others with it", 1)


def _leave_lost(reason):
    _end(
        f"error: lost another process of this training ({reason}). The last checkpoint is intact: start the same "
        "command on all machines again to resume from it",
        1,
    )


def _end(text, code):
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
    os._exit(code)
