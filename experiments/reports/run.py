"""Runs the five reports' systems, a row each, and writes our figures beside the published ones.

python experiments/reports/run.py --data_path <folder with fer2013.csv> --budget smoke|cpu|gpu [--reports R1,R5]

Runs what is missing, goes on with what was cut off. A row that is shortened says so in the table, and its test split is
left alone: PrivateTest is scored once, for the best checkpoint of a whole run. Writes <report>/results.json, table.md
and curves.png beside this file, or in --out, and results.md, which collects the five.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys

import systems
import tables

from fer_jax import command, datasets, records, space
from fer_jax import config as config_lib
from fer_jax.errors import InputError

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT))  # for configs
BUDGETS = ("smoke", "cpu", "gpu")
SMOKE = {"train.epochs": 1, "data.train_faces": 512, "train.batch_size": 32}
SMOKE_PX = 64
FEWEST_PX = {"inception_v3": 75}
SMOKE_VIEWED_FACES = 64  # each of which is seen in 12 views
MOST_TRIALS = {"smoke": 2, "cpu": 20}
SEEDS_AGAIN = {"smoke": 0, "cpu": 2, "gpu": 2}
CURVES = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
SCORES = ("accuracy", "macro_f1", "loss", "mean_squared_error", "accuracy_interval_95", "bootstrap_interval_95", "n")


def get_config(row):
    """Returns the config of a row at full length."""
    name, _, variant = row.config.partition(":")
    module = importlib.import_module(f"configs.{name.removesuffix('.py')}")
    config = module.get_config(*([variant] if variant else []))
    config.update_from_flattened_dict(row.fields)
    return config


def shortening(row, budget: str, weights: str = "imagenet") -> dict:
    """Returns the fields that a budget changes in a row, {name: value}; none where it runs at full length."""
    config, fields = get_config(row), {}
    if budget == "smoke":
        fields = dict(SMOKE)
        if config.model.size_px > SMOKE_PX:
            fields["model.size_px"] = FEWEST_PX.get(config.model.name, SMOKE_PX)
        if config.augment.fixed_views:
            fields["data.train_faces"] = SMOKE_VIEWED_FACES
        fields |= {name: value for name, value in (row.cpu or {}).items() if name == "search.space"}
    elif budget == "cpu":
        fields = dict(row.cpu or {})
    if weights == "random" and config.model.weights:
        fields["model.weights"] = ""
    flat = config_lib.flat(config_lib.to_dict(config))
    return {name: value for name, value in fields.items() if flat[name] != value}


def describe(row, fields: dict) -> str:
    """Returns in words what was shortened: '2 of 50 epochs, 512 training faces'."""
    config = get_config(row)
    words = {
        "train.epochs": lambda epochs: f"{epochs} of {config.train.epochs} epochs",
        "data.train_faces": lambda faces: f"{faces:,} training faces",
        "model.size_px": lambda size_px: f"{size_px} px in place of {config.model.size_px}",
        "train.batch_size": lambda size: f"batch {size} in place of {config.train.batch_size}",
        "model.weights": lambda _: "random weights in place of ImageNet's",
        "search.space": lambda space: _describe_space(config.search.space, space),
    }
    return ", ".join(words[name](value) for name, value in fields.items())


def _describe_space(whole, part):
    names, searched = ([line.split()[0] for line in space] for space in (whole, part))
    return "narrower ranges searched" if searched == names else f"only {', '.join(searched)} searched"


def run(module, *flags):
    """Runs a command of the project. Raises InputError where it fails; its own words are on stderr."""
    line = [sys.executable, "-m", f"fer_jax.{module}", *map(str, flags)]
    if subprocess.run(line, cwd=ROOT, check=False).returncode:
        raise InputError(f"'{' '.join(line[1:])}' failed: see its message above")


def train(name, row, seed, options, told=()) -> dict:
    """Trains a row to its end and scores it; returns its record. told: what else was shortened, in words."""
    workdir = _workdir(name, seed, options)
    shortened, fields = _run_config("main", row, seed, options, "--workdir", workdir)
    shortened = ", ".join(filter(None, [*told, shortened]))
    history = records.read_history(workdir)
    return {
        "config": row.config,
        "fields": fields,
        "shortened": shortened,
        "epochs": len(history),
        "seconds": sum(epoch["seconds"] for epoch in history),
        "train_accuracy": history[-1]["train_accuracy"],
        **_scores(workdir, whole=not shortened, make=_evaluate(workdir)),
        "history": [{key: epoch[key] for key in CURVES} for epoch in history],
    }


def train_mlp(name, row, seed, options) -> dict:
    """Trains scikit-learn's classifier; returns its record."""
    workdir, smoke = _workdir(name, seed, options), options.budget == "smoke"
    flags = {"seed": seed, **row.fields}
    flags |= {"epochs": 2, "train_faces": SMOKE["data.train_faces"]} if smoke else {}

    def make(split):
        del split
        line = [sys.executable, str(HERE / "mlp.py"), "--data_path", options.data_path, "--workdir", str(workdir)]
        line += [f"--{flag}={value}" for flag, value in flags.items()]
        if subprocess.run(line, cwd=ROOT, check=False).returncode:
            raise InputError("mlp.py failed: see its message above")

    scores = _scores(workdir, whole=not smoke, make=make)
    found = json.loads((workdir / "evaluation-validation.json").read_text())
    shortened = f"2 epochs, {SMOKE['data.train_faces']} training faces" if smoke else ""
    return {"shortened": shortened, "epochs": found["epoch"], "seconds": found["seconds_of_training"], **scores}


