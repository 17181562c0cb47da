"""One config trained with several seeds, one after another, and the spread of their scores."""

import gc
import logging
import pathlib
import statistics

import jax

from fer_jax import config as config_lib
from fer_jax import fields, train
from fer_jax import workdir as workdir_lib
from fer_jax.errors import Diverged, InputError

logger = logging.getLogger("fer_jax")
SUMMARY = "seeds.json"


def train_seeds(config, workdir, count: int, clock=None) -> dict:
    """Trains a config with the seeds config.seed, config.seed + 1, ..., each in <workdir>/seed_<seed>.

    Complete runs are skipped, others resume; a run that diverges does not end the others. Writes <workdir>/seeds.json.

    Args:
      config: of the run; its seed is the first one.
      workdir: the folder of all runs.
      count: number of seeds.
      clock: a `timing.Clock` that began with the command, for the first run.

    Returns:
      what seeds.json holds: `runs`, a dict for each seed with its best epoch and the validation scores of that epoch;
      `mean` and `sd` (sample standard deviation, None for one seed) of the scores; `diverged`, {seed: message} of the
      runs without scores; `config`, `seeds`, `n`, `monitor` and where they were computed.

    Raises:
      InputError: seeds out of their range; all runs diverged; otherwise as `train.train`, at its first error.
      interrupts.Stopped: as `train.train`.
    """
    workdir = pathlib.Path(workdir)
    check(config, count)
    workdir_lib.check_folder(workdir, option="--workdir")
    runs, diverged = [], {}
    for seed in range(config.seed, config.seed + count):
        folder = workdir / f"seed_{seed}"
        logger.info("seed %d, %d of %d, in %s", seed, seed - config.seed + 1, count, folder)
        of_seed = config.copy_and_resolve_references()
        of_seed.seed = seed
        try:
            best = train.train(of_seed, folder, clock=clock)
            runs.append({"seed": seed, "workdir": str(folder), **_scores(best), **_provenance(folder)})
        except Diverged as error:
            diverged[seed] = str(error)
            logger.warning("seed %d diverged: %s", seed, error)
        clock = None
        jax.clear_caches()  # a program is compiled for a run
        gc.collect()  # and the next run needs the memory of this one's arrays
    if not runs:
        raise InputError(f"no seed of {count} could be trained; the last: {diverged[seed]}")
    summary = {**summarize(config, runs), "diverged": diverged}
    workdir_lib.write_json(workdir / SUMMARY, {**summary, **workdir_lib.facts()})
    return summary


def check(config, count: int) -> None:
    """Raises InputError where a number of seeds is not 1 or more, or leads out of the range of `seed`."""
    if count < 1:
        raise InputError(f"--seeds is {count}: give 1 or more")
    last = config.seed + count - 1
    if not fields.FIELDS["seed"].allows(last):
        raise InputError(f"--seeds is {count}: the last seed would be {last}; seeds are {fields.FIELDS['seed'].range}")


def _scores(best):
    found = {name: value for name, value in best.items() if name.startswith("validation_")}
    return {"best_epoch": best["epoch"], "scores": found}


def _provenance(folder):
    facts = workdir_lib.read_provenance(folder)
    return {name: facts.get(name) for name in ("commit", "device", "time", "data_name", "data_fingerprint")}


def summarize(config, runs: list[dict]) -> dict:
    """Returns the summary of runs: of the scores that all of them have, train.monitor's first, mean and sample sd."""
    monitor = config.train.monitor
    shared = [name for name in runs[0]["scores"] if all(name in run["scores"] for run in runs)]
    names = sorted(shared, key=lambda name: name != monitor)
    columns = {name: [run["scores"][name] for run in runs] for name in names}
    return {
        "config": config_lib.to_dict(config),
        "seeds": [run["seed"] for run in runs],
        "n": len(runs),
        "monitor": monitor,
        "runs": runs,
        "mean": {name: statistics.fmean(column) for name, column in columns.items()},
        "sd": {name: statistics.stdev(column) if len(runs) > 1 else None for name, column in columns.items()},
    }


def table(summary: dict) -> str:
    """Returns a summary as text: a line a seed with its best epoch and scores, then mean, sd and n."""
    names = list(summary["mean"])
    rows = [["seed", "best epoch", *(name.removeprefix("validation_") for name in names)]]
    for run in summary["runs"]:
        scores = (f"{run['scores'][name]:.4f}" for name in names)
        rows.append([str(run["seed"]), str(run["best_epoch"]), *scores])
    rows.append(["mean", "", *(f"{summary['mean'][name]:.4f}" for name in names)])
    spread = ("-" if summary["sd"][name] is None else f"{summary['sd'][name]:.4f}" for name in names)
    rows.append(["sd", "", *spread])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([f"validation scores at the best epoch by {summary['monitor']}, n = {summary['n']}", *lines])
