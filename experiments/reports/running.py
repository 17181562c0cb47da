"""Shared by all kinds of rows: workdirs, the commands that run in them, and the shortening of smoke runs."""

import contextlib
import json
import pathlib
import sys

import filelock
import processes
import runfiles
import systems

from fer_jax import config as config_lib
from fer_jax.errors import InputError

BUDGETS = ("whole", "smoke")
SMOKE = {"train.epochs": 1, "data.train_faces": 512, "train.batch_size": 32}
SMOKE_PX = 64
FEWEST_PX = {"inception_v3": 75}
SMOKE_VIEWED_FACES = 64  # each in 12 views
SMOKE_TRIALS = 2


def shortening(row, budget: str, weights: str = "imagenet") -> dict:
    """Returns the fields that a budget changes in a row, {name: value}; none for a whole run."""
    if budget == "whole":
        return {}
    config, fields = systems.get_config(row), dict(SMOKE)
    if config.model.size_px > SMOKE_PX:
        fields["model.size_px"] = FEWEST_PX.get(config.model.name, SMOKE_PX)
    if config.augment.fixed_views:
        fields["data.train_faces"] = SMOKE_VIEWED_FACES
    if weights == "random" and config.model.weights:
        fields["model.weights"] = ""
    flat = config_lib.flat(config_lib.to_dict(config))
    return {name: value for name, value in (fields | row.smoke).items() if flat[name] != value}


def run(line, options):
    """Runs a command of a row. Raises InputError if it fails; its messages are on stderr."""
    code = processes.run(line, cwd=systems.ROOT, pause=pause_file(options) if options.budget == "whole" else None)
    if code:
        raise InputError(f"'{' '.join(line[1:])}' failed: see its message above")


def run_module(module, options, *flags):
    """Runs a command of the project."""
    run([sys.executable, "-m", f"fer_jax.{module}", *map(str, flags)], options)


def run_config(module, row, seed, options, *flags):
    """Runs a row's config with a command; returns the fields that were set."""
    given = {**row.fields, **shortening(row, options.budget, options.weights)}
    given |= {"seed": seed, "data.feeder": options.feeder}
    run_fields(module, row, given, options, *flags)
    return given


def run_fields(module, row, given, options, *flags):
    """Runs a row's config with a command, with the given fields {name: value}."""
    fields = [f"--config.{field}={value}" for field, value in {**given, "data.path": options.data_path}.items()]
    run_module(module, options, "--config", f"configs/{row.config}", *fields, *flags)


def evaluate(path, options):
    """Returns the function that writes the scores of a run on a split."""
    return lambda split: run_module("evaluate", options, "--workdir", path, "--split", split)


def score(path, options, make, *, fits=None, splits=runfiles.SPLITS):
    """Scores a run on its splits, a smoke run on validation only.

    make(split) writes missing scores, and those that `fits` rejects: by default, those of an earlier checkpoint than
    the best one.
    """
    fits = fits or (lambda scores: _step(path) in (None, scores.get("step")))
    for split in splits if options.budget == "whole" else ("validation",):
        file = path / f"evaluation-{split}.json"
        if not file.exists() or not fits(json.loads(file.read_text())):
            make(split)


def workdir(name: str, seed: int, options) -> pathlib.Path:
    """Returns the folder of a row's run."""
    return pathlib.Path(options.runs) / options.budget / name / f"seed{seed}"


def pause_file(options) -> pathlib.Path:
    """Returns the file that pauses the queue while it exists."""
    return pathlib.Path(options.runs) / "PAUSE"


def has_ended(name: str, seed: int, options) -> bool:
    """Whether a run is finished and scored on all splits of its budget."""
    path = workdir(name, seed, options)
    if systems.ROWS[name].kind == "search":
        return (path / "search.json").exists()
    return (path / f"evaluation-{'test' if options.budget == 'whole' else 'validation'}.json").exists()


def outdated(name: str, seed: int, options) -> list[str]:
    """Returns why a workdir cannot be its row's: another config, or a faulty jaxlib; [] also if it does not exist."""
    row, path = systems.ROWS[name], workdir(name, seed, options)
    saved = _read(path / "config.json") or _read(path / "search.json").get("config")
    runs = [run for file in (path / "run.json", *path.glob("*/run.json")) if (run := _read(file))]
    scores = _read(path / "evaluation-validation.json")
    lines = []
    if row.config and saved:
        shortened = shortening(row, options.budget, options.weights)
        lines += runfiles.config_differences(row, saved, shortened).values()
    for found in runs or ([scores] if "packages" in scores else []):
        if runfiles.is_faulty({"platform": "", "packages": {}, **found, "kind": row.kind}):
            lines.append(f"jaxlib {runfiles.FAULTY_JAXLIB}")
    if row.kind == "mlp" and scores and not scores.get("confusion"):
        lines.append("no confusion matrix")
    return list(dict.fromkeys(lines))


def make_way(name: str, seed: int, options) -> None:
    """Renames an outdated workdir to seed<k>.old-<n>: training would reject it, but it may still be useful."""
    why, path = outdated(name, seed, options), workdir(name, seed, options)
    if why:
        aside = path.with_name(f"{path.name}.old-{len(list(path.parent.glob(f'{path.name}.old-*'))) + 1}")
        path.rename(aside)
        print(f"{path} is of an earlier version of its row ({'; '.join(why)}): moved to {aside}", flush=True)


def _read(file):
    return json.loads(file.read_text()) if file.exists() else {}


def _step(path):
    """Returns the step of the best checkpoint, which may be later than the scored one; None if nothing is saved."""
    return max((int(found.name) for found in path.glob("checkpoints/best/*") if found.name.isdigit()), default=None)


def epoch_of(path):
    """Returns the epoch of the checkpoint that a member was scored with."""
    return json.loads((path / "evaluation-validation.json").read_text())["epoch"]


@contextlib.contextmanager
def lock(name, seed, options):
    """Yields whether this process has locked a run; if another queue has it, on any machine, prints that."""
    folder = pathlib.Path(options.runs) / options.budget / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    row_lock = filelock.FileLock(folder / f"{name}-seed{seed}.lock")
    try:
        row_lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{name}, seed {seed}: another queue is running it", flush=True)
        yield False
        return
    try:
        yield True
    finally:
        row_lock.release()