def train_average(name, row, seed, options) -> dict:
    """Runs the members that are missing and trains their average further, as one network; returns its record."""
    workdirs = []
    for member, number in ((member, number) for member, seeds in row.members for number in range(seeds)):
        workdirs.append(_workdir(member, number, options))
        if not (workdirs[-1] / "evaluation-validation.json").exists():
            add(member, number, options)
    joined = dataclasses.replace(row, fields={**row.fields, "model.members": tuple(map(str, workdirs))})
    found = train(name, joined, seed, options, ["shortened members"] if any(map(_shortened, workdirs)) else [])
    found["fields"]["model.members"] = [path.relative_to(options.runs).as_posix() for path in workdirs]
    return found


def mix(name, row, seed, options) -> dict:
    """Scores an ensemble of the members that are there; returns its record."""
    del seed
    add_members(row, options)
    workdirs = []
    for member, seeds in row.members:
        there = [_workdir(member, number, options) for number in range(seeds)]
        workdirs += [path for path in there if (path / "evaluation-validation.json").exists()]
    wanted = sum(seeds for _, seeds in row.members)
    short = [_shortened(path) for path in workdirs]
    told = [f"{len(workdirs)} of {wanted} members"] if len(workdirs) < wanted else []
    told += ["shortened members"] if any(short) else []
    out = _workdir(name, 0, options)

    def make(split):
        run("ensemble", "--workdir", *workdirs, "--out", out, "--split", split)

    members = [(str(path), _epoch(path)) for path in workdirs]

    def fits(scores):
        return [(member["workdir"], member["epoch"]) for member in scores["members"]] == members

    found = _scores(out, whole=not any(short), make=make, fits=fits)
    return {"shortened": ", ".join(told), "members": len(workdirs), **found}


def add_members(row, options):
    """Runs the members of an ensemble that are missing: all of them with a GPU, else no more than make it one."""
    for member, seeds in row.members:
        needed = seeds if options.budget == "gpu" else min(seeds, 1 if len(row.members) > 1 else 2)
        for seed in range(needed):
            if not (_workdir(member, seed, options) / "evaluation-validation.json").exists():
                add(member, seed, options)


