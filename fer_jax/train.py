"""The story of a training in time: restore, step, log, validate, save, stop early."""

import functools
import logging
import math

import jax
import numpy as np

from fer_jax import checkpoint, losses, metrics, patience, records, steps
from fer_jax import input as input_lib
from fer_jax import parts as parts_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.progress import Progress, duration

logger = logging.getLogger("fer_jax")


def train(config, workdir) -> dict:
    """Trains the run of a config in its workdir, or goes on with the one that is there.

    Returns:
      the scores of the best epoch, as in `history.csv`.

    Raises:
      InputError: bad input, before training starts where that can be known; a loss that is no number; a full disk.
    """
    parts = parts_lib.wire(config)
    parts_lib.describe(config, parts)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(parts.abstract))
    checkpoint.check_space(workdir, weights * (checkpoint.KEPT_LATEST + 2))
    parts_lib.open_workdir(config, workdir, parts.data)
    return _Training(config, workdir, parts).run()


class _Training:
    """One training: its state, its checkpoints and what waits for an improvement."""

    def __init__(self, config, workdir, parts):
        self._config, self._workdir, self._parts = config, workdir, parts
        self._checkpoints = checkpoint.Checkpoints(workdir)
        settings, plateau = config.train.early_stopping, config.optim.plateau
        self._stopping = patience.EarlyStopping(config.train.monitor, settings.patience_epochs, settings.min_delta)
        self._plateau = patience.Plateau(
            plateau.monitor,
            plateau.patience_epochs,
            plateau.factor,
            plateau.min_delta,
            plateau.cooldown_epochs,
            plateau.min_learning_rate / config.optim.learning_rate,
        )
        self._state, self._epoch = self._restore()
        self._metrics = None

    def _restore(self):
        """Returns (state, epochs done): those of the latest checkpoint, or fresh ones."""
        if self._checkpoints.step("latest") is None:
            parts = self._parts
            init = functools.partial(steps.init_state, parts.model, parts.tx, parts.keys["init"], facts.IMAGE_SHAPE)
            return jax.jit(init, out_shardings=parts.shardings[1])(), 0
        state, meta = self._checkpoints.restore("latest", self._parts.abstract)
        patience.restore(self._stopping, meta["early_stopping"])
        patience.restore(self._plateau, meta["plateau"])
        logger.info("going on from step %d, epoch %d, in %s", int(state.step), meta["epoch"], self._workdir)
        return state, meta["epoch"]

    def run(self) -> dict:
        """Trains to the end; returns the scores of the best epoch."""
        config, parts = self._config, self._parts
        started_at = int(self._state.step)
        feeder = input_lib.make(
            config.data.feeder,
            faces=parts.data.train,
            order=parts.order,
            policy=parts.policy,
            key=parts.keys["augment"],
            shardings=parts.shardings,
            steps_per_dispatch=config.train.steps_per_dispatch,
        )
        self._metrics = records.Metrics(
            self._workdir,
            resume_step=started_at,
            tensorboard=config.log.tensorboard,
            writes=jax.process_index() == 0,
        )
        advance = feeder.connect(self._train_step())
        evaluate = steps.make_evaluate(parts.model, classes=len(parts.data.classes), replicated=parts.shardings[1])
        try:
            while self._epoch < config.train.epochs and not self._stopping.stop:
                self._epoch += 1
                trained = self._train_epoch(feeder, advance)
                faces = parts.data.validation
                batches = input_lib.padded_batches(faces, config.train.batch_size, parts.shardings[0])
                sums, _ = evaluate(self._state.variables, batches)
                self._end_epoch(trained, {f"validation_{k}": v for k, v in metrics.summarize(sums).items()})
        finally:
            feeder.close()
            self._metrics.close()
            self._checkpoints.close()
        return self._finish(started_at)

    def _train_step(self):
        config, parts = self._config, self._parts
        weights = None
        if config.loss.class_weights == "balanced":
            counts = np.bincount(parts.data.train.labels, minlength=len(parts.data.classes))
            weights = losses.balanced_class_weights(counts)
        return steps.make_train_step(
            parts.model,
            parts.tx,
            classes=len(parts.data.classes),
            key=parts.keys["dropout"],
            label_smoothing=config.loss.label_smoothing,
            class_weights=weights,
            l2=config.loss.l2,
        )

    def _train_epoch(self, feeder, advance):
        """Runs the steps of one epoch; returns its scores and times."""
        config, parts = self._config, self._parts
        total, wait_before = dict.fromkeys(("loss", "count", "correct"), 0.0), feeder.wait_seconds
        first, last = (
            (self._epoch - 1) * parts.order.steps_per_epoch,
            self._epoch * parts.order.steps_per_epoch,
        )
        progress = Progress(
            epoch=self._epoch,
            epochs=config.train.epochs,
            steps=parts.order.steps_per_epoch,
            batch_size=config.train.batch_size,
        )
        for step in range(first, last, config.log.every_steps):
            count = min(config.log.every_steps, last - step)
            self._state, sums = advance(self._state, step, count)
            sums = {name: float(value) for name, value in sums.items()}
            total = {name: total[name] + value for name, value in sums.items()}
            loss = sums["loss"] / sums["count"]
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is {loss} at step {step + count}: lower optim.learning_rate or set optim.clip_norm "
                    f"(earlier checkpoints in {self._workdir} are intact)"
                )
            self._metrics.write("step", step + count, {"loss": loss, "accuracy": sums["correct"] / sums["count"]})
            progress.update(step + count - first, loss)
        seconds = progress.close()
        return {
            "train_loss": total["loss"] / total["count"],
            "train_accuracy": total["correct"] / total["count"],
            "learning_rate": float(parts.lr_fn(last - 1)) * self._plateau.scale,
            "seconds": seconds,
            "images_per_second": total["count"] / seconds,
            "steps_per_second": (last - first) / seconds,
            "data_wait_share": (feeder.wait_seconds - wait_before) / seconds,
        }

    def _end_epoch(self, trained, validated):
        """Records an epoch, lets the rules count it, and saves."""
        improved = self._stopping.update(self._epoch, validated)
        scale = self._plateau.update(validated)
        scale = input_lib.put(np.asarray(scale, np.float32), self._parts.shardings[1])
        self._state = self._state.replace(lr_scale=scale)
        step, config = int(self._state.step), self._config
        self._metrics.write("epoch", step, {"epoch": self._epoch, **trained, **validated})
        left = (config.train.epochs - self._epoch) * trained["seconds"]
        logger.info(
            "epoch %d/%d: train loss %.4f accuracy %.4f | validation loss %.4f accuracy %.4f macro F1 %.4f%s | "
            "rate %.2e | %.2f steps/s, %s images/s, waiting for data %.2f%% | %s left",
            *(self._epoch, config.train.epochs, trained["train_loss"], trained["train_accuracy"]),
            *(validated[f"validation_{name}"] for name in ("loss", "accuracy", "macro_f1")),
            *(" (best)" if improved else "", trained["learning_rate"], trained["steps_per_second"]),
            *(f"{trained['images_per_second']:,.0f}", 100 * trained["data_wait_share"], duration(left)),
        )
        if not improved and self._epoch % config.train.checkpoint_every_epochs and not self._ends():
            return
        if self._stopping.stop and config.train.early_stopping.restore_best:
            self._restore_best()
        meta = {
            "epoch": self._epoch,
            "classes": list(self._parts.data.classes),
            "scores": validated,
            "early_stopping": patience.state(self._stopping),
            "plateau": patience.state(self._plateau),
        }
        if improved:
            self._checkpoints.save("best", step, self._state.variables, meta)
        self._checkpoints.save("latest", step, self._state, meta)

    def _restore_best(self):
        self._checkpoints.wait()
        best, meta = self._checkpoints.restore("best", self._parts.abstract.variables)
        self._state = self._state.replace(**best)
        logger.info("the best variables, of epoch %d, are put back", meta["epoch"])

    def _ends(self):
        return self._epoch == self._config.train.epochs or self._stopping.stop

    def _finish(self, started_at):
        best = self._metrics.history[self._stopping.best_epoch - 1] if self._stopping.best_epoch else {}
        if int(self._state.step) == started_at:
            logger.info("this run is complete: %d epochs in %s", self._epoch, self._workdir)
        elif self._stopping.stop:
            logger.info("stopped early: no better %s for %d epochs", self._config.train.monitor, self._stopping.wait)
        if best:
            logger.info(
                "best epoch %d: %s %.4f",
                best["epoch"],
                self._config.train.monitor,
                best[self._config.train.monitor],
            )
        logger.info("evaluate it: python -m fer_jax.evaluate --workdir %s --split test", self._workdir)
        return best
