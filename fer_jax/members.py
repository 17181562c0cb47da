"""Trained runs that answer as one: loaded together and checked against each other."""

import pathlib
from typing import NamedTuple

import numpy as np

from fer_jax import records, trained
from fer_jax.errors import InputError

SAME = ("split", "split_seed", "classes")  # fields of `data` that members must share
RECORD = "ensemble.json"


def load(workdirs, kind: str = "best") -> list[trained.Trained]:
    """Loads a checkpoint of every member.

    Raises:
      InputError: fewer than two members, a member without a checkpoint, or members with other classes or splits.
    """
    if len(workdirs) < 2:
        raise InputError("an ensemble has two members or more: give the workdirs of several runs")
    models = [trained.load(workdir, kind) for workdir in workdirs]
    for workdir, model in zip(workdirs[1:], models[1:], strict=True):
        _check_same(workdir, _faces_of(model), workdirs[0], _faces_of(models[0]))
    return models


class _Faces(NamedTuple):
    """What a run was trained on: its classes, the config's section `data`, and the fingerprint of the data."""

    classes: tuple[str, ...]
    data: object
    fingerprint: str


def _faces_of(model):
    return _Faces(model.classes, model.config.data, model.run["data_fingerprint"])


def _check_same(name, mine, other, theirs):
    """Refuses a member that knows other classes, or may have been trained on faces that others are tested on."""
    if set(mine.classes) != set(theirs.classes):
        raise InputError(
            f"{name} knows {', '.join(mine.classes)}, and {other} {', '.join(theirs.classes)}: members of an ensemble "
            "need the same classes"
        )
    fields = [[faces.data[field] for field in SAME] for faces in (mine, theirs)]
    if fields[0] != fields[1] or mine.fingerprint != theirs.fingerprint:
        raise InputError(
            f"{name} was trained on another split of the faces than {other}, so it may know faces of the test: "
            f"{', '.join(f'data.{field}' for field in SAME)} and the data's fingerprint must be the same"
        )


def predict(models, faces) -> np.ndarray:
    """Returns the probabilities of every member, [M, N, K] float32, in the order of the first one's classes."""
    found = []
    for model in models:
        _, probs = trained.predict(model, faces)
        found.append(np.asarray(probs)[:, [model.classes.index(name) for name in models[0].classes]])
    return np.stack(found)


def read_record(folder) -> dict | None:
    """Returns what `fer_jax.ensemble` wrote of the members and their weights; None where the folder is no ensemble's.

    Raises:
      InputError: a record that cannot be read.
    """
    folder = pathlib.Path(folder)
    if (folder / "config.json").exists() or not (folder / RECORD).exists():
        return None
    return records.read_json(folder / RECORD, what="record of an ensemble", mend="run fer_jax.ensemble again")
