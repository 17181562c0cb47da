"""What each recipe of docs/extending.md gains or costs: configs/lean.py with 24 epochs, one change at a time.

python experiments/recipes/run.py --data_path <folder with fer2013.csv> --votes_path <fer2013new.csv>
python experiments/recipes/run.py --table      # table.md, from the recorded runs

Each run is scored on PublicTest alone, at the epoch that was best there, and recorded in runs/<recipe>-<seed>.json.
Rerun the same command to resume; recorded runs are skipped. While <runs>/PAUSE exists, it is paused.
"""

import argparse
import json
import pathlib
import statistics
import sys

from fer_jax import command
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "reports"))
import processes

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EPOCHS, SEEDS = 24, (0, 1)
BASELINE = "lean"
VIEWS = ("none", "flip", "flip_shifts", "ten_crop")
# recipe -> the fields that it changes in configs/lean.py; {runs} is the folder of the workdirs, {votes} the votes' file
RECIPES = {
    BASELINE: {},
    "moving average, 0.999": {"train.ema_decay": 0.999},
    "mixup, 0.2": {"augment.mixup_alpha": 0.2},
    "CutMix, 1.0": {"augment.cutmix_alpha": 1.0},
    "alternating flips": {"augment.flip_alternating": True},
    "random crops of 42 px": {"augment.crop_px": 42},
    "random erasing, 0.5": {"augment.erase": 0.5},
    "label smoothing, 0.1": {"loss.label_smoothing": 0.1},
    "soft targets of FER+": {"loss.targets": "votes", "data.votes_path": "{votes}"},
    "distillation from two lean": {"loss.teacher": "('{runs}/lean-0','{runs}/lean-1')"},
    "without shared pictures": {"data.drop_shared": True},
    "AdamW, decay 0.05": {"optim.name": "adamw", "optim.weight_decay": 0.05},
    "Lion, 1e-4, decay 1.0": {"optim.name": "lion", "optim.learning_rate": 1e-4, "optim.weight_decay": 1.0},
    "Muon, 0.01": {"optim.name": "muon", "optim.learning_rate": 0.01},
    "schedule-free Adam": {"optim.name": "schedule_free", "optim.schedule": "constant"},
    "SAM, 0.05": {"optim.sam_radius": 0.05},
}


def slug(recipe: str) -> str:
    """Returns a recipe's name for files: lower case, with dashes."""
    words = "".join(letter if letter.isalnum() or letter == "." else " " for letter in recipe.lower()).split()
    return "-".join(words)


def commands(recipe, seed, options):
    """Returns the commands of a run: training, then evaluation on validation, the baseline's with all views."""
    workdir = pathlib.Path(options.runs) / f"{slug(recipe)}-{seed}"
    values = {name: str(value).format(runs=options.runs, votes=options.votes_path) for name, value in fields(recipe)}
    values |= {"data.path": options.data_path, "data.feeder": "resident", "seed": seed}
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    start = [sys.executable, "-m"]
    train = [*start, "fer_jax.main", "--config", "configs/lean.py", *flags, "--workdir", str(workdir)]
    score = [*start, "fer_jax.evaluate", "--workdir", str(workdir), "--split", "validation", "--explain", "none"]
    return workdir, [train, *([*score, "--views", views] for views in views_of(recipe))]


def fields(recipe):
    """Returns the fields that a recipe and its length change, as (name, value) pairs."""
    return [("train.epochs", EPOCHS), *RECIPES[recipe].items()]


def views_of(recipe):
    """Returns the test-time views that a recipe is scored with."""
    return VIEWS if recipe == BASELINE else VIEWS[:1]


def record(recipe, seed, workdir, out):
    """Writes the run file of a finished run."""
    run = workdir_lib.read_provenance(workdir)
    history = workdir_lib.read_history(workdir)
    scores = {}
    for views in views_of(recipe):
        suffix = "" if views == "none" else f"-{views}"
        found = json.loads((workdir / f"evaluation-validation{suffix}.json").read_text())
        scores[views] = {name: found[name] for name in ("accuracy", "macro_f1", "loss", "n", "epoch")}
    facts = {name: run[name] for name in ("time", "command", "commit", "device", "packages", "data_fingerprint")}
    kept = {
        "recipe": recipe,
        "fields": dict(fields(recipe)),
        "seed": seed,
        "validation": scores,
        "hours": sum(epoch["seconds"] for epoch in history) / 3600,
        "validation_accuracy_by_epoch": [epoch["validation_accuracy"] for epoch in history],
        "run": facts,
    }
    out.mkdir(parents=True, exist_ok=True)
    workdir_lib.write_json(out / f"{slug(recipe)}-{seed}.json", kept)


