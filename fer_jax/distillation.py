"""Distillation: a trained run, or an ensemble of some, answers for every training face, and its answers are learned."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fer_jax import feature_cache, members
from fer_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A teacher whose variables are given to each step, so that neither the program nor a checkpoint holds them.

    variables: a tree of arrays. logits_fn: (variables, images uint8 [B, H, W, C]) -> the logarithm of its mean
    probabilities [B, K] float32, in the order of the student's classes. facts: of run.json.
    """

    variables: object
    logits_fn: Callable
    facts: tuple[dict, ...]


def load(workdirs, run) -> Teacher:
    """Loads the teacher of a run, a `run.Run`, from the workdirs of runs or the folder of an ensemble.

    Raises:
      InputError: no trained run there, other classes than the student's, faces of another size, or another split, so
        that it may have been trained on faces that the student is tested on.
    """
    models, weights = [], []
    for workdir in workdirs:
        some, shares, _ = members.load_any(pathlib.Path(workdir).expanduser())
        for model in some:
            members.check_as_this_run(workdir, model, run)
            if model.image_shape != run.data.image_shape:
                raise InputError(
                    f"loss.teacher: {workdir} was trained on faces of {model.image_shape}, and this run's are "
                    f"{run.data.image_shape} (height, width, channels)"
                )
        models += some
        weights += [share / len(workdirs) / sum(shares) for share in shares]
    orders = [jnp.array([model.classes.index(name) for name in run.data.classes]) for model in models]

    def logits_fn(variables, images):
        probs = 0.0
        for model, order, weight, one in zip(models, orders, weights, variables, strict=True):
            probs += weight * jax.nn.softmax(model.model.apply(one, images, train=False)[:, order].astype(jnp.float32))
        return jax.lax.stop_gradient(jnp.log(jnp.maximum(probs, jnp.finfo(jnp.float32).tiny)))

    facts = [
        {"epoch": model.meta["epoch"], "digest": feature_cache.digest(model.variables), "weight": weight}
        for model, weight in zip(models, weights, strict=True)
    ]
    return Teacher(tuple(model.variables for model in models), logits_fn, tuple(facts))


def with_teacher(run, resumed: dict | None):
    """Returns a `run.Run` with the teacher of its config; resumed: the provenance in run.json where the run resumes.

    Raises:
      InputError: as `load` does, or a teacher that has changed since the run began.
    """
    teacher = load(run.config.loss.teacher, run)
    before = (resumed or {}).get("teacher")
    if before and [one["digest"] for one in teacher.facts] != [one["digest"] for one in before]:
        raise InputError(
            "the checkpoints of loss.teacher have changed since this run began: restore them, or give another --workdir"
        )
    return dataclasses.replace(run, teacher=teacher)
