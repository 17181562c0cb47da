"""Ctrl-C and SIGTERM: training saves after its current step, everything else ends at once.

Python calls a signal handler between two bytecode instructions, so not while a program compiles, and an exception from
a handler can be lost in a library's callback. So a thread, which the system wakes at every signal, also ends the
process.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

from fer_jax.runtime import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 5.0  # for a process with nothing to save to end on its own
ECHO_SECONDS = 0.5  # `timeout` and some schedulers signal a process and its group, so that it gets two signals at once
SAVING = "stopping: the current step is finished and saved; a second signal ends at once"
_stop = None  # of the training in progress; global because signals go to the process
_watched = False  # whether a command's thread handles signals


class Stopped(KeyboardInterrupt):
    """A signal ended the work. The text says what is saved.

    Attributes:
      exit_code: 130 after SIGINT (Ctrl-C), 143 after SIGTERM.
      agreed: whether all processes of the training stop at this step.
    """

    def __init__(self, signum: int, text: str = "stopped", agreed: bool = False):
        super().__init__(text)
        self.exit_code, self.agreed = 128 + signum, agreed


class Stop:
    """Whether to stop, as training asks it between steps.

    text: the message if it ends at once. promise: printed at a signal that is deferred. signum: the signal received
    since `defer`, 0 if none. agreed: whether `asks` has returned True.
    """

    def __init__(self, text: str, promise: str = SAVING):
        self.text, self.promise, self.defers, self.signum, self.agreed = text, promise, False, 0, False
        self._asked = 0

    def asks(self) -> bool:
        """Whether to stop now: this process or another one of the training got a signal since `defer`.

        The processes agree on the step, so all of them must ask at the same steps.
        """
        if processes.are_many() and not self.agreed:
            self._asked += 1
            self.agreed = processes.agreed(self._asked)
            if self.agreed:
                self.signum = self.signum or signal.SIGTERM
            return self.agreed
        self.agreed = bool(self.signum)
        return self.agreed

    def defer(self) -> None:
        """Defers signals until training asks, because it has something to save."""
        self.defers = processes.can_agree()

    def end(self, text: str) -> None:
        """Raises Stopped with the text."""
        raise Stopped(self.signum, text, self.agreed)

    def handle(self, signum, frame) -> None:
        """The signal handler."""
        if not self.defers or (self.signum and not _watched):
            _interrupt(signum, frame, self.text)
        self.signum = self.signum or signum


@contextlib.contextmanager
def stop(text: str, promise: str = SAVING):
    """Yields the `Stop` of a training or a service; outside the main thread it receives no signals."""
    global _stop  # noqa: PLW0603
    mine = Stop(text, promise)
    if not _in_main_thread():
        yield mine
        return
    before = _stop
    with _handled(mine.handle):
        _stop = mine
        try:
            yield mine
        except Exception as error:
            if mine.signum:  # after an error in one run, a caller must not start the next one
                raise Stopped(mine.signum, f"stopped; the run ended with {type(error).__name__}: {error}") from error
            raise
        finally:
            _stop = before
    if mine.signum:
        mine.agreed = True  # the other processes have ended too
        mine.end("stopped after the last epoch of a run")


@contextlib.contextmanager
def ended_by_signals():
    """Makes signals end a command even if Python cannot run a handler; a second one ends it at once."""
    if not _in_main_thread():
        yield  # only the main thread gets signals
        return
    global _watched  # noqa: PLW0603
    read, write = socket.socketpair()
    write.setblocking(False)
    woken, timers = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False), []
    threading.Thread(target=_watch, args=(read, timers), daemon=True).start()
    _watched = True
    try:
        with _handled(_handle):
            yield
    finally:
        _watched = False
        signal.set_wakeup_fd(woken)
        write.close()  # this ends the thread
        for timer in timers:
            timer.cancel()


@contextlib.contextmanager
def _handled(handler):
    # Ignored signals stay ignored, such as Ctrl-C in what a script starts in the background.
    signals = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, handler) for signum in signals}
    try:
        yield
    finally:
        for signum, handler_before in before.items():
            signal.signal(signum, handler_before or signal.SIG_DFL)  # None: not set from Python


def _in_main_thread():
    return threading.current_thread() is threading.main_thread()


def _handle(signum, frame):
    _interrupt(signum, frame, "stopped")


def _interrupt(signum, frame, text):
    """Raises Stopped; during an import it ends the process, since an exception may get lost or abort an extension."""
    if _imports(frame):
        _end(signum)
    raise Stopped(signum, text)


def _imports(frame):
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _watch(wakeups, timers):
    """Runs in the thread: reads the numbers of incoming signals."""
    first_time = None
    with wakeups:
        while numbers := wakeups.recv(1):
            signum = numbers[0]
            if signum not in SIGNALS:
                continue
            if first_time is not None:
                if time.monotonic() - first_time > ECHO_SECONDS:
                    _end(signum)
                continue
            first_time = time.monotonic()
            if _saves():
                print(_stop.promise, file=sys.stderr, flush=True)
                _ask(signum)
            else:
                timers.append(threading.Timer(GRACE_SECONDS, _end_or_save, (signum,)))
                timers[-1].daemon = True
                timers[-1].start()


def _saves():
    return _stop is not None and _stop.defers


def _end_or_save(signum):
    if not _saves():
        _end(signum)
    _ask(signum)


def _ask(signum):
    """Makes training stop even if the handler's exception was lost before training began."""
    _stop.signum = _stop.signum or signum
    if processes.are_many():
        processes.tell_the_others()


def _end(signum):
    print(_stop.text if _stop is not None else "stopped", file=sys.stderr, flush=True)
    os._exit(128 + signum)