def explore(name, row, seed, options) -> dict:
    """Searches, and scores the best trial; returns its record, with the score of the first trial beside it.

    Both are trained again with other seeds: the best of many trials owes a part of its score to chance.
    """
    workdir = _workdir(name, seed, options)
    trials = min(row.trials, MOST_TRIALS.get(options.budget, row.trials))
    shortened, fields = _run_config("search", row, seed, options, "--workdir", workdir, "--trials", trials)
    found = json.loads((workdir / "search.json").read_text())
    best, first = workdir / found["best"]["workdir"], found["trials"][0]
    finished = [trial for trial in found["trials"] if trial["state"] in ("complete", "pruned")]
    # Where the first trial was cut off it was taken up again, under another number.
    first = next((trial for trial in finished if trial["params"] == first["params"]), first)
    tried = {trial["workdir"] for trial in finished}
    seconds = [epoch["seconds"] for path in tried for epoch in records.read_history(workdir / path)]
    told = [f"{trials} of {row.trials} trials"] if trials < row.trials else []
    told += [shortened] if shortened else []
    return {
        "config": row.config,
        "fields": fields,
        "shortened": ", ".join(told),
        "trials": len(finished),
        "cut_off": sum(trial["state"] == "pruned" for trial in finished),
        "start": {"params": first["params"], "value": first["value"]},
        "again": _again(row, fields, {"start": first, "best": found["best"]}, workdir, options),
        "best": found["best"]["params"],
        "seconds": sum(seconds),
        **_scores(best, whole=not told, make=_evaluate(best)),
    }


def _again(row, given, trials, folder, options):
    """Trains trials with other seeds, {name: trial}; returns their validation accuracies, {name: [accuracy, ...]}."""
    if not SEEDS_AGAIN[options.budget] or len({trial["number"] for trial in trials.values()}) == 1:
        return {}
    config, found = get_config(row), {}
    config.update_from_flattened_dict(given)
    before = config_lib.flat(config_lib.to_dict(config))
    for name, trial in trials.items():
        filled = config_lib.flat(config_lib.to_dict(space.fill(config, trial["params"])))
        fields = {**given, **{key: value for key, value in filled.items() if value != before[key]}}
        found[name] = []
        for seed in range(given["seed"] + 1, given["seed"] + 1 + SEEDS_AGAIN[options.budget]):
            workdir = folder / name / f"seed{seed}"
            _run_fields("main", row, {**fields, "seed": seed}, options, "--workdir", workdir)
            scores = _scores(workdir, whole=False, make=_evaluate(workdir))
            found[name].append(scores["validation"]["accuracy"])
    return found


KINDS = {"train": train, "mlp": train_mlp, "ensemble": mix, "average": train_average, "search": explore}


def _run_config(module, row, seed, options, *flags):
    """Runs a row's config by a command; returns (what the budget shortened, in words; the fields that were given)."""
    short = shortening(row, options.budget, options.weights)
    given = {**row.fields, **short, "seed": seed, "data.feeder": options.feeder}
    _run_fields(module, row, given, options, *flags)
    return describe(row, short), given


def _run_fields(module, row, given, options, *flags):
    fields = [f"--config.{field}={value}" for field, value in {**given, "data.path": options.data_path}.items()]
    run(module, "--config", f"configs/{row.config}", *fields, *flags)


def _evaluate(workdir):
    return lambda split: run("evaluate", "--workdir", workdir, "--split", split)


def _workdir(name, seed, options):
    return pathlib.Path(options.runs) / options.budget / name / f"seed{seed}"


def _shortened(workdir):
    """Says whether a member was not scored on the test split, as only whole runs are."""
    return not (workdir / "evaluation-test.json").exists()


def _step(workdir):
    """Returns the step of the best checkpoint, which may be a later one than was scored; None where there is none."""
    return max((int(path.name) for path in workdir.glob("checkpoints/best/*") if path.name.isdigit()), default=None)


