"""Runs a row: trains it, scores it and, for a whole run, writes its run file.

A whole run is scored on validation and, once, on test; a smoke run is short, is scored on validation only, and writes
no run file.
"""

import dataclasses
import json
import pathlib
import sys

import runfiles
import running
import systems

from fer_jax import config as config_lib
from fer_jax import space
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

SEEDS_AGAIN = 2  # other seeds of a search's first and best trial
HERE = pathlib.Path(__file__).resolve().parent


def add(name: str, seed: int, options) -> dict | None:
    """Runs a row with a seed; writes and returns the record of a whole run, and returns None for a smoke run.

    Raises:
      InputError: a command failed, or an ensemble's members are missing.
    """
    row = systems.ROWS[name]
    print(f"== {row.report}: {row.system}, seed {seed}, {options.budget}", flush=True)
    running.make_way(name, seed, options)
    record = KINDS[row.kind](name, row, seed, options)
    if record:
        print(f"recorded: {runfiles.write(options.out, record)}", flush=True)
    return record


def collect(name: str, seed: int, options) -> dict:
    """Returns the record of a finished whole run from its workdir."""
    return COLLECTORS[systems.ROWS[name].kind](name, seed, options)


def train(name, row, seed, options):
    """Trains a row to its end and scores it."""
    path = running.workdir(name, seed, options)
    running.run_config("main", row, seed, options, "--workdir", path)
    running.score(path, options, running.evaluate(path, options))
    return COLLECTORS[row.kind](name, seed, options) if options.budget == "whole" else None


def train_mlp(name, row, seed, options):
    """Trains scikit-learn's classifier."""
    flags = {"seed": seed, **row.fields}
    flags |= {"epochs": 2, "train_faces": running.SMOKE["data.train_faces"]} if options.budget == "smoke" else {}
    path = running.workdir(name, seed, options)

    def make(split):
        del split  # the command writes all splits
        line = [sys.executable, str(HERE / "mlp.py"), "--data_path", options.data_path, "--workdir", str(path)]
        running.run(line + [f"--{flag}={value}" for flag, value in flags.items()], options)

    running.score(path, options, make)
    return _collect_mlp(name, seed, options) if options.budget == "whole" else None


def train_average(name, row, seed, options):
    """Trains the average of its members further, as one network, and scores it."""
    paths = [running.workdir(member, number, options) for member, number in _members(row, options)]
    joined = dataclasses.replace(row, fields={**row.fields, "model.members": tuple(map(str, paths))})
    return train(name, joined, seed, options)


def mix(name, row, seed, options):
    """Scores an ensemble of its members' probabilities."""
    paths = [running.workdir(member, number, options) for member, number in _members(row, options)]
    out = running.workdir(name, seed, options)
    expected = [(str(path), running.epoch_of(path)) for path in paths]

    def make(split):
        running.run_module("ensemble", options, "--workdir", *paths, "--out", out, "--split", split)

    def fits(scores):
        return [(member["workdir"], member["epoch"]) for member in scores["members"]] == expected

    running.score(out, options, make, fits=fits)
    return _collect_ensemble(name, seed, options) if options.budget == "whole" else None


def _members(row, options):
    """Returns the members of a row, (name, seed) each; a smoke run trains the missing ones.

    Raises:
      InputError: a member of a whole run is missing, or of an earlier version of its row.
    """
    members = systems.members(row)
    if options.budget == "smoke":
        members = members[:2] if len(row.members) == 1 else members
        for member, seed in members:
            if not running.has_ended(member, seed, options) or running.outdated(member, seed, options):
                with running.lock(member, seed, options) as is_ours:
                    if not is_ours:
                        raise InputError(f"another queue is running its member {member}: run this row later")
                    add(member, seed, options)
    missing = [f"{member} (seed {seed})" for member, seed in members if not running.has_ended(member, seed, options)]
    if missing:
        raise InputError(f"members that are not in {options.runs}: {', '.join(missing)}; run them first")
    for member, seed in members:
        if why := running.outdated(member, seed, options):
            path = running.workdir(member, seed, options)
            raise InputError(f"{path} is of an earlier version of its row ({'; '.join(why)}); run {member} again first")
    return members


