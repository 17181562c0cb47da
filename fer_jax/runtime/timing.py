"""Time: from the command to its first step by parts, and the progress of long work."""

import contextlib
import gc
import logging
import os
import pathlib
import sys
import threading
import time

COLLECT_EVERY = 100_000  # objects; at Python's own 700, collecting garbage takes a sixth of the time to the first step
USUAL_THRESHOLD = gc.get_threshold()
LINE_EVERY_SECONDS = 60.0
logger = logging.getLogger("fer_jax")


class Clock:
    """The time from a start to the end of the first training step, by parts that add up to the whole.

    started: by `time.perf_counter`; None: now. What JAX traces and compiles meanwhile, or loads compiled, is the part
    'compile', wherever it happens.
    """

    def __init__(self, started: float | None = None):
        from jax import monitoring

        self._started = self._lap = time.perf_counter() if started is None else started
        self._parts, self._compiling, self._thread = {}, [], threading.get_ident()
        self._programs = self._kept = 0
        self._running = True
        monitoring.register_event_duration_secs_listener(self._on_duration)
        monitoring.register_event_listener(self._on_event)

    def _on_duration(self, event, seconds, **_):
        if not event.startswith("/jax/core/compile/"):
            return
        self._programs += event.endswith("backend_compile_duration")
        if threading.get_ident() != self._thread:
            return
        ended = time.perf_counter()
        began = ended - seconds
        # A trace inside another is reported before it, and is a part of it.
        while self._compiling and (self._compiling[-1][0] + self._compiling[-1][1]) / 2 > began:
            self._compiling.pop()
        self._compiling.append((began, ended))

    def _on_event(self, event, **_):
        self._kept += event == "/jax/compilation_cache/cache_hits"

    def mark(self, part: str) -> None:
        """Gives the time since the last mark to a part; after the first step it does nothing."""
        if not self._running:
            return
        now = time.perf_counter()
        compiling = sum(ended - began for began, ended in self._compiling)
        for name, seconds in ((part, now - self._lap - compiling), ("compile", compiling)):
            self._parts[name] = self._parts.get(name, 0.0) + seconds
        self._lap, self._compiling = now, []

    @property
    def running(self) -> bool:
        """Whether the first step is still to come."""
        return self._running

    def end(self, result) -> dict:
        """Waits for the result of the first step, which ends the start.

        Returns:
          `seconds` in all, `parts` {name: seconds}, the number of `programs` that were needed, and of those that came
          out of the cache, `programs_kept`.
        """
        import jax

        jax.block_until_ready(result)
        self.mark("step")
        self._stop()
        counts = {"programs": self._programs, "programs_kept": self._kept}
        return {"seconds": self._lap - self._started, "parts": self._parts, **counts}

    def _stop(self):
        from jax import monitoring

        self._running = False
        monitoring.unregister_event_duration_listener(self._on_duration)
        monitoring.unregister_event_listener(self._on_event)
        if gc.get_threshold()[0] == COLLECT_EVERY:
            gc.freeze()  # what is there by now stays, and need not be looked through again
            gc.set_threshold(*USUAL_THRESHOLD)


def collect_rarely() -> None:
    """Has Python collect garbage rarely, until the first step if there is a Clock: importing and tracing make none."""
    gc.set_threshold(COLLECT_EVERY, *USUAL_THRESHOLD[1:])


def command_started() -> float:
    """Returns when the process was started, by `time.perf_counter`; now, where the system does not tell."""
    now = time.perf_counter()
    try:
        ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, IndexError, OSError, ValueError):
        return now
    return now - age if 0 <= age < 60 else now


def describe(split: dict) -> str:
    """Returns what `Clock.end` returned as one line."""
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in split["parts"].items() if seconds >= 0.05)
    kept = f"{split['programs_kept']} of {split['programs']} programs came out of the cache"
    return f"first step {split['seconds']:.1f} s after the command: {parts}; {kept}"


def duration(seconds: float) -> str:
    """Returns seconds as people write them: '48 s', '3 min 20 s', '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """The progress of a stretch of steps: steps/s, images/s and the time that is left.

    what: its name, as 'epoch 3/50'; steps_after: steps of the same kind that follow it; steps_before: of its steps,
    those that were done earlier.
    """

    def __init__(self, what: str, *, steps: int, batch_size: int, steps_after: int = 0, steps_before: int = 0):
        self._what, self._steps, self._after, self._batch_size = what, steps, steps_after, batch_size
        self._started = self._shown = time.perf_counter()
        self._before = self._done = steps_before
        self._bar = self._ended = None
        if sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                self._bar = tqdm(total=steps, initial=steps_before, desc=what, unit="step", leave=False)

    def update(self, done: int, loss: float | None = None) -> None:
        """Says that `done` steps are over and, in training, what the mean loss of the last ones was."""
        now = time.perf_counter()
        rate = (done - self._before) / max(now - self._started, 1e-9)
        left = duration((self._steps + self._after - done) / rate)
        text = "" if loss is None else f"loss {loss:.4f}, "
        text += f"{rate * self._batch_size:,.0f} images/s, {left} left"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._done)
        elif now - self._shown > LINE_EVERY_SECONDS:
            self._shown = now
            logger.info("%s step %d/%d: %.2f steps/s, %s", self._what, done, self._steps, rate, text)
        self._done = done

    @property
    def seconds(self) -> float:
        """The seconds since the start, up to `close`."""
        return (self._ended or time.perf_counter()) - self._started

    def close(self) -> float:
        """Ends the bar; returns the seconds since the start."""
        self._ended = time.perf_counter()
        if self._bar is not None:
            self._bar.close()
        return self.seconds
