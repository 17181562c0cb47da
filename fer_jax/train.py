"""The story of a training in time: restore, step, log, validate, save, stop early."""

import dataclasses
import functools
import logging
import math
import pathlib

import jax
import numpy as np

from fer_jax import augment, checkpoint, datasets, losses, metrics, models, optim, patience, records, steps
from fer_jax import config as config_lib
from fer_jax import input as input_lib
from fer_jax import params as params_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.input import order as order_lib
from fer_jax.progress import Progress, duration

CLASS_WEIGHTS = ("none", "balanced")
logger = logging.getLogger("fer_jax")


@dataclasses.dataclass
class Parts:
    """What a training is wired from."""

    data: datasets.FaceData
    model: object
    order: order_lib.Order
    policy: augment.Policy
    keys: dict
    shardings: tuple
    tx: object
    lr_fn: object
    abstract: steps.TrainState


def wire(config) -> Parts:
    """Builds the parts of a run from its config, without computing anything.

    Raises:
      InputError: whatever in the config or the data cannot work.
    """
    train = config.train
    _check(config)
    shardings = steps.make_shardings()
    policy = augment.make(config.augment, facts.IMAGE_SIZE_PX)
    data = datasets.load(config.data)
    model = models.make(config.model, len(data.classes))
    keys = dict(
        zip(
            ("init", "order", "augment", "dropout"),
            jax.random.split(jax.random.key(config.seed), 4),
            strict=True,
        )
    )
    order = order_lib.Order(
        data.train.labels,
        classes=len(data.classes),
        batch_size=train.batch_size,
        key=keys["order"],
        min_class_share=config.data.min_class_share,
        max_class_share=config.data.max_class_share,
    )
    tx, lr_fn = optim.make(config.optim, steps_per_epoch=order.steps_per_epoch, epochs=train.epochs)
    init = functools.partial(steps.init_state, model, tx, keys["init"], facts.IMAGE_SHAPE)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[1]), jax.eval_shape(init)
    )
    return Parts(data, model, order, policy, keys, shardings, tx, lr_fn, abstract)


def _check(config):
    train = config.train
    for name in ("batch_size", "epochs", "checkpoint_every_epochs"):
        if train[name] < 1:
            raise InputError(f"train.{name} is {train[name]}: give 1 or more")
    if config.optim.learning_rate <= 0:
        raise InputError(f"optim.learning_rate is {config.optim.learning_rate}: give more than 0")
    if config.log.every_steps < 1:
        raise InputError(f"log.every_steps is {config.log.every_steps}: give 1 or more")
    if train.batch_size % jax.device_count():
        raise InputError(
            f"train.batch_size is {train.batch_size}, which {jax.device_count()} devices cannot share evenly: "
            "give a multiple"
        )
    if config.loss.class_weights not in CLASS_WEIGHTS:
        raise InputError(f"loss.class_weights is '{config.loss.class_weights}'; known are {', '.join(CLASS_WEIGHTS)}")
    if not 0 <= config.loss.label_smoothing < 1:
        raise InputError(f"loss.label_smoothing is {config.loss.label_smoothing}: give 0 to under 1")
    if config.data.feeder not in input_lib.FEEDERS:
        raise InputError(f"data.feeder is '{config.data.feeder}'; known are {', '.join(input_lib.FEEDERS)}")
    for monitor in (train.monitor, config.optim.plateau.monitor):
        patience.direction(monitor)


def train(config, workdir) -> dict:
    """Trains the run of a config in its workdir, or goes on with the one that is there.

    Returns:
      the scores of the best epoch, as in `history.csv`.

    Raises:
      InputError: bad input, before training starts where that can be known; a loss that is no number; a full disk.
    """
    parts = wire(config)
    describe(config, parts)
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(parts.abstract))
    checkpoint.check_space(workdir, weights * (checkpoint.KEPT_LATEST + 2))
    _open_workdir(config, workdir, parts.data)
    return _Training(config, workdir, parts).run()


def describe(config, parts) -> None:
    """Logs the data, the network and the protocol of a run."""
    data = parts.data
    logger.info("data: %s, fingerprint %s", data.name, data.fingerprint)
    for name in facts.SPLITS:
        labels = data.split(name).labels
        counts = np.bincount(labels, minlength=len(data.classes))
        shown = ", ".join(f"{kind} {n:,}" for kind, n in zip(data.classes, counts, strict=True))
        logger.info("  %-10s %6s faces: %s", name, f"{len(labels):,}", shown)
    logger.info(
        "model: %s\n%s",
        config.model.name,
        params_lib.overview(parts.abstract.params, parts.abstract.batch_stats),
    )
    logger.info(
        "training: %d epochs of %d steps, batch %d, %s feeder, on %d x %s",
        *(config.train.epochs, parts.order.steps_per_epoch, config.train.batch_size, config.data.feeder),
        *(jax.device_count(), jax.devices()[0].device_kind),
    )


def _open_workdir(config, workdir, data):
    """Writes what the run is, or refuses a workdir whose run is another one."""
    workdir = pathlib.Path(workdir)
    mine = config_lib.to_dict(config)
    facts_now = {
        **records.facts(),
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "synthetic": data.synthetic,
        "classes": list(data.classes),
        "notes": list(data.notes),
    }
    if (workdir / "config.json").exists():
        saved = records.read_json(workdir / "config.json", what="config", mend="give another --workdir")
        different = config_lib.differences(saved, mine)
        before = records.read_json(workdir / "run.json", what="record of the run", mend="give another --workdir")
        if before["data_fingerprint"] != data.fingerprint:
            different.append(f"the data: {before['data_fingerprint']}, now {data.fingerprint}")
        if different:
            lines = "\n  ".join(different)
            raise InputError(
                f"{workdir} holds a run with another config:\n  {lines}\n"
                "give these fields their old values to go on with it, or another --workdir for a new run"
            )
        return
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            records.write_json(workdir / "run.json", facts_now)
            records.write_json(workdir / "config.json", mine)
        except OSError as error:
            raise InputError(f"{workdir} cannot be written ({error}): give another --workdir") from error


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
