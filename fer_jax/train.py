"""The story of a training in time: restore, step, log, validate, save, stop early."""

import functools
import logging
import math

import jax
import numpy as np

from fer_jax import checkpoint, feature_cache, feeders, losses, members, metrics, ops, patience, phases, steps
from fer_jax import config as config_lib
from fer_jax import params as params_lib
from fer_jax import run as run_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError
from fer_jax.runtime import compile_cache, remat, timing
from fer_jax.runtime.timing import Progress, duration

logger = logging.getLogger("fer_jax")


def train(config, workdir, clock=None, on_epoch=None, kept_dir=None) -> dict:
    """Trains the run of a config in its workdir, or goes on with the one that is there.

    clock: a `timing.Clock` that began with the command; None: the start is counted from here. on_epoch: called with
    each epoch's number and its scores, as in `history.csv`, after it is saved; what it raises ends the training.
    kept_dir: the folder of `compile_cache.keep_compiled`, for the programs of steps; None: those are not kept.

    Returns:
      the scores of the best epoch, as in `history.csv`.

    Raises:
      InputError: bad input, before training starts where that can be known; a loss that is no number; a full disk.
    """
    clock = clock or timing.Clock()
    config = members.resolve(config, workdir)
    parts = run_lib.wire(config, clock.lap)
    run_lib.describe(config, parts)
    state_bytes = max(
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(phase.abstract)) for phase in parts.phases
    )
    checkpoint.check_space(workdir, state_bytes * (checkpoint.KEPT_LATEST + 2))
    checkpoints = checkpoint.Checkpoints(workdir)
    begun = checkpoints.step("latest") is not None
    clock.lap("model")
    load_weights = members.load_weights if config.model.members else run_lib.load_weights
    weights = None if begun else load_weights(config, parts)
    facts_of_weights = weights.facts if weights else workdir_lib.read_weights(workdir) if begun else None
    run_lib.settle_scaling(config, parts, (facts_of_weights or {}).get("scaling", ""))
    run_lib.open_workdir(config, workdir, parts.data, weights)
    clock.lap("weights")
    training = _Training(
        config,
        workdir,
        parts,
        checkpoints=checkpoints,
        weights=weights,
        clock=clock,
        on_epoch=on_epoch,
        kept_dir=kept_dir,
    )
    del weights  # the training lets go of them as soon as the devices have them
    return training.run()


