"""Training in several processes: joining, agreeing on a step to stop at, and ending when one is lost."""

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
# An error of a collective begins with one of these and contains one of the words; a device's own errors begin so too.
LOST_STATUS = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN")
LOST_WORDS = r"gloo|nccl|barrier|coordination|heartbeat|connection"
_notify = None  # JAX's SIGTERM handler, which notifies the other processes
_kept = []  # callbacks of C code, which must not be garbage collected


def join(address=None, count=None, number=None, *, heartbeat_seconds=HEARTBEAT_SECONDS, join_seconds=JOIN_SECONDS):
    """Joins the other processes of a training; call it before using JAX.

    address: HOST:PORT of process 0. count: number of processes. number: of this one, from 0. If omitted, JAX reads
    these from the environment of Slurm, Open MPI, Kubernetes or a Cloud TPU. heartbeat_seconds: how long a process may
    be silent before it counts as lost. join_seconds: how long to wait for the others.

    Raises:
      InputError: incomplete or inconsistent arguments, no cluster in the environment, or not all processes joined.
    """
    import jax

    global _notify  # noqa: PLW0603
    given = (address, count, number)
    if None not in (count, number) and not 0 <= number < count:
        raise InputError(f"--process_id is {number}: with {count} processes give 0 to {count - 1}")
    if address is not None and not address.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator_address is '{address}': give HOST:PORT, such as 10.0.0.1:1234")
    if min(heartbeat_seconds, join_seconds) < 1:
        raise InputError("--heartbeat_seconds and --join_seconds must be 1 or more")
    ours = signal.getsignal(signal.SIGTERM)
    place = f" at {address}" if address else ""
    _explain_aborts(f"not all processes joined{place} within {join_seconds} s: start all of them with the same address")
    try:
        jax.distributed.initialize(
            *given, heartbeat_timeout_seconds=heartbeat_seconds, initialization_timeout=join_seconds
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        if "defined" in reason:  # JAX's message if neither flags nor a cluster define the arguments
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
    """Returns the C function that handles a signal, and reinstalls `ours`."""
    theirs = _libc_signal()(signum, None)  # None: SIG_DFL
    signal.signal(signum, ours or signal.SIG_DFL)
    return ctypes.CFUNCTYPE(None, ctypes.c_int)(theirs) if theirs else None


def _explain_aborts(missed):
    """Prints one message when XLA aborts this process, as it does once another process is lost.

    missed: the message if this process has not joined yet.

    XLA first writes pages to stderr, so file descriptor 2 is redirected to a file; Python's stderr stays as it was.
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
    """Returns what native code wrote to stderr, or the end of it."""
    size = os.fstat(2).st_size
    return os.pread(2, size, max(0, size - 20_000)).decode(errors="replace")


def are_many() -> bool:
    """Whether this process has joined others."""
    return _notify is not None


def can_agree() -> bool:
    """Whether all processes can stop at the same step: there is only one, or they used `join`."""
    jax = sys.modules.get("jax")
    return are_many() or jax is None or jax.process_count() == 1


def tell_the_others() -> None:
    """Makes all processes stop at the next step that they agree on; `agreed` tells which."""
    _notify(signal.SIGTERM)


def agreed(number: int) -> bool:
    """Whether all processes stop at this step; each must ask with the same numbers, in order."""
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(number)


def is_lost(error: BaseException | None) -> bool:
    """Whether an error is from a collective that lost another process."""
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
    """Ends this process at once after an error, if it is one of several: waiting for the others could take forever.

    A stop that all have agreed on is not an error.
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
        f"error: lost another process of this training ({reason}). The last checkpoint is intact: rerun the same "
        "command on all machines to resume from it",
        1,
    )


def _end(text, code):
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
    os._exit(code)
