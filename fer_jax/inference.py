"""Loads trained models from workdirs, for evaluation, prediction and export."""

import dataclasses
import logging
import pathlib

import jax

from fer_jax import averaging, checkpoint, extensions, feeders, freezing, steps
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError
from fer_jax.runtime import timing

CHECKPOINTS = ("best", "latest")
FIX = "give the workdir of a run, which training prints at its end"
logger = logging.getLogger("fer_jax")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its variables and the class names of its outputs.

    image_shape: of the faces that it was trained on, (H, W, C); meta: the checkpoint's metadata, including `epoch`,
    `step` and `scores`; run: the facts in run.json; frozen: paths of the layers that were not trained in the
    checkpoint's epoch.
    """

    config: object
    model: object
    variables: dict
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    meta: dict
    run: dict
    frozen: frozenset[str]


def read_config(workdir):
    """Returns the config of the run in a workdir, with the present paths of the user's files.

    Raises:
      InputError: the config is missing or unreadable, or a user's file has changed and has no copy.
    """
    workdir = pathlib.Path(workdir)
    saved = workdir_lib.read_config(workdir, FIX)
    if extensions.names_in(saved):
        run = workdir_lib.read_provenance(workdir, FIX)
        saved = extensions.locate(saved, run.get("sources", {}), workdir)
    return config_lib.from_dict(saved)


def load(workdir, kind: str = "best", variables: str = "auto") -> Trained:
    """Loads a checkpoint of a run, 'best' or 'latest', onto all devices.

    variables: 'average', 'raw' (those of the last step), or 'auto': the average where training kept one.

    Raises:
      InputError: the workdir has no run, no checkpoint or no average, or it is corrupt.
    """
    if kind not in CHECKPOINTS:
        raise InputError(f"unknown checkpoint '{kind}'; known are {', '.join(CHECKPOINTS)}")
    workdir = pathlib.Path(workdir)
    config = read_config(workdir)
    run = workdir_lib.read_provenance(workdir, FIX)
    checkpoints = checkpoint.Checkpoints(workdir)
    classes = tuple(checkpoints.meta(kind)["classes"])
    image_shape = tuple(run.get("image_shape", facts.IMAGE_SHAPE))  # the only shape in earlier versions
    plans = freezing.make_plans(config, len(classes), image_shape=image_shape)
    averaged = variables != "raw" and averaging.make(plans[0]) is not None
    if variables == "average" and not averaged:
        raise InputError(f"{workdir} has no averaged variables: it was trained without train.ema_decay")

    def like(meta):
        plan = plans[freezing.phase_of(plans, meta)]
        abstract = steps.abstract_variables(plan.model, image_shape, steps.make_shardings()[1])
        return {"average": abstract} if averaged else abstract

    tree, meta = checkpoints.restore_variables(kind, like)
    plan = plans[freezing.phase_of(plans, meta)]
    # The latest state has the variables of an earlier epoch if early stopping restored them.
    epoch = meta.get("variables_epoch", meta["epoch"])
    meta = {**meta, "epoch": epoch, "checkpoint": kind, "averaged": averaged}
    checkpoints.close()
    logger.info("model: %s, %s checkpoint of epoch %d in %s", config.model.name, kind, meta["epoch"], workdir)
    found = {"params": {}, "batch_stats": {}} | (tree["average"] if averaged else tree)
    return Trained(config, plan.model, found, classes, image_shape, meta, run, plan.frozen)


def predict(trained: Trained, faces, batch_size: int = 256, views: str = "none"):
    """Returns (sums, probs [N, K] float32) for faces with labels in the order of `trained.classes`.

    views: of fer_jax.views, over which probabilities are averaged.
    """
    sharded, replicated = steps.make_shardings()
    batch_size += -batch_size % jax.device_count()
    evaluate = steps.make_evaluate(
        trained.model,
        classes=len(trained.classes),
        replicated=replicated,
        views=views,
    )
    batches = feeders.padded_batches(faces, batch_size, sharded)
    what = f"epoch {trained.meta['epoch']} of {trained.config.model.name}"
    batches = timing.watched(batches, f"predicting, {what}", faces=len(faces), batch_size=batch_size)
    return evaluate(trained.variables, batches)
