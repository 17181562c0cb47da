"""Run files: the records of finished runs, runs/<row>-<seed>.json. All tables and figures are made from them.

A file has the config, the machine and versions, the scores of every scored split with confusion matrix and predictions,
and the curves. A field that was not recorded is null; `converted_from` names the source of a file converted from an
earlier layout.
"""

import base64
import hashlib
import json
import pathlib
import zlib

import numpy as np
import systems

from fer_jax import config as config_lib
from fer_jax import patience
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts
from fer_jax.errors import InputError

FOLDER = pathlib.Path(__file__).resolve().parent / "runs"
FAULTY_JAXLIB = "0.10.2"  # https://github.com/jax-ml/jax/issues/39103
SPLITS = ("validation", "test")
FACTS = (
    *("time", "commit", "device", "platform", "cpu_path", "python", "packages"),
    *("data_name", "data_fingerprint", "synthetic"),
    "runs_at_once",  # if the device was shared, which makes the seconds longer
)
SCORES = (
    *("n", "accuracy", "accuracy_interval_95", "bootstrap_interval_95", "macro_f1", "weighted_f1", "loss"),
    *("mean_squared_error", "mean_squared_error_hard", "calibration_error", "per_class", "confusion", "classes"),
    "faces_digest",  # of the scored pictures; evaluations of earlier versions have none
)
CURVES = ("epoch", "train_loss", "train_accuracy", *patience.MONITORS)
# Fields on how a run is computed, not what, in addition to those listed by the config; `seed` is recorded separately.
FIELDS_WITHOUT_EFFECT = (
    *("seed", "data.name", "data.feeder", "model.cpu_path", "train.steps_per_dispatch", "train.rematerialize"),
    *("train.cache_features", "train.checkpoint_every_epochs", "model.members", "model.member_models"),
)


def path_of(folder, name: str, seed: int) -> pathlib.Path:
    """Returns the file of a row and a seed."""
    return pathlib.Path(folder) / f"{name}-{seed}.json"


def collect(name: str, seed: int, workdir, **extra) -> dict:
    """Returns the record of a finished run from its workdir.

    extra: fields of other kinds of rows, such as an ensemble's `members`.

    Raises:
      InputError: the run is not finished, was not scored on every split, or has another config than the row.
    """
    row, workdir = systems.ROWS[name], pathlib.Path(workdir)
    scores = {split: _read_scores(workdir, split, scored=row.kind != "search") for split in SPLITS}
    scores = {split: found for split, found in scores.items() if found}
    first = scores["validation"]
    # Records of training; scikit-learn's runs and ensembles only have scores.
    run = (
        json.loads((workdir / "run.json").read_text()) if (workdir / "run.json").exists() else first | {"weights": None}
    )
    history = workdir_lib.read_history(workdir)
    config = extra.pop("config", first["config"])
    record = {
        "row": name,
        "seed": seed,
        "kind": row.kind,
        "config_name": row.config or None,
        "fields": row.fields,
        "config": config_lib.result_fields(config),
        **{fact: run.get(fact) for fact in FACTS},
        "weights": _without_folders(run.get("weights")),
        "parameters": first["parameters"],
        "trainable": first.get("trainable"),
        "epochs": len(history) or first.get("epoch"),
        "best_epoch": first.get("epoch"),
        "seconds": sum(epoch["seconds"] for epoch in history) or first.get("seconds_of_training"),
        "scores": {split: _keep(found, workdir, split) for split, found in scores.items()},
        "history": [{key: epoch[key] for key in CURVES if key in epoch} for epoch in history],
        **extra,
        "converted_from": None,
    }
    unlike = differences(record)
    if unlike:
        raise InputError(f"{workdir} is not a whole run of {name}: {'; '.join(unlike)}")
    if row.kind in ("train", "average"):
        _check_end(record, workdir)
    return record


