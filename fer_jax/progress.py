"""Progress on long work: a bar where someone watches, a line now and then where the output is a file."""

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
    """The progress of one epoch within a training: steps/s, images/s and the time left of the whole training."""

    def __init__(self, *, epoch: int, epochs: int, steps: int, batch_size: int):
        self._epoch, self._epochs, self._steps, self._batch_size = epoch, epochs, steps, batch_size
        self._started = self._shown = time.perf_counter()
        self._done, self._bar = 0, None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=steps, desc=f"epoch {epoch}/{epochs}", unit="step", leave=False)

    def update(self, done: int, loss: float) -> None:
        """Says that `done` steps of the epoch are over and what the mean loss of the last ones was."""
        now = time.perf_counter()
        rate = done / max(now - self._started, 1e-9)
        left = duration(((self._epochs - self._epoch + 1) * self._steps - done) / rate)
        text = f"loss {loss:.4f}, {rate * self._batch_size:,.0f} images/s, {left} left"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._done)
        elif now - self._shown > LINE_EVERY_SECONDS:
            self._shown = now
            logger.info("epoch %d/%d step %d/%d: %.2f steps/s, %s", *self._place(done), rate, text)
        self._done = done

    def _place(self, done):
        return self._epoch, self._epochs, done, self._steps

    def close(self) -> float:
        """Ends the bar; returns the seconds since the start."""
        if self._bar is not None:
            self._bar.close()
        return time.perf_counter() - self._started
