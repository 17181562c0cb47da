"""Runs the five reports' systems, one row each; whole runs are written as run files, the source of tables.py.

python experiments/reports/run.py --data_path <folder with fer2013.csv>                   # the queue
python experiments/reports/run.py --list                                                  # remaining rows
python experiments/reports/run.py --data_path <...> --budget smoke --weights random       # every row for a minute

The queue trains one row at a time at the lowest priority, by value per hour. Rerun the same command to resume; rows
that have a run file are skipped. While <runs>/PAUSE exists it is paused. PrivateTest is scored once, for the best
checkpoint of a whole run.
"""

import argparse
import contextlib
import pathlib
import re
import signal
import sys
import traceback

import jobs
import processes
import runfiles
import running
import schedule
import systems

from fer_jax import command, datasets
from fer_jax import config as config_lib
from fer_jax.errors import InputError


def chosen(options) -> dict:
    """Returns the rows that the options name. Raises InputError for an unknown one."""
    unknown = sorted({*(options.rows or ()), *(options.reports or ())} - {*systems.ROWS, *systems.REPORTS})
    if unknown:
        raise InputError(f"unknown row or report {', '.join(unknown)}; reports are {', '.join(systems.REPORTS)}")
    return {
        name: row
        for name, row in systems.ROWS.items()
        if (not options.rows or name in options.rows) and (not options.reports or row.report in options.reports)
    }


def run_queue(options) -> list[str]:
    """Runs the remaining rows, one at a time; returns the names of the failed ones.

    The remaining rows are determined before every row, so that new run files and weights count, and rows that other
    queues are running are skipped. No row is tried twice: one that has run and still remains has failed.
    """
    tried, failed = set(), []
    while True:
        left = schedule.left(options)
        print(schedule.describe(left), flush=True)
        ready = [(job.name, job.seed) for job in left if not job.obstacle and (job.name, job.seed) not in tried]
        with _first_free(ready, options) as job:
            if job is None:
                return [name for name, _ in failed]
            processes.wait(running.pause_file(options))
            tried.add(job)
            if not _is_left(*job, options):  # just recorded by another queue
                continue
            if not _try(*job, options) or not _is_done(*job, options):
                failed.append(job)


def _is_left(name, seed, options):
    return (name, seed) in {(job.name, job.seed) for job in schedule.left(options)}


def run_smoke(options) -> list[str]:
    """Runs each row for a minute; returns the names of the failed ones."""
    failed = []
    for name, row in chosen(options).items():
        for seed in range(options.seeds if row.kind != "ensemble" else 1):
            with running.lock(name, seed, options) as is_ours:
                if is_ours and not _try(name, seed, options):
                    failed.append(name)
    return failed


def collect(options) -> list[str]:
    """Writes the missing run files of finished whole runs in --runs; returns the runs for which that fails."""
    done, failed, rows = runfiles.done(runfiles.read(options.out)), [], chosen(options)
    for path in sorted(pathlib.Path(options.runs, options.budget).glob("*/seed*")):
        if not re.fullmatch(r"seed\d+", path.name):  # renamed because it was outdated
            continue
        name, seed = path.parent.name, int(path.name.removeprefix("seed"))
        if name not in rows or (name, seed) in done or not running.has_ended(name, seed, options):
            continue
        with running.lock(name, seed, options) as is_ours:
            if is_ours and not _try(name, seed, options, add=_record):
                failed.append(name)
    return failed


def _record(name, seed, options):
    print(f"recorded: {runfiles.write(options.out, jobs.collect(name, seed, options))}", flush=True)


def _is_done(name, seed, options):
    """Whether a row that has run need not be rerun; prints the reason if it must be."""
    why = runfiles.lacks(name, seed, runfiles.read(options.out))
    if why:
        print(f"error: {name}: it has ended, but its run file does not count: {why}", file=sys.stderr, flush=True)
    return not why


def _try(name, seed, options, add=None):
    """Runs a row, or another function on it; returns whether that succeeded, and prints the error if not."""
    try:
        (add or jobs.add)(name, seed, options)
    except InputError as error:
        print(f"error: {name}: {error}", file=sys.stderr, flush=True)
        return False
    except Exception as error:  # an error in one row must not end the queue
        print(f"error: {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        traceback.print_exc()
        return False
    return True


@contextlib.contextmanager
def _first_free(ready, options):
    """Locks and yields the first run that no other queue has, or None."""
    for name, seed in ready:
        with running.lock(name, seed, options) as is_ours:
            if is_ours:
                yield name, seed
                return
    yield None


def _path(text):
    return str(pathlib.Path(text).resolve())  # the commands run in another folder


def parse(argv=None):
    """Returns the options. Raises InputError if they are contradictory."""
    names = lambda text: tuple(filter(None, text.split(",")))  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", type=_path, help="as data.path")
    parser.add_argument("--budget", choices=running.BUDGETS, default="whole", help="default: %(default)s")
    parser.add_argument("--list", action="store_true", help="print the rows that remain to run, and exit")
    parser.add_argument("--collect", action="store_true", help="write run files of finished workdirs, and exit")
    parser.add_argument("--reports", type=names, help=f"of {','.join(systems.REPORTS)}; default: all")
    parser.add_argument("--rows", type=names, help="names of rows; default: all; of whole runs, all but searches")
    parser.add_argument(
        "--seeds", type=int, default=1, help="runs of each row; default: %(default)s, and systems.ORDER"
    )
    parser.add_argument(
        "--weights", choices=("imagenet", "random"), default="imagenet", help="random: of smoke runs without a network"
    )
    parser.add_argument("--feeder", default="resident", help="as data.feeder; default: %(default)s")
    parser.add_argument("--runs", type=_path, default=str(systems.ROOT / "runs" / "reports"), help="of the workdirs")
    parser.add_argument("--out", type=pathlib.Path, default=runfiles.FOLDER, help="of the run files")
    options = parser.parse_args(argv)
    chosen(options)
    if options.budget == "whole" and options.weights == "random":
        raise InputError("whole runs never use random weights where a row needs others: give --budget smoke")
    if not (options.data_path or options.list or options.collect):
        raise InputError("give --data_path, the folder or file of FER-2013")
    return options


def main():
    """Runs the rows. Raises InputError at the end if rows have failed."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running command ends too
    if options.list:
        print(schedule.describe(schedule.left(options)))
        return
    if not options.collect:
        data = config_lib.get_default().data
        data.path = options.data_path
        found = datasets.load(data)  # errors in the data are reported once, not by every row
        if options.budget == "whole" and found.fingerprint != datasets.facts.FINGERPRINT:
            raise InputError(
                f"{options.data_path} has the fingerprint {found.fingerprint}, and whole rows are of FER-2013's "
                f"{datasets.facts.FINGERPRINT}: give its fer2013.csv or icml_face_data.csv, or --budget smoke"
            )
    steps = collect if options.collect else run_queue if options.budget == "whole" else run_smoke
    failed = steps(options)
    if failed:
        raise InputError(f"{', '.join(dict.fromkeys(failed))} failed: see the messages above; the others are recorded")


if __name__ == "__main__":
    command.run(main)
