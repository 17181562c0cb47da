"""Trains the reports' single networks that start from random weights on one GPU, some at once, for some minutes.

python benchmarks/gpu/train_rows.py --minutes 9 --out $OUT

The first seeds come first, by value per hour. Rerun it to resume: runs in --work or listed in --resume as finished are
skipped, an unfinished one continues from its last epoch. Everything new since the last call is in --out as the pieces
of one zip, which collect.py unpacks. Runs in separate processes write their output to --work, `logs/`.
"""

import argparse
import concurrent.futures
import contextlib
import gc
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback

import jax
import numpy as np
import pieces
import runfiles
import systems

from fer_jax import command, datasets, files, inference, scoring, train
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESERVE_SECONDS = 30.0  # for scoring a run and writing the results
START_SECONDS = 90.0  # no run is started with less: it would spend them on compiling
DRY_RUN = {"train.epochs": 2, "data.train_faces": 64, "train.batch_size": 16}
DRY_RUN_PX = 64  # at most
GRACE_SECONDS = 10.0  # after the deadline, before a running process is killed
LOG_LINES = 15  # shown of a failed process
OUT_OF_TIME = 75  # exit status of a process that ran out of time


class OutOfTime(BaseException):
    """The time of this call is over. Not an Exception, since saving and restoring convert those into messages."""