def read(out):
    """Returns the run files, {(recipe, seed): content}."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    return {(one["recipe"], one["seed"]): one for one in found}


def table(found) -> str:
    """Returns the table of the recipes that have been run with all seeds, and the names of the others."""
    lines = [
        f"`configs/lean.py`, {EPOCHS} epochs, PublicTest at its best epoch, seeds {' and '.join(map(str, SEEDS))}. The "
        "95% interval of one accuracy is about +-1.6 points, so two seeds show large differences only.",
        "",
        "| recipe | accuracy, each seed | mean | points over lean | macro F1 | loss | hours a run | device |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    whole = [recipe for recipe in RECIPES if all((recipe, seed) in found for seed in SEEDS)]
    for recipe in whole:
        for views in views_of(recipe):
            lines.append(_line(recipe, views, found))
    missing = [recipe for recipe in RECIPES if recipe not in whole]
    if missing:
        lines += ["", f"Not run whole yet: {'; '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _line(recipe, views, found):
    runs = [found[recipe, seed] for seed in SEEDS]
    means = {
        name: statistics.mean(run["validation"][views][name] for run in runs)
        for name in ("accuracy", "macro_f1", "loss")
    }
    base = [found.get((BASELINE, seed)) for seed in SEEDS]
    over = "-"
    if all(base) and (recipe, views) != (BASELINE, "none"):
        over = f"{100 * (means['accuracy'] - statistics.mean(b['validation']['none']['accuracy'] for b in base)):+.1f}"
    each = ", ".join(f"{run['validation'][views]['accuracy']:.4f}" for run in runs)
    name = recipe if views == "none" else f"{recipe}, views {views}"
    hours = statistics.mean(run["hours"] for run in runs)
    devices = ", ".join(dict.fromkeys(run["run"]["device"] for run in runs))
    return (
        f"| {name} | {each} | {means['accuracy']:.4f} | {over} | {means['macro_f1']:.4f} | {means['loss']:.4f} | "
        f"{hours:.2f} | {devices} |"
    )


def parse(argv=None):
    """Returns the options. Raises InputError without data."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    absolute = lambda text: str(pathlib.Path(text).expanduser().resolve())  # noqa: E731
    parser.add_argument("--data_path", type=absolute, help="as data.path")
    parser.add_argument("--votes_path", type=absolute, help="as data.votes_path")
    parser.add_argument("--runs", type=absolute, default=str(ROOT / "runs/recipes"), help="folder of the workdirs")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "runs", help="folder of the run files")
    parser.add_argument("--table", action="store_true", help="write table.md from the run files, and exit")
    options = parser.parse_args(argv)
    if not options.table and not (options.data_path and options.votes_path):
        raise InputError("give --data_path, the folder or file of FER-2013, and --votes_path, FER+'s fer2013new.csv")
    return options


def main():
    """Runs what is not recorded, all recipes with the first seed before the second one."""
    options = parse()
    if options.table:
        (HERE / "table.md").write_text(table(read(options.out)))
        return
    pause = pathlib.Path(options.runs) / "PAUSE"
    # The baseline comes first: the distillation's teachers are its runs.
    order = [(BASELINE, seed) for seed in SEEDS]
    order += [(recipe, seed) for seed in SEEDS for recipe in RECIPES if recipe != BASELINE]
    for number, (recipe, seed) in enumerate(order, 1):
        if (recipe, seed) in read(options.out):
            continue
        print(f"{number} of {len(order)}: {recipe}, seed {seed}", flush=True)
        workdir, lines = commands(recipe, seed, options)
        for line in lines:
            processes.wait(pause)
            if processes.run(line, cwd=ROOT, pause=pause):
                raise InputError(f"'{' '.join(line[1:])}' failed: see its message above")
        record(recipe, seed, workdir, options.out)


if __name__ == "__main__":
    command.run(main)