class _Training:
    """One training: its state, its checkpoints and what waits for an improvement."""

    def __init__(self, config, workdir, parts, *, checkpoints, weights, clock, on_epoch, kept_dir):
        self._config, self._workdir, self._parts = config, workdir, parts
        self._checkpoints, self._clock, self._on_epoch = checkpoints, clock, on_epoch
        self._kept_dir = kept_dir
        settings = config.train.early_stopping
        self._best = patience.Best(config.train.monitor)
        self._stopping = patience.EarlyStopping(
            settings.monitor or config.train.monitor, settings.patience_epochs, settings.min_delta
        )
        self._rematerialize = remat.settle(config.train.rematerialize, config.model.name)
        self._weights, self._state, self._metrics = weights, None, None
        self._started_at = checkpoints.step("latest") or 0
        self._epoch, self._phase = self._begin()

    def _make_plateau(self, phase):
        settings = self._config.optim.plateau
        return patience.Plateau(
            settings.monitor,
            settings.patience_epochs,
            settings.factor,
            settings.min_delta,
            settings.cooldown_epochs,
            settings.min_learning_rate / phase.learning_rate,
        )

    def _begin(self):
        """Returns (epochs done, phase), and has the rules count on from the latest checkpoint, if there is one."""
        meta = self._checkpoints.meta("latest") if self._started_at else {"epoch": 0}
        phase = phases.of_epoch(self._parts.phases, meta["epoch"])
        self._plateau = self._make_plateau(phase)
        if not self._started_at:
            return 0, phase
        patience.restore(self._stopping, meta["early_stopping"])
        patience.restore(self._plateau, meta["plateau"])
        before = {"value": meta["early_stopping"]["best"], "epoch": meta["early_stopping"]["best_epoch"]}
        patience.restore(self._best, meta.get("best", before))  # earlier versions counted both as one
        return meta["epoch"], phase

    def _make_state(self):
        """Makes the training state where there is none yet: the latest checkpoint's, or a fresh one with weights."""
        if self._state is not None:
            return
        phase, weights = self._phase, self._weights
        if self._started_at:
            self._state, _ = self._checkpoints.restore("latest", phase.abstract)
            logger.info("going on from step %d, epoch %d, in %s", self._started_at, self._epoch, self._workdir)
            return
        image_shape = self._parts.data.image_shape
        init = functools.partial(
            steps.init_state, phase.model, phase.tx, self._parts.keys["init"], image_shape, phase.frozen
        )
        state = jax.jit(init, out_shardings=self._parts.shardings[1])()
        self._state = state if weights is None else self._with(state, weights)
        self._weights = None

    def _with(self, state, weights):
        """Puts pretrained weights into a fresh state; the optimizer's own state does not depend on them."""
        put = functools.partial(jax.tree.map, lambda leaf: feeders.put(leaf, self._parts.shardings[1]))
        return state.replace(
            params=params_lib.join(state.params, put(weights.params)),
            batch_stats=params_lib.join(state.batch_stats, put(weights.batch_stats)),
        )

    def run(self) -> dict:
        """Trains to the end; returns the scores of the best epoch."""
        self._metrics = workdir_lib.Metrics(
            self._workdir,
            resume_step=self._started_at,
            tensorboard=self._config.log.tensorboard,
            writes=jax.process_index() == 0,
        )
        try:
            for phase in self._parts.phases[self._parts.phases.index(self._phase) :]:
                self._run_phase(phase)
            self._make_state()  # of a run that is complete, so that a damaged checkpoint is told
        finally:
            self._metrics.close()
            self._checkpoints.close()
        return self._finish()

    def _run_phase(self, phase):
        """Trains the epochs of a phase that are left."""
        if phase is not self._phase:
            self._enter(phase)
        if self._epoch >= phase.last_epoch or self._stopping.stop:
            return
        config, parts = self._config, self._parts
        data, forward = self._data(phase)
        self._clock.lap("features")
        feeder = feeders.make(
            config.data.feeder,
            faces=data["train"],
            order=parts.order,
            policy=parts.policy,
            key=parts.keys["augment"],
            shardings=parts.shardings,
            steps_per_dispatch=config.train.steps_per_dispatch,
            jit=functools.partial(ops.jit, options=remat.compiler_options(self._rematerialize)),
        )
        advance = feeder.connect(
            self._train_step(phase, forward),
            lambda step: self._clock.watch(step, lambda split: self._say_start(split, feeder), feeder.compiled),
            state=phase.abstract,
            steps=min(config.log.every_steps, parts.order.steps_per_epoch),
            prepare=self._prepare(phase),
        )
        self._make_state()  # while the program of a step is compiled
        self._clock.lap("state")
        evaluate = steps.make_evaluate(
            phase.model,
            classes=len(parts.data.classes),
            replicated=parts.shardings[1],
            forward=forward,
        )
        try:
            while self._epoch < phase.last_epoch and not self._stopping.stop:
                self._epoch += 1
                trained = self._train_epoch(feeder, advance)
                batches = feeders.padded_batches(data["validation"], config.train.batch_size, parts.shardings[0])
                sums, _ = evaluate(self._state.variables, batches)
                self._end_epoch(trained, {f"validation_{k}": v for k, v in metrics.summarize(sums).items()})
                if self._on_epoch:
                    self._on_epoch(self._epoch, self._metrics.history[-1])
        finally:
            feeder.close()

    def _prepare(self, phase):
        """Returns what makes the program of a phase's steps; one of several processes does not keep it."""
        if self._kept_dir is None or jax.process_count() > 1:
            return compile_cache.compile_beside
        facts_of_run = {
            "config": config_lib.result_fields(config_lib.to_dict(self._config)),
            "data": self._parts.data.fingerprint,
            "first_epoch": phase.first_epoch,
        }
        return compile_cache.Kept(self._kept_dir, facts_of_run).compile_beside

    def _say_start(self, split, feeder):
        """Logs and records how long the start took, and does what could wait for its end."""
        if jax.process_index() == 0:
            workdir_lib.write_start(self._workdir, {"epoch": self._epoch, **split})
        logger.info("%s", timing.describe(split))
        needs = remat.needs(feeder.compiled())
        logger.info(
            "memory of a step: %s MiB of arguments, %s MiB of which are reused for its results, and %s MiB besides",
            *(f"{needs[name]:,.0f}" for name in ("arguments_mib", "donated_mib", "temporaries_mib")),
        )
        self._checkpoints.prepare()

    def _enter(self, phase):
        """Goes over to a later phase: a fresh optimizer for what it trains, and rules that count anew."""
        self._make_state()
        self._epoch, self._phase = phase.first_epoch - 1, phase
        self._stopping.start_phase()
        self._plateau = self._make_plateau(phase)
        init = jax.jit(
            lambda params: steps.init_optimizer(phase.tx, params, phase.frozen), out_shardings=self._parts.shardings[1]
        )
        scale = feeders.put(np.ones([], np.float32), self._parts.shardings[1])
        step = feeders.put(np.asarray(phase.first_step, np.int32), self._parts.shardings[1])
        self._state = self._state.replace(step=step, opt_state=init(self._state.params), lr_scale=scale)
        logger.info("fine-tuning from epoch %d on: %d layers stay frozen", phase.first_epoch, len(phase.frozen))

    def _data(self, phase):
        """Returns the faces of training and validation, or their features, and the model's method that takes them."""
        config, parts = self._config, self._parts
        data = {"train": parts.data.train, "validation": parts.data.validation}
        if not (phase.backbone_frozen and config.train.cache_features) or parts.policy.active:
            return data, None
        self._make_state()
        self._clock.lap("state")
        held = {
            name: feature_cache.cached(
                phase.model,
                self._state.variables,
                faces,
                batch_size=config.train.batch_size,
                shardings=parts.shardings,
                cache_dir=config.data.cache_dir,
            )
            for name, faces in data.items()
        }
        return (data, None) if None in held.values() else (held, feature_cache.FORWARD)

    def _train_step(self, phase, forward):
        config, parts = self._config, self._parts
        return steps.make_train_step(
            phase.model,
            phase.tx,
            classes=len(parts.data.classes),
            key=parts.keys["dropout"],
            loss=losses.make(config.loss),
            label_smoothing=config.loss.label_smoothing,
            class_weights=losses.class_weights(config.loss, parts.order.class_counts),
            l2=config.loss.l2,
            frozen=phase.frozen,
            forward=forward,
            rematerialize=self._rematerialize,
        )

    def _train_epoch(self, feeder, advance):
        """Runs the steps of one epoch; returns its scores and times."""
        config, parts = self._config, self._parts
        total, wait_before = dict.fromkeys(feeders.SUMS, 0.0), feeder.wait_seconds
        first, last = (
            (self._epoch - 1) * parts.order.steps_per_epoch,
            self._epoch * parts.order.steps_per_epoch,
        )
        progress = Progress(
            f"epoch {self._epoch}/{config.train.epochs}",
            steps=last - first,
            batch_size=config.train.batch_size,
            steps_after=(config.train.epochs - self._epoch) * (last - first),
        )
        for step in range(first, last, config.log.every_steps):
            count = min(config.log.every_steps, last - step)
            self._state, sums = advance(self._state, step, count)
            sums = {name: float(value) for name, value in sums.items()}
            total = {name: total[name] + value for name, value in sums.items()}
            loss = sums["loss"] / sums["count"]
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} at step {step + count}")
            self._metrics.write("step", step + count, {"loss": loss, "accuracy": sums["correct"] / sums["count"]})
            progress.update(step + count - first, loss)
        seconds = progress.close()
        return {
            "train_loss": total["loss"] / total["count"],
            "train_accuracy": total["correct"] / total["count"],
            "learning_rate": float(self._phase.lr_fn(last - 1 - self._phase.first_step)) * self._plateau.scale,
            "seconds": seconds,
            "images_per_second": total["count"] / seconds,
            "steps_per_second": (last - first) / seconds,
            "data_wait_share": (feeder.wait_seconds - wait_before) / seconds,
        }

    def _diverged(self, what):
        return InputError(
            f"{what}: lower optim.learning_rate or set optim.clip_norm, with another --workdir (the checkpoints of "
            f"earlier epochs in {self._workdir} are intact)"
        )

    def _end_epoch(self, trained, validated):
        """Records an epoch, lets the rules count it, and saves."""
        if not math.isfinite(validated["validation_loss"]):
            raise self._diverged(f"the validation loss is {validated['validation_loss']} in epoch {self._epoch}")
        improved = self._best.update(self._epoch, validated)
        self._stopping.update(self._epoch, validated)
        scale = self._plateau.update(validated)
        scale = feeders.put(np.asarray(scale, np.float32), self._parts.shardings[1])
        self._state = self._state.replace(lr_scale=scale)
        step, config, peak_mib = int(self._state.step), self._config, remat.peak_mib()
        peak = {} if peak_mib is None else {"peak_memory_mib": peak_mib}
        self._metrics.write("epoch", step, {"epoch": self._epoch, **trained, **validated, **peak})
        left = (config.train.epochs - self._epoch) * trained["seconds"]
        logger.info(
            "epoch %d/%d: train loss %.4f accuracy %.4f | validation loss %.4f accuracy %.4f macro F1 %.4f%s | "
            "rate %.2e | %.2f steps/s, %s images/s, waiting for data %.2f%%, peak memory %s | %s left",
            *(self._epoch, config.train.epochs, trained["train_loss"], trained["train_accuracy"]),
            *(validated[f"validation_{name}"] for name in ("loss", "accuracy", "macro_f1")),
            *(" (best)" if improved else "", trained["learning_rate"], trained["steps_per_second"]),
            *(f"{trained['images_per_second']:,.0f}", 100 * trained["data_wait_share"]),
            *("unknown" if peak_mib is None else f"{peak_mib:,.0f} MiB", duration(left)),
        )
        ends = self._stopping.stop or self._epoch == self._phase.last_epoch
        if not improved and self._epoch % config.train.checkpoint_every_epochs and not ends:
            return
        meta = {
            "epoch": self._epoch,
            "classes": list(self._parts.data.classes),
            "scores": validated,
            "best": patience.state(self._best),
            "early_stopping": patience.state(self._stopping),
            "plateau": patience.state(self._plateau),
        }
        if improved:
            self._checkpoints.save("best", step, self._state.variables, meta)
        elif ends and config.train.early_stopping.restore_best and self._stopping.patience_epochs:
            meta |= self._restore_best()
        self._checkpoints.save("latest", step, self._state, meta)

    def _restore_best(self):
        """Puts the best variables back; returns what the next checkpoint says of them."""
        self._checkpoints.wait()
        best, meta = self._checkpoints.restore("best", self._phase.abstract.variables)
        self._state = self._state.replace(**best)
        logger.info("the best variables, of epoch %d, are put back", meta["epoch"])
        return {"variables_epoch": meta["epoch"], "scores": meta["scores"]}

    def _finish(self):
        best = next((epoch for epoch in self._metrics.history if epoch["epoch"] == self._best.epoch), {})
        if int(self._state.step) == self._started_at:
            logger.info("this run is complete: %d epochs in %s", self._epoch, self._workdir)
        elif self._stopping.stop:
            logger.info("stopped early: no better %s for %d epochs", self._stopping.monitor, self._stopping.wait)
        if best:
            logger.info(
                "best epoch %d: %s %.4f",
                best["epoch"],
                self._config.train.monitor,
                best[self._config.train.monitor],
            )
        logger.info("evaluate it: python -m fer_jax.evaluate --workdir %s --split test", self._workdir)
        return best
