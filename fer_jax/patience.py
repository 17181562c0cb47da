"""What waits for a metric to improve: the best epoch, early stopping, and the learning rate's plateau.

The rules are those of Keras's EarlyStopping and ReduceLROnPlateau. State is a plain dict, so that it travels in a
checkpoint as JSON and a resumed run goes on counting.
"""

import dataclasses
import math

from fer_jax.errors import InputError

MONITORS = {"validation_accuracy": 1, "validation_macro_f1": 1, "validation_loss": -1}


def direction(monitor: str) -> int:
    """Returns 1 where more of the metric is better, -1 where less is.

    Raises:
      InputError: the metric is not one of MONITORS.
    """
    if monitor not in MONITORS:
        raise InputError(f"'{monitor}' cannot be monitored; known are {', '.join(MONITORS)}")
    return MONITORS[monitor]


@dataclasses.dataclass
class EarlyStopping:
    """Keeps the best epoch and says when to stop. `patience_epochs` 0 never stops."""

    monitor: str
    patience_epochs: int = 0
    min_delta: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    wait: int = 0

    def update(self, epoch: int, scores: dict) -> bool:
        """Counts one epoch (from 1); returns whether it is the best so far. A NaN never is."""
        value = scores[self.monitor] * direction(self.monitor)
        improved = not math.isnan(value) and (self.best is None or value - self.min_delta > self.best)
        if improved:
            self.best, self.best_epoch, self.wait = value, epoch, 0
        else:
            self.wait += 1
        return improved

    def start_phase(self) -> None:
        """Counts anew, as each call of Keras's `fit` does; the best epoch stays."""
        self.wait = 0

    @property
    def stop(self) -> bool:
        """Whether the patience is used up."""
        return 0 < self.patience_epochs <= self.wait


@dataclasses.dataclass
class Plateau:
    """Cuts the learning rate by `factor` after `patience_epochs` without an improvement. 0 never cuts.

    `scale` is the product of all cuts, no smaller than `min_scale`.
    """

    monitor: str
    patience_epochs: int = 0
    factor: float = 0.1
    min_delta: float = 1e-4
    cooldown_epochs: int = 0
    min_scale: float = 0.0
    scale: float = 1.0
    best: float | None = None
    wait: int = 0
    cooldown: int = 0

    def update(self, scores: dict) -> float:
        """Counts one epoch; returns the scale of the learning rate from here on."""
        value = scores[self.monitor] * direction(self.monitor)
        if self.cooldown:
            self.cooldown -= 1
            self.wait = 0
        if self.best is None or value - self.min_delta > self.best:
            self.best, self.wait = value, 0
        elif self.patience_epochs and not self.cooldown:
            self.wait += 1
            if self.wait >= self.patience_epochs and self.scale > self.min_scale:
                self.scale = max(self.scale * self.factor, self.min_scale)
                self.cooldown, self.wait = self.cooldown_epochs, 0
        return self.scale


def state(waiting) -> dict:
    """Returns the state of an EarlyStopping or a Plateau as JSON-able values."""
    return dataclasses.asdict(waiting)


def restore(waiting, saved: dict) -> None:
    """Puts a saved state back."""
    for name, value in saved.items():
        setattr(waiting, name, value)
