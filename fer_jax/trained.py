"""A trained model out of its workdir: what evaluation, prediction and export start from."""

import dataclasses
import logging
import pathlib

import jax

from fer_jax import checkpoint, models, optim, records, steps
from fer_jax import config as config_lib
from fer_jax import input as input_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError

CHECKPOINTS = ("best", "latest")
logger = logging.getLogger("fer_jax")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its variables, and the names that its outputs stand for.

    meta: what was saved with the checkpoint, `epoch`, `step` and `scores` among it; run: the facts in run.json.
    """

    config: object
    model: object
    variables: dict
    classes: tuple[str, ...]
    meta: dict
    run: dict


def load(workdir, kind: str = "best") -> Trained:
    """Loads a checkpoint of a run, 'best' or 'latest', onto all devices.

    Raises:
      InputError: the workdir holds no run or no checkpoint, or what it holds is damaged.
    """
    if kind not in CHECKPOINTS:
        raise InputError(f"there is no checkpoint '{kind}'; known are {', '.join(CHECKPOINTS)}")
    workdir = pathlib.Path(workdir)
    mend = "give the workdir of a run, as fer_jax.main names it at its end"
    config = config_lib.from_dict(records.read_json(workdir / "config.json", what="config of a run", mend=mend))
    run = records.read_json(workdir / "run.json", what="record of the run", mend=mend)
    checkpoints = checkpoint.Checkpoints(workdir)
    classes = tuple(checkpoints.meta(kind)["classes"])
    model = models.make(config.model, len(classes))
    # The optimizer's state has the same shape for every length of training.
    tx, _ = optim.make(config.optim, steps_per_epoch=1000, epochs=config.train.epochs)
    like = steps.abstract_state(model, tx, facts.IMAGE_SHAPE, steps.make_shardings()[1])
    restored, meta = checkpoints.restore(kind, like.variables if kind == "best" else like)
    variables = restored if kind == "best" else restored.variables
    meta = {**meta, "step": checkpoints.step(kind), "checkpoint": kind}
    checkpoints.close()
    logger.info("model: %s, %s checkpoint of epoch %d in %s", config.model.name, kind, meta["epoch"], workdir)
    return Trained(config, model, variables, classes, meta, run)


def predict(trained: Trained, faces, batch_size: int = 256):
    """Returns (sums, probs [N, K] float32) of faces with labels in the order of `trained.classes`."""
    sharded, replicated = steps.make_shardings()
    batch_size += -batch_size % jax.device_count()
    evaluate = steps.make_evaluate(trained.model, classes=len(trained.classes), replicated=replicated)
    return evaluate(trained.variables, input_lib.padded_batches(faces, batch_size, sharded))
