"""Training: restore or initialize, then phases of epochs of steps, validated and saved after each epoch."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from fer_jax import averaging, checkpoint, distillation, freezing, members, patience, steps, wiring, wording
from fer_jax import run as run_lib
from fer_jax import workdir as workdir_lib
from fer_jax import writer as writer_lib
from fer_jax.errors import InputError, tells_full_disk
from fer_jax.runtime import interrupts, timing

logger = logging.getLogger("fer_jax")


class Position(NamedTuple):
    """How far a run is: its whole epochs and its steps, and of an epoch in progress the sums and seconds so far.

    window: the sums of the steps since the last line of metrics.jsonl.
    """

    epoch: int = 0
    step: int = 0
    sums: Mapping = MappingProxyType({})
    window: Mapping = MappingProxyType({})
    seconds: float = 0.0


def train(config, workdir, clock=None, on_epoch=None) -> dict:
    """Trains the run of a config in its workdir, or resumes the one that is there.

    clock: a `timing.Clock` started with the command; None: start-up is timed from here. on_epoch: called with each
    epoch's number and scores, as in `history.csv`, after the epoch is saved; an exception in it ends the training.

    Returns:
      the scores of the best epoch, as in `history.csv`.

    Raises:
      InputError: bad input, before training starts where that can be known; a non-finite loss; a full disk; another
        process that trains in the workdir.
      interrupts.Stopped: Ctrl-C or SIGTERM, after the running step was saved.
    """
    text = f"stopped; nothing new is saved in {workdir}"
    with (
        workdir_lib.lock(workdir),
        interrupts.stop(text) as stop,
        contextlib.closing(checkpoint.Checkpoints(workdir)) as ckpt,
    ):
        try:
            return _train(config, ckpt, clock or timing.Clock(), on_epoch, stop)
        except OSError as error:
            if not tells_full_disk(error):
                raise
            raise InputError(
                f"no space left on the disk for the records of {workdir}: make room, then rerun the same "
                "command to resume from the last checkpoint"
            ) from error


def _train(config, ckpt, clock, on_epoch, stop):
    workdir = ckpt.workdir
    resumed = None if ckpt.step("latest") is None else workdir_lib.read_provenance(workdir)
    run = run_lib.build(members.resolve(config, workdir), resumed=resumed, mark=clock.mark)
    if run.config.model.members and resumed is None:
        run = members.with_weights(run)
    if run.config.loss.teacher:
        run = distillation.with_teacher(run, resumed)
    run_lib.describe(run)
    checkpoint.check_space(workdir, run.state_bytes())
    last = {} if resumed is None else ckpt.meta("latest")
    workdir_lib.open_run(run.config, workdir, run.data, run.weights, last, teacher=run.teacher)
    state, rules, first, position = restore_or_init(run, ckpt)
    run = dataclasses.replace(run, weights=None)  # they are on the devices
    clock.mark("state")
    began = position
    with contextlib.closing(writer_lib.Writer(run, workdir, position, rules.best.epoch)) as writer:
        clock.mark("writers")  # a tracker's library and server can take seconds
        for phase in run.phases[first:]:
            if stop.asks():
                stop.end(f"stopped before epoch {phase.first_epoch}; rerun the same command to resume ({workdir})")
            if phase is not run.phases[first]:
                state, position = start_phase(run, phase, state, rules)
            if position.epoch >= phase.last_epoch or rules.stop:
                continue
            saver = Saver(run, phase, rules, ckpt, stop)
            inputs, forward = wiring.make_inputs(run, phase, state)
            clock.mark("features")
            with contextlib.closing(wiring.make_feeder(run, inputs["train"])) as feeder:
                train_steps = wiring.make_train_steps(run, phase, feeder, forward)
                constants = wiring.make_constants(run, feeder)
                evaluate = wiring.make_evaluate(run, phase, inputs["validation"], forward)
                while position.epoch < phase.last_epoch and not rules.stop:
                    state, means, speed = train_epoch(
                        run,
                        state,
                        position,
                        feeder,
                        train_steps,
                        constants=constants,
                        writer=writer,
                        saver=saver,
                        clock=clock,
                    )
                    stop.defer()
                    trained = Position(position.epoch, int(state.step), writer.sums, seconds=writer.seconds)
                    scores = evaluate(state, functools.partial(saver.stop_if_asked, state, trained))
                    position = Position(trained.epoch + 1, trained.step)
                    rate = float(phase.lr_fn(position.step - 1 - phase.first_step)) * rules.lr_scale
                    improved = rules.update(position.epoch, scores)
                    state = state.replace(lr_scale=wiring.put(run, np.asarray(rules.lr_scale, np.float32)))
                    writer.epoch(position, {**means, "learning_rate": rate, **speed, **scores}, improved)
                    state = saver.save_epoch(state, position, scores, improved)
                    if on_epoch:
                        on_epoch(position.epoch, writer.history[-1])
    return writer.end(rules, position, trained=position != began)


def train_epoch(run, state, position, feeder, train_steps, *, constants, writer, saver, clock):
    """Runs the remaining steps of an epoch; returns (state, the means over its faces, its speed)."""
    start, stop = run.steps_of(position.epoch + 1, position.step)
    saved, waited, pending = start, feeder.wait_seconds, None
    writer.start_epoch(position, start)
    for chunk in feeder.chunks(start, stop):
        clock.mark("input")
        state, sums = train_steps(state, constants, chunk)  # asynchronous
        saver.stop.defer()
        if clock.running:
            writer.first_step(position.epoch + 1, clock.end(sums), train_steps.program)
        writer.profiler.after(chunk, sums)
        if pending:
            writer.step(*pending)  # fetched while the next chunk runs
        pending = chunk.step, sums
        if run.saves_after(chunk.step, saved) or (run.may_stop_after(chunk) and saver.stop.asks()):
            writer.step(*pending)
            here = Position(position.epoch, chunk.step, writer.sums, writer.window, writer.seconds)
            saver.stop_if_asked(state, here)
            saver.save(state, here)
            saved, pending = chunk.step, None
    if pending:
        writer.step(*pending)
    return state, *writer.end_epoch(feeder.wait_seconds - waited)


def restore_or_init(run, ckpt):
    """Returns (state, rules, number of the phase, position): of the latest checkpoint, or of a new run."""
    rules = patience.Rules(run.config.train, run.config.optim.plateau, run.phases[0].learning_rate)
    if ckpt.step("latest") is None:
        return wiring.init_state(run, run.phases[0]), rules, 0, Position()
    state, meta = ckpt.restore_state(lambda meta: run.phases[freezing.phase_of(run.phases, meta)].abstract)
    ckpt.discard_after(int(state.step))
    number = freezing.phase_of(run.phases, meta)
    rules.start_phase(run.phases[number].learning_rate)
    rules.restore(meta)
    position = Position(
        meta["epoch"], int(state.step), meta.get("sums", {}), meta.get("window", {}), meta.get("seconds", 0.0)
    )
    logger.info("resuming from step %d, epoch %d, in %s", position.step, position.epoch, ckpt.workdir)
    return state, rules, number, position


def start_phase(run, phase, state, rules):
    """Starts a later phase with a new optimizer for its trained parameters, and with reset rules."""
    rules.start_phase(phase.learning_rate)
    init = jax.jit(functools.partial(steps.init_optimizer, phase), out_shardings=phase.shardings.opt_state)
    state = averaging.restart(phase, state)
    state = state.replace(
        step=wiring.put(run, np.asarray(phase.first_step, np.int32)),
        opt_state=init(state.params),
        lr_scale=wiring.put(run, np.ones([], np.float32)),
    )
    logger.info(
        "fine-tuning from epoch %d on; frozen: %s", phase.first_epoch, wording.count(len(phase.frozen), "layer")
    )
    return state, Position(phase.first_epoch - 1, phase.first_step)


class Saver(NamedTuple):
    """Saves the states of a phase, with what a run needs to resume."""

    run: run_lib.Run
    phase: freezing.Phase
    rules: patience.Rules
    ckpt: checkpoint.Checkpoints
    stop: interrupts.Stop

    def stop_if_asked(self, state, position) -> None:
        """After a signal, saves the state and raises `interrupts.Stopped`."""
        if not (self.stop.agreed or self.stop.asks()):
            return
        self.save(state, position)
        self.stop.end(
            f"stopped at step {position.step}, in epoch {position.epoch + 1}, and saved in {self.ckpt.workdir}: "
            "rerun the same command to resume"
        )

    def save(self, state, position, **said) -> None:
        """Saves a state as the latest; said: further JSON-able values to save with it."""
        self.ckpt.save_state(state, {**self._meta(position), **said})
        self.stop.text = (
            f"stopped at once; rerun the same command to resume from the last checkpoint in {self.ckpt.workdir}"
        )

    def save_epoch(self, state, position, scores, improved):
        """Saves an epoch if due; returns the state, with the best variables at the end of a phase."""
        settings = self.run.config.train
        ends = self.rules.stop or position.epoch == self.phase.last_epoch
        said = {"scores": scores}
        if improved:
            self.ckpt.save("best", position.step, state.kept, {**self._meta(position), **said})
        elif ends and settings.early_stopping.restore_best and settings.early_stopping.patience_epochs:
            self.ckpt.wait()
            variables, best = self.ckpt.restore("best", self.phase.abstract.kept)
            state = state.replace(**variables)
            said = {"variables_epoch": best["epoch"], "scores": best["scores"]}
            logger.info("restored the best variables, of epoch %d", best["epoch"])
        if improved or ends or position.epoch % settings.checkpoint_every_epochs == 0:
            self.save(state, position, **said)
        return state

    def _meta(self, position):
        return {
            "epoch": position.epoch,
            "phase": self.run.phases.index(self.phase),
            "classes": list(self.run.data.classes),
            "sums": dict(position.sums),
            "window": dict(position.window),
            "seconds": position.seconds,
            **self.rules.state(),
        }
