"""The best epoch, early stopping and reduce-on-plateau, as in Keras's EarlyStopping and ReduceLROnPlateau.

State is a plain dict that checkpoints store as JSON, so that a resumed run continues counting.
"""

import dataclasses
import math

from fer_jax.errors import InputError

MONITORS = {"validation_accuracy": 1, "validation_macro_f1": 1, "validation_loss": -1}


def direction(monitor: str) -> int:
    """Returns 1 if higher values of the metric are better, -1 if lower ones are.

    Raises:
      InputError: the metric is not one of MONITORS.
    """
    if monitor not in MONITORS:
        raise InputError(f"'{monitor}' cannot be monitored; known are {', '.join(MONITORS)}")
    return MONITORS[monitor]


@dataclasses.dataclass
class Best:
    """The best epoch of a run, as in Keras's ModelCheckpoint(save_best_only=True)."""

    monitor: str
    value: float | None = None
    epoch: int = 0

    def update(self, epoch: int, scores: dict) -> bool:
        """Counts one epoch (from 1); returns whether it is the best so far. A NaN never is."""
        value = scores[self.monitor] * direction(self.monitor)
        improved = _improves(value, self.value)
        if improved:
            self.value, self.epoch = value, epoch
        return improved


@dataclasses.dataclass
class EarlyStopping:
    """Stops a phase after `patience_epochs` without an improvement; 0 never stops."""

    monitor: str
    patience_epochs: int = 0
    min_delta: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    wait: int = 0

    def update(self, epoch: int, scores: dict) -> None:
        """Counts one epoch (from 1); a NaN is no improvement."""
        value = scores[self.monitor] * direction(self.monitor)
        if _improves(value, self.best, self.min_delta):
            self.best, self.best_epoch, self.wait = value, epoch, 0
        else:
            self.wait += 1

    def start_phase(self) -> None:
        """Forgets the best and the wait, as each call of Keras's `fit` does."""
        self.best, self.best_epoch, self.wait = None, 0, 0

    @property
    def stop(self) -> bool:
        """Whether the patience is used up."""
        return 0 < self.patience_epochs <= self.wait


@dataclasses.dataclass
class Plateau:
    """Multiplies the learning rate by `factor` after `patience_epochs` without an improvement; 0 never does.

    `scale` is the product of all reductions, at least `min_scale`. A NaN is no improvement, not even in the first
    epoch, where Keras 3 takes it as the best.
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
        if _improves(value, self.best, self.min_delta):
            self.best, self.wait = value, 0
        elif self.patience_epochs and not self.cooldown:
            self.wait += 1
            if self.wait >= self.patience_epochs and self.scale > self.min_scale:
                self.scale = max(self.scale * self.factor, self.min_scale)
                self.cooldown, self.wait = self.cooldown_epochs, 0
        return self.scale


def _improves(value, best, min_delta=0.0):
    return not math.isnan(value) and (best is None or value - min_delta > best)


def ended_early(history, config: dict) -> bool:
    """Whether early stopping ended a run in its last phase, found by recounting its epochs.

    history: the records of its epochs, in order; config: nested, with the sections `train` and `optim`.
    """
    train = config["train"]
    settings = train.get("early_stopping") or {}
    patience_epochs = settings.get("patience_epochs", 0)
    monitor = settings.get("monitor") or train.get("monitor")
    rule = EarlyStopping(monitor, patience_epochs, settings.get("min_delta", 0.0))
    begins_after = ((config.get("optim") or {}).get("fine_tune") or {}).get("after_epochs", 0)
    for record in history:
        if record["epoch"] > begins_after and record.get(monitor) is not None:
            rule.update(record["epoch"], record)
    return rule.stop


class Rules:
    """A run's decisions from validation scores: the best epoch, when a phase stops, and the learning rate's scale.

    train, plateau: the config's sections `train` and `optim.plateau`. learning_rate: the peak of the first phase.
    """

    def __init__(self, train, plateau, learning_rate: float):
        stopping = train.early_stopping
        self._plateau_settings = plateau
        self.best = Best(train.monitor)
        self.stopping = EarlyStopping(stopping.monitor or train.monitor, stopping.patience_epochs, stopping.min_delta)
        self.start_phase(learning_rate)

    def start_phase(self, learning_rate: float) -> None:
        """Starts a phase with this peak rate: early stopping and the plateau restart, the best epoch is kept."""
        settings = self._plateau_settings
        self.stopping.start_phase()
        self.plateau = Plateau(
            settings.monitor,
            settings.patience_epochs,
            settings.factor,
            settings.min_delta,
            settings.cooldown_epochs,
            settings.min_learning_rate / learning_rate,
        )

    def update(self, epoch: int, scores: dict) -> bool:
        """Counts one epoch (from 1) with its validation scores; returns whether it is the best so far."""
        improved = self.best.update(epoch, scores)
        self.stopping.update(epoch, scores)
        self.plateau.update(scores)
        return improved

    @property
    def stop(self) -> bool:
        """Whether the phase ends early."""
        return self.stopping.stop

    @property
    def lr_scale(self) -> float:
        """The plateau's factor on the learning rate."""
        return self.plateau.scale

    def state(self) -> dict:
        """Returns what has been counted, as JSON-able values."""
        return {name: state(rule) for name, rule in self._rules().items()}

    def restore(self, saved: dict) -> None:
        """Restores a saved state; ignores other entries, which earlier versions wrote."""
        # Earlier versions counted the best epoch and early stopping as one.
        before = {"value": saved["early_stopping"]["best"], "epoch": saved["early_stopping"]["best_epoch"]}
        for name, rule in self._rules().items():
            restore(rule, saved.get(name, before))

    def _rules(self):
        return {"best": self.best, "early_stopping": self.stopping, "plateau": self.plateau}


COUNTERS = {
    Best: ("value", "epoch"),
    EarlyStopping: ("best", "best_epoch", "wait"),
    Plateau: ("scale", "best", "wait", "cooldown"),
}


def state(rule) -> dict:
    """Returns what a Best, an EarlyStopping or a Plateau has counted, as JSON-able values."""
    return {name: getattr(rule, name) for name in COUNTERS[type(rule)]}


def restore(rule, saved: dict) -> None:
    """Restores a saved state; ignores other entries, which earlier versions wrote."""
    for name in COUNTERS[type(rule)]:
        setattr(rule, name, saved[name])