def write(folder, record: dict) -> pathlib.Path:
    """Writes a record and returns its path."""
    path = path_of(folder, record["row"], record["seed"])
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir_lib.write_json(path, record)
    return path


def read(folder=FOLDER) -> dict:
    """Returns {row: records by seed} of all run files, in the order of the rows.

    Raises:
      InputError: a file cannot be read, or its row does not exist or has another name.
    """
    found = {name: [] for name in systems.ROWS}
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        record = workdir_lib.read_json(path, what="record of a run", fix="restore it from the repository or remove it")
        if record["row"] not in found or path.name != path_of(folder, record["row"], record["seed"]).name:
            raise InputError(f"{path}: there is no row '{record['row']}' of this name; rename the file with its row")
        found[record["row"]].append(record)
    return {name: sorted(runs, key=lambda one: one["seed"]) for name, runs in found.items() if runs}


def whole(found: dict) -> dict:
    """Filters the result of `read` for runs of the present version of their row; ensembles need such members too."""
    kept = {name: [record for record in runs if not differences(record)] for name, runs in found.items()}
    there = {(name, record["seed"]) for name, runs in kept.items() for record in runs}
    kept = {name: runs if set(systems.members(systems.ROWS[name])) <= there else [] for name, runs in kept.items()}
    return {name: runs for name, runs in kept.items() if runs}


def is_faulty(run: dict) -> bool:
    """Whether a run was computed with the jaxlib that can compute wrong sums on a CPU; scikit-learn's was not."""
    versions = run["packages"] or {}
    return run["kind"] != "mlp" and run["platform"] == "cpu" and versions.get("jaxlib") == FAULTY_JAXLIB


def done(found: dict) -> set[tuple[str, int]]:
    """Returns (row, seed) of the whole runs that need not be rerun; found: the result of `read`."""
    return {(name, run["seed"]) for name, runs in whole(found).items() for run in runs if not needs_rerun(run)}


def needs_rerun(run: dict) -> str:
    """Returns why a whole run must be rerun, or '': its sums can be wrong, or it lacks its predictions."""
    if is_faulty(run):
        return f"computed with jaxlib {FAULTY_JAXLIB}"
    lacking = [split for split, scores in run["scores"].items() if not scores.get("confusion")]
    return f"no confusion matrix of {' and '.join(lacking)}" if lacking else ""


def lacks(name: str, seed: int, found: dict) -> str:
    """Returns why a row and a seed are not done, or ''; found: the result of `read`."""
    if (name, seed) in done(found):
        return ""
    run = next((run for run in found.get(name, []) if run["seed"] == seed), None)
    if run is None:
        return "it is missing"
    return "; ".join(differences(run)) or needs_rerun(run) or "its members are not whole"


def differences(record: dict) -> list[str]:
    """Returns one line per field in which a record differs from the present version of its row.

    Fields missing from the record had their defaults; fields that the config no longer has do not count, nor does
    another early stopping that would have ended this run at the same epoch.
    """
    row = systems.ROWS[record["row"]]
    expected = systems.members(row)
    members = [(member["row"], member["seed"]) for member in record.get("members", ())]
    if record.get("synthetic") or record["data_fingerprint"] != facts.FINGERPRINT:
        kind = "drawn faces, " if record.get("synthetic") else ""
        return [f"data: {kind}{record['data_fingerprint']}, not FER-2013's {facts.FINGERPRINT}"]
    if members != expected:
        return [f"members: {members}, now {expected}"]
    if not row.config:
        return [] if record["fields"] == row.fields else [f"fields: {record['fields']}, now {row.fields}"]
    if record["config"] is None:
        return [f"config: not recorded, now {row.config}"]
    changed = config_differences(row, record["config"])
    if all(field.startswith("train.early_stopping.") for field in changed) and record.get("history"):
        config = config_lib.to_dict(systems.get_config(row))
        changed = changed if last_epoch(config, record["history"]) != record["history"][-1]["epoch"] else {}
    trials = record.get("trials", 0)
    fewer = [f"trials: {trials}, now {row.trials}"] if row.kind == "search" and trials < row.trials else []
    return [*changed.values(), *fewer]


