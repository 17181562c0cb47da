"""The queue's remaining rows: their order, and estimates of their hours."""

import dataclasses
import statistics

import runfiles
import running
import systems

from fer_jax import workdir as workdir_lib
from fer_jax.pretrained import fetch

HOUR = 3600


@dataclasses.dataclass(frozen=True)
class Job:
    """A row and a seed without a whole run yet.

    hours: remaining, None if unknown; source: of the estimate; obstacle: why it cannot run now, '' if it can.
    """

    name: str
    seed: int
    hours: float | None
    source: str
    obstacle: str = ""


def left(options) -> list[Job]:
    """Returns the remaining jobs that the options name, by value per hour.

    The runs of `systems.ORDER` are by value per hour; then come the other rows, the shortest first, and first seeds
    before second ones. Searches run only if --rows names them: they take days.
    """
    found = runfiles.read(options.out)
    done = runfiles.done(found)

    def jobs_of(runs):
        return [_job(name, seed, found, done, options) for name, seed in runs if (name, seed) not in done]

    named = _named(options)
    whole_order = not (options.rows or options.reports or options.seeds > 1)
    first = [run for run in systems.ORDER if run in named or (whole_order and run[0] in systems.ROWS)]
    others = [run for run in named if run not in first]
    return jobs_of(first) + sorted(jobs_of(others), key=_length)


def _length(job):
    return bool(job.obstacle), job.seed, job.hours is None, job.hours or 0.0


def _named(options):
    """Returns the runs (row, seed) that the options name."""
    return [
        (name, seed)
        for seed in range(options.seeds)
        for name, row in systems.ROWS.items()
        if (name in options.rows if options.rows else row.kind != "search")
        and (not options.reports or row.report in options.reports)
        and (seed == 0 or row.kind != "ensemble")
    ]


def _job(name, seed, found, done, options):
    hours, source = hours_left(name, seed, found, options)
    return Job(name, seed, hours, source, obstacle(name, options, done))


def hours_left(name: str, seed: int, found: dict, options=None) -> tuple[float | None, str]:
    """Returns the remaining hours of a run on this machine, and the source of the estimate.

    found: the result of `runfiles.read`. The seconds of an epoch are measured if this run has started or another seed
    is finished, else taken from `systems.EPOCH_SECONDS`. With early stopping it may take less.
    """
    row = systems.ROWS[name]
    history = workdir_lib.read_history(running.workdir(name, seed, options)) if options else []
    ended = [run for run in found.get(name, []) if run["seconds"] and run["epochs"]]
    if row.kind == "mlp" and ended:
        return ended[0]["seconds"] / HOUR, f"measured, seed {ended[0]['seed']}"
    if row.kind not in ("train", "average"):
        return None, "unknown"
    epochs = systems.get_config(row).train.epochs - (history[-1]["epoch"] if history else 0)
    if history:
        seconds, source = statistics.median(epoch["seconds"] for epoch in history), f"measured, {len(history)} epochs"
    elif ended:
        seconds, source = ended[0]["seconds"] / ended[0]["epochs"], f"measured, seed {ended[0]['seed']}"
    elif name in systems.EPOCH_SECONDS:
        seconds, source = systems.EPOCH_SECONDS[name], "estimated"
    else:
        return None, "unknown"
    return max(epochs, 0) * seconds / HOUR, source


def obstacle(name: str, options, done: set) -> str:
    """Returns why a row cannot run on this machine now, '' if it can; done: the result of `runfiles.done`.

    The members of an ensemble or an average must be done and have their workdirs in --runs.
    """
    row = systems.ROWS[name]
    if members := systems.members(row):
        missing = [
            member
            for member, seed in members
            if (member, seed) not in done or not running.has_ended(member, seed, options)
        ]
        if missing:
            return f"needs its members in --runs first: {', '.join(dict.fromkeys(missing))}"
    weights = systems.weights_of(row)
    return systems.describe_weights(weights) if weights and fetch.find(weights) is None else ""


def describe(left_over: list[Job]) -> str:
    """Returns the jobs as text: one line each, and the sum of the known hours."""
    lines = []
    for job in left_over:
        hours = "unknown hours" if job.hours is None else f"{job.hours:.1f} h ({job.source})"
        lines.append(f"  {job.name}, seed {job.seed}: {job.obstacle or hours}")
    known = sum(job.hours for job in left_over if job.hours is not None and not job.obstacle)
    return "\n".join([f"{len(left_over)} runs left, about {known:.1f} h of those that can run here:", *lines])
