"""Members of ensembles: trained runs, loaded together, checked against each other, or joined in one network.

An ensemble averages the predictions of its members; the network `average` contains its members and is trained further.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from fer_jax import command, feature_cache, inference, pretrained
from fer_jax import config as config_lib
from fer_jax import params as params_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

SAME = ("labels", "split", "split_seed", "classes")  # fields of `data` that members must share
FIELDS = ("name", "members", "member_models")  # fields of `model` that an average uses; the others are its members'
RECORD = "ensemble.json"


def load(workdirs, kind: str = "best") -> list[inference.Trained]:
    """Loads a checkpoint of every member.

    Raises:
      InputError: fewer than two members, a member without a checkpoint, or members with other classes or splits.
    """
    if len(workdirs) < 2:
        raise InputError("an ensemble needs two or more members: give the workdirs of several runs")
    models = [inference.load(workdir, kind) for workdir in workdirs]
    for workdir, model in zip(workdirs[1:], models[1:], strict=True):
        _check_same(workdir, _faces_of(model), workdirs[0], _faces_of(models[0]))
    return models


class _Faces(NamedTuple):
    """The data that a run was trained on: its classes, the config's section `data`, and the data's fingerprint."""

    classes: tuple[str, ...]
    data: object
    fingerprint: str


def _faces_of(model):
    return _Faces(model.classes, model.config.data, model.run["data_fingerprint"])


def _check_same(name, mine, other, theirs):
    """Rejects a member with other classes, or that may have been trained on faces in the test split of others."""
    if set(mine.classes) != set(theirs.classes):
        raise InputError(
            f"{name} has the classes {', '.join(mine.classes)}, but {other} {', '.join(theirs.classes)}: members of an "
            "ensemble need the same classes"
        )
    fields = [[faces.data[field] for field in SAME] for faces in (mine, theirs)]
    if fields[0] != fields[1] or mine.fingerprint != theirs.fingerprint:
        raise InputError(
            f"{name} was trained on another split of the faces than {other}, so it may have seen faces of the test "
            f"split: {', '.join(f'data.{field}' for field in SAME)} and the data's fingerprint must be the same"
        )


def check_as_this_run(workdir, model, run) -> None:
    """Rejects a trained model with other classes or another split than a `run.Run`."""
    _check_same(workdir, _faces_of(model), "this run", _Faces(run.data.classes, run.config.data, run.data.fingerprint))


def predict(models, faces, views: str = "none") -> np.ndarray:
    """Returns the probabilities of every member, [M, N, K] float32, in the order of the first member's classes.

    views: as in `inference.predict`.
    """
    found = []
    for model in models:
        _, probs = inference.predict(model, faces, views=views)
        found.append(np.asarray(probs)[:, [model.classes.index(name) for name in models[0].classes]])
    return np.stack(found)


def read_record(folder) -> dict | None:
    """Returns the record of members and weights written by `fer_jax.ensemble`; None if the folder has none.

    Raises:
      InputError: the record cannot be read.
    """
    folder = pathlib.Path(folder)
    if (folder / "config.json").exists() or not (folder / RECORD).exists():
        return None
    return workdir_lib.read_json(
        folder / RECORD, what="record of an ensemble", fix=f"run {command.program('ensemble')} again"
    )


def load_any(workdir, checkpoint: str | None = None) -> tuple[list[inference.Trained], list[float], dict]:
    """Returns (models, weights, record) of an ensemble's folder, or of a single run, whose record is {}.

    checkpoint: None: the best, or those of the record.

    Raises:
      InputError: as `load` and `inference.load`; a member that was trained further after the ensemble was scored.
    """
    record = read_record(workdir)
    if record is None:
        return [inference.load(workdir, checkpoint or "best")], [1.0], {}
    if checkpoint not in (None, record["checkpoint"]):
        raise InputError(
            f"the ensemble in {workdir} was scored with the {record['checkpoint']} checkpoints: omit --checkpoint, or "
            f"score it again with {command.program('ensemble')} --checkpoint {checkpoint}"
        )
    models = load([member["workdir"] for member in record["members"]], record["checkpoint"])
    for member, model in zip(record["members"], models, strict=True):
        if model.meta["epoch"] != member["epoch"]:
            raise InputError(
                f"{member['workdir']} has a checkpoint of epoch {model.meta['epoch']}, but the ensemble in {workdir} "
                f"was scored with that of epoch {member['epoch']}: run {command.program('ensemble')} again"
            )
    return models, [member["weight"] for member in record["members"]], record


def resolve(config, workdir):
    """Returns the config of a run with its members' models filled in; unchanged if it has no members.

    The models are those recorded in the workdir, since members may have been deleted, else those of the members.

    Raises:
      InputError: a member without a config, fewer than two members, a duplicate, or incompatible fields.
    """
    section = config.model
    if section.name != "average":
        if section.members:
            raise InputError(f"model.members is for model.name 'average', not '{section.name}': drop one of them")
        return config
    default = config_lib.get_default().model
    given = [name for name in default if name not in FIELDS and section[name] != default[name]]
    if given:
        raise InputError(
            f"model.{given[0]} is {section[given[0]]!r}, but the members of an average keep their own settings: omit it"
        )
    paths = _paths(section)
    if len(set(paths)) < max(2, len(paths)):
        raise InputError(
            f"model.members is {section.members!r}: give the workdirs of two or more trained runs, each once"
        )
    saved = inference.read_config(workdir).model if (pathlib.Path(workdir) / "config.json").exists() else None
    config = config.copy_and_resolve_references()
    if saved is not None and saved.members == section.members:
        config.model.member_models = saved.member_models
    else:
        config.model.member_models = tuple(config_lib.to_dict(inference.read_config(path))["model"] for path in paths)
    return config


def _paths(section):
    return [pathlib.Path(path).expanduser() for path in section.members]


def with_weights(run):
    """Returns a `run.Run` whose average starts from the best variables of its members.

    Raises:
      InputError: a member without a checkpoint, or whose classes, split or network differ from the run's.
    """
    paths = _paths(run.config.model)
    models = load(paths)
    variables, facts = {"params": {}, "batch_stats": {}}, []
    for number, (workdir, model) in enumerate(zip(paths, models, strict=True)):
        check_as_this_run(workdir, model, run)
        for kind, tree in jax.device_get(model.variables).items():
            variables[kind] |= {f"members_{number}": tree} if tree else {}
        facts.append(_facts(workdir, model))
    _check_fits(paths, variables, run.phases[0].abstract.variables)
    loaded = tuple(leaf for tree in variables.values() for leaf in _shapes(tree))
    weights = pretrained.Merge(**variables, loaded=loaded, new=(), refused={}, facts={"members": facts})
    return dataclasses.replace(run, weights=weights)


def _facts(workdir, model):
    return {
        "workdir": str(workdir),
        "epoch": model.meta["epoch"],
        "step": model.meta["step"],
        "seed": model.config.seed,
        "commit": model.run["commit"],
        "digest": feature_cache.digest(model.variables),
    }


def _check_fits(workdirs, variables, like):
    """Rejects members whose variables differ in name or shape from those that the average expects."""
    for number, workdir in enumerate(workdirs):
        ours, theirs = (
            {kind: _shapes(tree[kind].get(f"members_{number}", {})) for kind in variables} for tree in (like, variables)
        )
        if ours != theirs:
            different = sorted(
                leaf
                for kind in variables
                for leaf in ours[kind].keys() | theirs[kind].keys()
                if ours[kind].get(leaf) != theirs[kind].get(leaf)
            )
            raise InputError(
                f"{workdir} has another network than the one that this run started with: {', '.join(different[:3])} "
                f"{'and others differ' if len(different) > 3 else 'differ'}; give another --workdir"
            )


def _shapes(tree):
    """Returns {path of a leaf: its shape}."""
    return {
        f"{path}/{name}": tuple(leaf.shape)
        for path, leaves in params_lib.layers(tree).items()
        for name, leaf in leaves.items()
    }
