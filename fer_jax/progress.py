"""Progress on long work: a bar where someone watches, a line now and then where the output is a file."""

import contextlib
import logging
import sys
import time

LINE_EVERY_SECONDS = 60.0
logger = logging.getLogger("fer_jax")


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

    what: its name, as 'epoch 3/50'; steps_after: steps of the same kind that follow it.
    """

    def __init__(self, what: str, *, steps: int, batch_size: int, steps_after: int = 0):
        self._what, self._steps, self._after, self._batch_size = what, steps, steps_after, batch_size
        self._started = self._shown = time.perf_counter()
        self._done, self._bar = 0, None
        if sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                self._bar = tqdm(total=steps, desc=what, unit="step", leave=False)

    def update(self, done: int, loss: float | None = None) -> None:
        """Says that `done` steps are over and, in training, what the mean loss of the last ones was."""
        now = time.perf_counter()
        rate = done / max(now - self._started, 1e-9)
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

    def close(self) -> float:
        """Ends the bar; returns the seconds since the start."""
        if self._bar is not None:
            self._bar.close()
        return time.perf_counter() - self._started
