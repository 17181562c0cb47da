"""What a run writes while it trains: metrics.jsonl, history.csv, its trackers, and its progress."""

import json
import logging
import math
import pathlib
import shlex

import jax

from fer_jax import command, files, metric_writers, wording
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import Diverged, InputError
from fer_jax.runtime import profiling, remat, timing

logger = logging.getLogger("fer_jax")
SHOWN = {
    "train": {"loss": "loss", "accuracy": "acc"},
    "validation": {"loss": "loss", "accuracy": "acc", "macro_f1": "macro F1"},
}
DIVERGED_NATS = 1000.0  # cross-entropy of a face; a network that says nothing has ln(classes)


class Writer:
    """The writer of a run's metrics and messages.

    run: a `run.Run`. position: a `train.Position`; what was written of later steps and epochs is dropped. best_epoch:
    of the run so far, 0 where there is none. Other processes than the first keep the history but write no files.

    Raises:
      InputError: metrics.jsonl lacks the best epoch, or has lines that are no records of a run.

    Attributes:
      history: the records of the epochs so far, a dict each.
      sums, window, seconds: of the epoch's steps so far, to be saved with a checkpoint in its middle; window: the sums
        that are not in a line of metrics.jsonl yet.
      profiler: a `profiling.Profiler`, which traces the steps that the config asks for.
    """

    def __init__(self, run, workdir, position, best_epoch: int = 0):
        self._config, self._steps_per_epoch = run.config, run.steps_per_epoch
        self._folder, self._writes = pathlib.Path(workdir), jax.process_index() == 0
        self._path = self._folder / "metrics.jsonl"
        records = workdir_lib.read_metrics(self._folder)
        kept = [
            record for record in records if record["step"] <= position.step and record.get("epoch", 0) <= position.epoch
        ]
        self.history = [record for record in kept if record["kind"] == "epoch"]
        if best_epoch and best_epoch not in [record["epoch"] for record in self.history]:
            raise InputError(
                f"{self._path} lacks epoch {best_epoch}, the best one of this run: restore the file, or give another "
                "--workdir"
            )
        self._outputs, self._warned, self._finished = [], False, False
        self.profiler = profiling.Profiler(
            self._folder / "profile",
            steps=self._config.log.profile_steps if self._writes else 0,
            from_step=self._config.log.profile_from_step,
            steps_per_epoch=self._steps_per_epoch,
        )
        if not self._writes:
            return
        trackers = metric_writers.open_trackers(
            self._config.log.writers,
            self._folder,
            config_lib.to_dict(self._config),
            step=position.step,
            written={record["kind"]: record["step"] for record in records},
        )
        with files.atomic_write(self._path) as file:
            file.writelines(json.dumps(record) + "\n" for record in kept)
        self._outputs = [
            metric_writers.JsonLines(self._path),
            metric_writers.HistoryCsv(self._folder / "history.csv", self.history),
            *trackers,
        ]

    def first_step(self, epoch: int, split: dict, program) -> None:
        """Says how long the start took, as `timing.Clock.end` returned it, and what memory the step's program needs."""
        if self._writes:
            workdir_lib.write_start(self._folder, {"epoch": epoch, **split})
        logger.info("%s", timing.describe(split))
        needs = remat.needs(program)
        logger.info(
            "memory of a step: %s of arguments, %s of which are reused for its results, and %s besides",
            *(_mib(needs[name]) for name in ("arguments_mib", "donated_mib", "temporaries_mib")),
        )

    def start_epoch(self, position, start: int) -> None:
        """Begins the epoch after a position, whose steps from `start` on are left."""
        epochs, epoch = self._config.train.epochs, position.epoch + 1
        self._first = position.epoch * self._steps_per_epoch
        self._unlogged, self.sums = dict(position.window), dict(position.sums)
        self._seconds_before = position.seconds
        self._progress = timing.Progress(
            f"epoch {epoch}/{epochs}",
            steps=self._steps_per_epoch,
            batch_size=self._config.train.batch_size,
            steps_after=(epochs - epoch) * self._steps_per_epoch,
            steps_before=start - self._first,
        )

    def step(self, step: int, sums: dict) -> None:
        """Takes the sums of a chunk that ends at a step; writes their means every `log.every_steps`.

        sums: scalars by the name of their mean, and `count`, by which it is taken.

        Raises:
          InputError: a loss that is no number.
        """
        _add(self._unlogged, {name: float(value) for name, value in sums.items()})
        every, done = self._config.log.every_steps, step - self._first
        if done % every and done < self._steps_per_epoch:
            self._progress.update(done)
            return
        means = _means(self._unlogged)
        _add(self.sums, self._unlogged)
        self._unlogged = {}
        if not math.isfinite(means["loss"]):
            raise self._diverged(f"the loss is {means['loss']} at step {step}")
        self._write("step", step, means)
        self._progress.update(done, means["loss"])

    @property
    def window(self) -> dict:
        """The sums of the steps since the last line of metrics.jsonl. Raises InputError: a loss that is no number."""
        if self._unlogged and not math.isfinite(self._unlogged["loss"]):
            raise self._diverged(f"the loss is {self._unlogged['loss']}")
        return dict(self._unlogged)

    @property
    def seconds(self) -> float:
        """How long the steps of the epoch have taken so far."""
        return self._seconds_before + self._progress.seconds

    def end_epoch(self, waited_seconds: float) -> tuple[dict, dict]:
        """Returns the means over an epoch's faces, as `train_loss`, and its speed."""
        self._progress.close()
        means = {f"train_{name}": mean for name, mean in _means(self.sums).items()}
        return means, {
            "seconds": self.seconds,
            "images_per_second": self.sums["count"] / self.seconds,
            "steps_per_second": self._steps_per_epoch / self.seconds,
            "data_wait_share": waited_seconds / self.seconds,
        }

    def epoch(self, position, scores: dict, improved: bool) -> None:
        """Records and logs the epoch that ends at a position.

        Raises:
          Diverged: a validation loss that is no number; nothing is written then.
        """
        if not math.isfinite(scores["validation_loss"]):
            raise self._diverged(f"the validation loss is {scores['validation_loss']} in epoch {position.epoch}")
        self._warn_of_divergence(position.epoch, scores)
        peak_mib = remat.peak_mib()
        peak = {} if peak_mib is None else {"peak_memory_mib": peak_mib}
        self.history.append(self._write("epoch", position.step, {"epoch": position.epoch, **scores, **peak}))
        logger.info("%s", self._line(position.epoch, scores, improved))

    def _line(self, epoch, scores, improved):
        """Returns what the console shows of an epoch, in 120 columns; metrics.jsonl has the rest."""
        epochs = self._config.train.epochs
        train, validation = (
            " ".join(f"{short} {_digits(scores[f'{split}_{name}'])}" for name, short in SHOWN[split].items())
            for split in ("train", "validation")
        )
        left = timing.rough_duration(self._progress.left_seconds if epoch < epochs else 0)
        return (
            f"epoch {epoch}/{epochs}: train {train} | val {validation}{' (best)' if improved else ''} | "
            f"{_rate(scores['images_per_second'])} images/s, {left} left"
        )

    def _warn_of_divergence(self, epoch, scores):
        """Says once that a loss has left all bounds, though it is still a number."""
        large = [name for name in ("train_loss", "validation_loss") if scores[name] > DIVERGED_NATS]
        if large and not self._warned:
            self._warned = True
            logger.warning(
                "the training has probably diverged: %s is %.2g in epoch %d, and guessing has about 2;\n  lower "
                "optim.learning_rate or set optim.clip_norm, with another --workdir",
                *(large[0].replace("_", " "), scores[large[0]], epoch),
            )

    def end(self, rules, position, *, trained: bool) -> dict:
        """Logs how a run ended; returns the record of its best epoch. trained: whether steps were taken."""
        self._finished = True
        best = next((epoch for epoch in self.history if epoch["epoch"] == rules.best.epoch), {})
        if not trained:
            logger.info("this run is complete: %s in %s", wording.count(position.epoch, "epoch"), self._folder)
        elif rules.stop:
            waited = wording.count(rules.stopping.wait, "epoch")
            logger.info("stopped early: no better %s for %s", rules.stopping.monitor, waited)
        if best:
            monitor = self._config.train.monitor
            logger.info("best epoch %d: %s %.4f", best["epoch"], monitor, best[monitor])
        flags = shlex.join(["--workdir", str(self._folder), "--split", "validation"])
        logger.info("evaluate it: %s %s", command.program("evaluate"), flags)
        return best

    def _write(self, kind, step, values):
        for output in self._outputs:
            output.write(kind, step, values)
        return {"kind": kind, "step": step, **values}

    def _diverged(self, what):
        return Diverged(
            f"{what}: lower optim.learning_rate or set optim.clip_norm, with another --workdir (the checkpoints of "
            f"earlier epochs in {self._folder} are intact)"
        )

    def close(self) -> None:
        """Closes the profiler and all writers; trackers show a run that has not ended as one that was stopped."""
        self.profiler.close()
        for output in self._outputs:
            output.close(self._finished)


def _mib(size):
    """Returns MiB with two digits or more."""
    return f"{size:,.0f} MiB" if size >= 10 else f"{size:.2g} MiB"


def _digits(value):
    """Returns a loss or a score in five characters, so that its third decimal shows up to 10."""
    for decimals, limit in ((3, 9.9995), (2, 99.995), (1, 999.95)):
        if value < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.0e}"


def _rate(value):
    """Returns a rate in five characters or less, up to a million."""
    if value < 9999.5:
        return f"{value:,.{0 if value >= 9.95 else 1}f}"
    return f"{value / 1000:.{0 if value >= 99_950 else 1}f}k"


def _add(total, sums):
    for name, value in sums.items():
        total[name] = total.get(name, 0.0) + value


def _means(sums):
    means = {name: value / sums["count"] for name, value in sums.items() if name != "count"}
    return {"loss": means["loss"], **means}  # programs return their dicts in the order of the alphabet