def config_differences(row, saved: dict, shortened: dict | None = None) -> dict:
    """Returns {field: line} of the fields in which a saved config differs from the row's, as in `differences`.

    shortened: fields that a smoke run changes in the row.
    """
    now = systems.get_config(row)
    now.update_from_flattened_dict(shortened or {})
    default = config_lib.flat(config_lib.to_dict(config_lib.get_default()))
    config = config_lib.result_fields(config_lib.to_dict(now))
    then = default | config_lib.flat(saved)
    return {
        field: f"{field}: {then[field]!r}, now {value!r}"
        for field, value in config_lib.flat(config).items()
        if then[field] != value and _has_effect(field, row)
    }


def _has_effect(field, row):
    return field not in FIELDS_WITHOUT_EFFECT and (row.kind == "search" or not field.startswith("search."))


def last_epoch(config: dict, history: list[dict]) -> int:
    """Returns the epoch at which training ends by its config, given its scores: the last one, or an early stop."""
    train, phase_epochs = config["train"], config["optim"]["fine_tune"]["after_epochs"]
    stopping = train["early_stopping"]
    if phase_epochs and stopping["patience_epochs"]:
        return history[-1]["epoch"]  # the scores do not tell where the first phase ended
    monitor = stopping.get("monitor") or train["monitor"]
    rule = patience.EarlyStopping(monitor, stopping["patience_epochs"], stopping["min_delta"])
    for scores in history:
        rule.update(scores["epoch"], scores)
        if rule.stop:
            return scores["epoch"]
    return train["epochs"]


def pack(values) -> str:
    """Returns classes [N] of 0 to 255 as base64 of deflated bytes."""
    values = np.asarray(values)
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"classes must be 0 to 255; they are {values.min()} to {values.max()}")
    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 9)).decode()


def unpack(text: str) -> np.ndarray:
    """Inverts `pack`: returns the classes [N] as uint8."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def digest_faces(scores: dict, labels, split: str) -> str:
    """Returns a digest of the scored faces in order: of the data, the split, and the labels [N]."""
    data = scores["config"]["data"]
    what = [scores["data_fingerprint"], split, data["split"], data["split_seed"], list(data["classes"])]
    return "sha256:" + hashlib.sha256(json.dumps(what).encode() + np.uint8(labels).tobytes()).hexdigest()[:16]


def _read_scores(workdir, split, *, scored):
    path = workdir / f"evaluation-{split}.json"
    if not path.exists() and split == "test" and not scored:
        return None
    return workdir_lib.read_json(path, what="evaluation", fix="only finished and scored runs are collected")


def _keep(scores, workdir, split):
    kept = {key: scores[key] for key in SCORES if key in scores}
    with np.load(workdir / f"evaluation-{split}.npz") as found:
        labels, predicted = found["labels"], found["probs"].argmax(axis=1)
    kept["faces"] = digest_faces(scores, labels, split)
    return kept | {"labels": pack(labels), "predicted": pack(predicted)}


def _without_folders(weights):
    """Returns the facts of the weights that a run started from, a file's or those of an average's members."""
    kept = dict(weights or {})
    if "file" in kept:
        kept["file"] = pathlib.Path(kept["file"]).name
    if "members" in kept:
        kept["members"] = [{key: fact[key] for key in fact if key != "workdir"} for fact in kept["members"]]
    return kept or None


def _check_end(record, workdir):
    """Raises InputError if training has neither reached its last epoch nor stopped early."""
    expected = last_epoch(record["config"], record["history"])
    reached = record["history"][-1]["epoch"] if record["history"] else 0
    if reached != expected:
        raise InputError(f"{workdir} has reached epoch {reached} of {expected}: let it finish first")
