"""Timing: a breakdown of the time to the first step, and progress bars."""

import contextlib
import gc
import logging
import os
import pathlib
import shutil
import sys
import textwrap
import threading
import time

COLLECT_EVERY = 100_000  # objects; Python's default of 700 would cost a sixth of the time to the first step
USUAL_THRESHOLD = gc.get_threshold()
LINE_EVERY_SECONDS = 60.0
PREDICTION_LINE_SECONDS = 5.0
LINE_WIDTH = 118
logger = logging.getLogger("fer_jax")


class Clock:
    """The time from a start to the end of the first training step, in parts that add up to the total.

    started: by `time.perf_counter`; None: now. Time that JAX spends on tracing, compiling or loading compiled programs
    counts as the part 'compile', wherever it happens.
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
        # A nested trace is reported before the outer one, which includes it.
        while self._compiling and (self._compiling[-1][0] + self._compiling[-1][1]) / 2 > began:
            self._compiling.pop()
        self._compiling.append((began, ended))

    def _on_event(self, event, **_):
        self._kept += event == "/jax/compilation_cache/cache_hits"

    def mark(self, part: str) -> None:
        """Assigns the time since the last mark to a part; does nothing after the first step."""
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
          `seconds` in total, `parts` {name: seconds}, the number of `programs`, and how many of these came from the
          cache, `programs_kept`.
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
        collect_usually()


def collect_rarely() -> None:
    """Makes garbage collection rare, until the first step if there is a Clock: imports and tracing make no garbage."""
    gc.set_threshold(COLLECT_EVERY, *USUAL_THRESHOLD[1:])


def collect_usually() -> None:
    """Ends `collect_rarely`."""
    if gc.get_threshold()[0] == COLLECT_EVERY:
        gc.freeze()  # objects made so far will stay, so later collections can skip them
        gc.set_threshold(*USUAL_THRESHOLD)


def command_started() -> float:
    """Returns when the process started, by `time.perf_counter`; now, if the system does not report it."""
    now = time.perf_counter()
    try:
        ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (AttributeError, IndexError, OSError, ValueError):
        return now
    return now - age if 0 <= age < 60 else now


def describe(split: dict) -> str:
    """Formats the result of `Clock.end` in lines that fit a terminal."""
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in split["parts"].items() if seconds >= 0.05)
    kept = f"{split['programs_kept']} of {split['programs']} programs came from the cache"
    lines = [f"first step {split['seconds']:.1f} s after the command; {kept}:"]
    return "\n  ".join(lines + textwrap.wrap(parts, LINE_WIDTH - 2))


def duration(seconds: float) -> str:
    """Formats seconds: '48 s', '3 min 20 s', '2 h 05 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def rough_duration(seconds: float) -> str:
    """Returns seconds in two digits or three: '48 s', '3 min', '2.1 h', '48 h'."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    if round(seconds / 60) < 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 9.95 else f"{hours:,.0f} h"


def number(value: float) -> str:
    """Formats a score with four decimals, a very large one with few digits."""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.2e}"


class Progress:
    """The progress of a number of steps: images/s and the total time left.

    The bar appears and rates are counted from the first update, so that they exclude compilation.

    what: a name, such as 'epoch 3/50'; steps_after: number of similar steps that follow; steps_before: how many of its
    steps were done earlier; line_every_seconds: how often a line is logged if there is no terminal.
    """

    def __init__(
        self,
        what: str,
        *,
        steps: int,
        batch_size: int,
        steps_after: int = 0,
        steps_before: int = 0,
        line_every_seconds: float = LINE_EVERY_SECONDS,
    ):
        self._what, self._steps, self._after, self._batch_size = what, steps, steps_after, batch_size
        self._started = self._shown = time.perf_counter()
        self._line_every_seconds = line_every_seconds
        self._before = self._done = steps_before
        self._first = self._bar = self._ended = self._loss = None

    def update(self, done: int, loss: float | None = None) -> None:
        """Reports that `done` steps are done and, in training, the mean loss of the latest ones."""
        now = time.perf_counter()
        if self._first is None:
            self._first = now, done
            self._open_bar()
        self._loss = self._loss if loss is None else loss
        said = [] if self._loss is None else [f"loss {number(self._loss)}"]
        rate = self._rate(now, done)
        if rate:
            images = rate * self._batch_size
            said += [f"{images:,.{0 if images >= 10 else 1}f} images/s", f"{duration(self._left(rate, done))} left"]
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(said), refresh=False)
            self._bar.update(done - self._done)
        elif rate and now - self._shown > self._line_every_seconds:
            self._shown = now
            logger.info("%s step %d/%d: %s", self._what, done, self._steps, ", ".join([f"{rate:.2f} steps/s", *said]))
        self._done = done

    def _open_bar(self):
        if not sys.stderr.isatty():
            return
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            columns = shutil.get_terminal_size().columns
            self._bar = tqdm(
                total=self._steps,
                initial=self._done,
                desc=self._what,
                leave=False,
                ncols=min(columns, LINE_WIDTH),
                # tqdm's own estimate covers this bar only and counts from its start.
                bar_format="{desc} {percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}",
            )

    def _rate(self, now, done):
        """Returns the steps per second since the first update; 0 at the first one."""
        since, before = self._first
        return (done - before) / max(now - since, 1e-9) if done > before else 0.0

    def _left(self, rate, done):
        return (self._steps + self._after - done) / rate

    @property
    def left_seconds(self) -> float:
        """The seconds that the remaining steps take at the present rate."""
        if self._first is None:
            return 0.0
        end = self._ended or time.perf_counter()
        rate = self._rate(end, self._done) or (self._done - self._before) / max(end - self._started, 1e-9)
        return self._left(rate, self._done) if rate else 0.0

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


def watched(batches, what: str, *, faces: int, batch_size: int):
    """Yields batches and shows the consumer's progress, from the end of the first batch on."""
    progress = Progress(
        what, steps=-(-faces // batch_size), batch_size=batch_size, line_every_seconds=PREDICTION_LINE_SECONDS
    )
    with contextlib.closing(progress):
        for done, batch in enumerate(batches):
            if done:
                progress.update(done)
            yield batch