def explore(name, row, seed, options):
    """Searches, and scores the best trial; the first and the best trial are retrained with other seeds.

    The best of many trials is partly best by chance, which new seeds remove. A search uses the validation split only.
    """
    path = running.workdir(name, seed, options)
    trials = row.trials if options.budget == "whole" else running.SMOKE_TRIALS
    given = running.run_config("search", row, seed, options, "--workdir", path, "--trials", trials)
    found = json.loads((path / "search.json").read_text())
    best = path / found["best"]["workdir"]
    running.score(best, options, running.evaluate(best, options), splits=("validation",))
    if options.budget == "smoke":
        return None
    _train_again(row, given, {"start": _first(found), "best": found["best"]}, path, options)
    return _collect_search(name, seed, options)


def _train_again(row, given, trials, folder, options):
    """Retrains trials {name: trial} with other seeds, and scores them on validation."""
    config = systems.get_config(row)
    config.update_from_flattened_dict(given)
    before = config_lib.flat(config_lib.to_dict(config))
    for name, trial in trials.items():
        filled = config_lib.flat(config_lib.to_dict(space.fill(config, trial["params"])))
        fields = {**given, **{key: value for key, value in filled.items() if value != before[key]}}
        for seed in range(given["seed"] + 1, given["seed"] + 1 + SEEDS_AGAIN):
            path = folder / name / f"seed{seed}"
            running.run_fields("main", row, {**fields, "seed": seed}, options, "--workdir", path)
            running.score(path, options, running.evaluate(path, options), splits=("validation",))


KINDS = {"train": train, "average": train_average, "mlp": train_mlp, "ensemble": mix, "search": explore}


def _collect_training(name, seed, options):
    path = running.workdir(name, seed, options)
    return runfiles.collect(name, seed, path, config=json.loads((path / "config.json").read_text()))


def _collect_average(name, seed, options):
    config = json.loads((running.workdir(name, seed, options) / "config.json").read_text())
    # The record names the members by row and seed; their folders and networks would be redundant.
    config["model"] = {key: value for key, value in config["model"].items() if key not in ("members", "member_models")}
    members = [
        {"row": member, "seed": number, "epoch": running.epoch_of(running.workdir(member, number, options))}
        for member, number in systems.members(systems.ROWS[name])
    ]
    return runfiles.collect(name, seed, running.workdir(name, seed, options), config=config, members=members)


def _collect_mlp(name, seed, options):
    return runfiles.collect(name, seed, running.workdir(name, seed, options))


def _collect_ensemble(name, seed, options):
    path = running.workdir(name, seed, options)
    scored = json.loads((path / "evaluation-validation.json").read_text())["members"]
    members = [
        {"row": member, "seed": number, "epoch": found["epoch"], "weight": found["weight"]}
        for (member, number), found in zip(systems.members(systems.ROWS[name]), scored, strict=True)
    ]
    return runfiles.collect(name, seed, path, members=members)


def _collect_search(name, seed, options):
    folder = running.workdir(name, seed, options)
    found = json.loads((folder / "search.json").read_text())
    finished = [trial for trial in found["trials"] if trial["state"] in ("complete", "pruned")]
    seconds = [
        epoch["seconds"]
        for path in {t["workdir"] for t in finished}
        for epoch in workdir_lib.read_history(folder / path)
    ]
    start, again = _first(found), {}
    for which in ("start", "best"):
        paths = sorted(folder.glob(f"{which}/seed*/evaluation-validation.json"))
        again[which] = [json.loads(path.read_text())["accuracy"] for path in paths]
    extra = {
        "config": found["config"],
        "trials": len(finished),
        "cut_off": sum(trial["state"] == "pruned" for trial in finished),
        "start": {"params": start["params"], "value": start["value"]},
        "best": {"params": found["best"]["params"], "value": found["best"]["value"]},
        "again": again,
    }
    return runfiles.collect(name, seed, folder / found["best"]["workdir"], **extra) | {"seconds": sum(seconds)}


COLLECTORS = {
    "train": _collect_training,
    "average": _collect_average,
    "mlp": _collect_mlp,
    "ensemble": _collect_ensemble,
    "search": _collect_search,
}


def _first(found):
    """Returns the first trial; if it was interrupted, it was resumed under another number."""
    first = found["trials"][0]
    finished = [trial for trial in found["trials"] if trial["state"] in ("complete", "pruned")]
    return next((trial for trial in finished if trial["params"] == first["params"]), first)