def stop(*_):
    """Raises OutOfTime, once: the alarm must not interrupt the saving and closing that follow."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise OutOfTime


@contextlib.contextmanager
def time_limit(deadline: float):
    """Raises OutOfTime inside the block at a time of time.monotonic(), for an epoch longer than the remaining time."""
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, deadline - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def jobs(options) -> list[tuple[str, int]]:
    """Returns the rows and seeds in their order, or in that of --rows. Raises InputError for an unknown row."""
    names = [name for name, row in systems.ROWS.items() if row.kind == "train"]
    names = [name for name in names if not systems.get_config(systems.ROWS[name]).model.weights]
    first = [name for name, seed in systems.ORDER if seed == 0]
    names.sort(key=lambda name: first.index(name) if name in first else len(first))
    if unknown := set(options.rows or ()) - set(names):
        raise InputError(f"--rows: {', '.join(sorted(unknown))} cannot be trained here; known are {', '.join(names)}")
    names = options.rows or names
    return [(name, seed) for seed in range(options.seeds) for name in names]


def make_config(name: str, seed: int, options):
    """Returns the config of a run, full-length or dry."""
    config = systems.get_config(systems.ROWS[name])
    if options.dry_run:
        config.update_from_flattened_dict({**DRY_RUN, "model.size_px": min(config.model.size_px, DRY_RUN_PX)})
    config.seed = seed
    config.data.update({"path": str(options.data), "cache_dir": str(options.work / "cache"), "feeder": "resident"})
    config.data.name = datasets.resolve_name(config.data)
    return config


def run_one(name: str, seed: int, options, deadline: float) -> None:
    """Trains a run to its end, scores it and saves its variables. Raises OutOfTime if that takes too long."""
    folder = workdir(name, seed, options)
    config = make_config(name, seed, options)

    def watch(epoch, scores):
        left = deadline - time.monotonic()
        print(f"{name} {seed}: epoch {epoch} of {config.train.epochs}, {left:.0f} s of this call left", flush=True)
        if epoch < config.train.epochs and left < 1.5 * scores["seconds"] + RESERVE_SECONDS:
            stop()

    train.train(config, folder, on_epoch=watch)
    facts = workdir_lib.read_json(folder / "run.json", what="record of the run", fix="delete the folder")
    workdir_lib.write_json(folder / "run.json", {**facts, "runs_at_once": options.workers})
    # PrivateTest is scored once, for the best checkpoint of a whole run.
    for split in ("validation",) if options.dry_run else ("validation", "test"):
        if not (folder / f"evaluation-{split}.json").exists():
            scores = scoring.evaluate(folder, split=split)
            print(f"{name} {seed}: {split} accuracy {scores['accuracy']:.4f}", flush=True)
    keep_variables(folder)


def keep_variables(folder) -> None:
    """Writes the best variables, in half precision where they do not overflow, and their meta data."""
    model = inference.load(folder, "best")
    arrays = {name: halve(np.asarray(leaf)) for name, leaf in config_lib.flat(model.variables).items()}
    workdir_lib.write_json(folder / "best.json", model.meta)
    with files.atomic_write(folder / "variables.npz", "wb") as file:  # written last: it marks a finished run
        np.savez(file, **arrays)


def halve(array):
    """Returns an array in float16, or unchanged if values would overflow, as statistics of raw pixels do."""
    return array.astype(np.float16) if np.abs(array).max(initial=0) < np.finfo(np.float16).max else array


def workdir(name: str, seed: int, options) -> pathlib.Path:
    """Returns the folder of a run."""
    return options.work / "runs" / name / f"seed{seed}"


def is_finished(name: str, seed: int, options) -> bool:
    """Whether a run is finished here."""
    return (workdir(name, seed, options) / "variables.npz").exists()


def export(options, elsewhere: list, brought: list, states: bool = True) -> list:
    """Writes the new results into options.out; returns the finished runs that are completely in it.

    elsewhere: runs finished on an earlier machine; brought: runs returned by an earlier call; states: whether to
    include those of unfinished runs, which must not be written meanwhile.
    """
    found = sorted(path.parent for path in (options.work / "runs").glob("*/*/config.json"))
    finished = [path for path in found if (path / "variables.npz").exists()]
    new = [path for path in finished if label(path) not in brought]
    done = sorted({*elsewhere, *map(label, finished)})
    workdir_lib.write_json(options.work / "done.json", done)
    small = [
        {f"runs/{label(path)}/{file.name}": file for file in sorted(path.iterdir()) if is_record(file)} for path in new
    ]
    variables = [{f"runs/{label(path)}/variables.npz": path / "variables.npz"} for path in new]
    unfinished = {path: state_files(path) for path in found if states and path not in finished}
    carried = [
        {f"unfinished/{label(path)}/{file.relative_to(path)}": file for file in files}
        for path, files in unfinished.items()
        if files
    ]
    groups = [{"done.json": options.work / "done.json"}, *small, *variables, *carried]
    written = pieces.write(options.out, groups)
    for group, fits in zip(groups, written, strict=True):
        if not fits:
            print(f"{next(iter(group))} does not fit: it stays in {options.work}", flush=True)
    return [label(path) for path, fits in zip(new, written[1 + len(new) :], strict=False) if fits]


def is_record(file) -> bool:
    """Whether a file of a workdir is kept in addition to its variables and checkpoints."""
    return file.suffix in (".json", ".jsonl", ".csv", ".npz") and file.name != "variables.npz"


def label(path) -> str:
    """Returns the name of a run, the end of its folder: '<row>/seed0'."""
    return f"{path.parent.name}/{path.name}"


def state_files(path) -> list[pathlib.Path]:
    """Returns the records and newest checkpoints of an unfinished run, to continue it elsewhere; [] without any."""
    files = [file for file in path.iterdir() if is_record(file)]
    for kind in ("latest", "best"):
        steps = [step for step in (path / "checkpoints" / kind).glob("*") if step.name.isdigit()]
        if not steps:
            return []
        newest = max(steps, key=lambda step: int(step.name))
        files += [file for file in newest.rglob("*") if file.is_file()]
    return files


def take_up(options) -> list[str]:
    """Copies the unfinished runs of an earlier machine into options.work; returns the finished ones."""
    unfinished = options.resume / "unfinished"
    for config in unfinished.glob("*/*/config.json"):
        target = options.work / "runs" / label(config.parent)
        if not target.exists():
            shutil.copytree(config.parent, target)
    path = options.resume / "done.json"
    recorded = [f"{name}/seed{seed}" for name, seed in runfiles.done(runfiles.read(options.records))]
    return recorded + (json.loads(path.read_text()) if path.exists() else [])


def run_apart(name: str, seed: int, options, deadline: float) -> None:
    """Does `run_one` in a separate process. Raises OutOfTime like it, and RuntimeError if the process fails."""
    run = label(workdir(name, seed, options))
    log = options.work / "logs" / f"{run.replace('/', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    line = [sys.executable, __file__, "--run", name, str(seed), "--until", str(deadline), "--out", options.out]
    line += ["--work", options.work, "--data", options.data, "--workers", str(options.workers)]
    line += ["--dry_run"] if options.dry_run else []
    # By default JAX allocates three quarters of a GPU at its start, which leaves nothing for the next process.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    with open(log, "w") as file:
        try:
            left = deadline - time.monotonic() + GRACE_SECONDS
            status = subprocess.run(
                list(map(str, line)), env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=left, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise OutOfTime from None
    if status == OUT_OF_TIME:
        raise OutOfTime
    lines = log.read_text().splitlines()
    if status:
        raise RuntimeError(f"{run}: exit status {status}; the end of {log}:\n" + "\n".join(lines[-LOG_LINES:]))
    print("\n".join(text for text in lines if text.startswith(f"{name} {seed}: ") and "accuracy" in text), flush=True)


def train_rows(options, deadline: float) -> list[str]:
    """Runs jobs until the time is over; returns the names of the failed ones."""
    elsewhere, failed = take_up(options), []
    marks = options.work / "brought.json"
    brought = json.loads(marks.read_text()) if marks.exists() else []
    skipped = lambda name, seed: label(workdir(name, seed, options)) in elsewhere  # noqa: E731
    waiting = [job for job in jobs(options) if not skipped(*job) and not is_finished(*job, options)]
    queue_lock, out_lock = threading.Lock(), threading.Lock()

    def take():
        with queue_lock:
            late = deadline - time.monotonic() < START_SECONDS and not options.dry_run
            return waiting.pop(0) if waiting and not late else None

    def work():
        while job := take():
            run, started = label(workdir(*job, options)), time.monotonic()
            print(f"== {run}", flush=True)
            try:
                if options.workers > 1:
                    run_apart(*job, options, deadline)
                else:
                    with time_limit(deadline):
                        run_one(*job, options, deadline)
            except OutOfTime:
                print(f"{run} is not finished; the next call continues it", flush=True)
                return
            except Exception:  # the other rows still run
                traceback.print_exc()
                failed.append(run)
            print(f"{run}: {time.monotonic() - started:.0f} s", flush=True)
            with out_lock:
                export(options, elsewhere, brought, states=False)  # now, in case this call is killed
            jax.clear_caches()
            gc.collect()

    if options.workers > 1:
        with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
            for one in [pool.submit(work) for _ in range(options.workers)]:
                one.result()
    else:
        work()  # only the main thread gets signals
    whole = export(options, elsewhere, brought)
    workdir_lib.write_json(marks, [*brought, *whole])
    return failed


def parse(argv=None):
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    packed = ROOT / ".gpu"
    parser.add_argument("--minutes", type=float, default=9.0, help="of training in this call; default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder that comes back")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/fer_gpu"), help="default: %(default)s")
    parser.add_argument("--data", type=pathlib.Path, default=packed / "faces.zip", help="default: %(default)s")
    parser.add_argument("--resume", type=pathlib.Path, default=packed / "resume", help="default: %(default)s")
    parser.add_argument("--records", type=pathlib.Path, default=runfiles.FOLDER, help="the run files (%(default)s)")
    parser.add_argument("--rows", type=lambda text: text.split(","), help="names of rows, in order; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="of each row; default: %(default)s")
    parser.add_argument("--workers", type=int, default=6, help="runs that share the GPU; default: %(default)s")
    parser.add_argument("--dry_run", action="store_true", help="2 epochs of 64 faces a run, without the test split")
    parser.add_argument("--run", nargs=2, metavar=("ROW", "SEED"), help="this run alone, as --workers starts it")
    parser.add_argument("--until", type=float, help="the end of --run, as time.monotonic() has it")
    return parser.parse_args(argv)


def main():
    """Trains, and prints the failed runs."""
    options = parse()
    deadline = time.monotonic() + 60 * options.minutes
    command.start_logging()
    for folder in (options.out, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    if options.run:
        try:
            with time_limit(options.until):
                run_one(options.run[0], int(options.run[1]), options, options.until)
        except OutOfTime:
            sys.exit(OUT_OF_TIME)
        return
    datasets.load(make_config(*jobs(options)[0], options).data)  # prepares the data that the workers read
    failed = train_rows(options, deadline)
    print(f"failed: {', '.join(failed)}" if failed else "no run failed")


if __name__ == "__main__":
    command.run(main)