def _epoch(workdir):
    """Returns the epoch of the checkpoint that a member was scored by."""
    return json.loads((workdir / "evaluation-validation.json").read_text())["epoch"]


def _scores(workdir, *, whole, make, fits=None):
    """Returns the scores of the validation split, and of the test split where the run is whole.

    make(split) writes those that are missing, and those that `fits` says no to: by default, of an earlier checkpoint.
    """
    fits = fits or (lambda scores: _step(workdir) in (None, scores.get("step")))
    found = {"validation": None, "test": None}
    for split in ("validation", "test") if whole else ("validation",):
        path = workdir / f"evaluation-{split}.json"
        if not path.exists() or not fits(json.loads(path.read_text())):
            make(split)
        scores = json.loads(path.read_text())
        keys = (*SCORES, "mean_squared_error_hard")
        found[split] = {key: scores[key] for key in keys if key in scores}
        found |= {key: scores[key] for key in ("parameters", "seed", "device", "commit", "time") if key in scores}
        found |= {"data_fingerprint": scores["data_fingerprint"], "workdir": str(workdir)}
        found |= {"best_epoch": scores["epoch"]} if "epoch" in scores else {}
    return found


def chosen(options) -> dict:
    """Returns the rows that the options name. Raises InputError on an unknown one."""
    unknown = sorted({*(options.rows or ()), *(options.reports or ())} - {*systems.ROWS, *systems.REPORTS})
    if unknown:
        raise InputError(f"there is no row or report {', '.join(unknown)}; reports are {', '.join(systems.REPORTS)}")
    return {
        name: row
        for name, row in systems.ROWS.items()
        if (not options.rows or name in options.rows) and (not options.reports or row.report in options.reports)
    }


def _path(text):
    return str(pathlib.Path(text).resolve())  # the commands run in another folder


def parse(argv=None):
    """Returns the options."""
    names = lambda text: tuple(filter(None, text.split(",")))  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", required=True, type=_path, help="as data.path")
    parser.add_argument("--budget", choices=BUDGETS, default="cpu", help="default: %(default)s")
    parser.add_argument("--reports", type=names, help=f"of {','.join(systems.REPORTS)}; default: all")
    parser.add_argument("--rows", type=names, help="names of rows; default: all")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row; default: %(default)s")
    parser.add_argument(
        "--weights", choices=("imagenet", "random"), default="imagenet", help="random: where no weights can be fetched"
    )
    parser.add_argument("--feeder", default="resident", help="as data.feeder; default: %(default)s")
    parser.add_argument("--runs", type=_path, default=str(ROOT / "runs" / "reports"), help="default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="default: %(default)s")
    return parser.parse_args(argv)


def add(name, seed, options):
    """Runs a row with a seed and adds it to the tables."""
    row = systems.ROWS[name]
    print(f"== {row.report}: {row.system}, seed {seed}, budget {options.budget}", flush=True)
    found = KINDS[row.kind](name, row, seed, options)
    found["workdir"] = pathlib.Path(found["workdir"]).relative_to(options.runs).as_posix()
    tables.add(options.out, options.runs, name, row, {"budget": options.budget, "seed": seed, **found})


def main():
    """Runs the rows and writes the tables after each. Raises InputError at the end where rows have failed."""
    options = parse()
    data = config_lib.get_default().data
    data.path = options.data_path
    datasets.load(data)  # what is wrong with the faces is said once, and not by every row
    failed = []
    for name, row in chosen(options).items():
        for seed in range(options.seeds if row.kind != "ensemble" else 1):
            try:
                add(name, seed, options)
            except InputError as error:
                print(f"error: {name}: {error}", file=sys.stderr, flush=True)
                failed.append(name)
    if (options.out / "results.md").exists():
        print((options.out / "results.md").read_text())
    if failed:
        raise InputError(f"{', '.join(dict.fromkeys(failed))} failed: see the messages above; the others are recorded")


if __name__ == "__main__":
    command.run(main)
