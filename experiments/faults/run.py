"""What happens to a run that is killed, interrupted or started twice, or whose checkpoints are corrupt?

python experiments/faults/run.py

Trains config.py in two phases on drawn faces, repeatedly: with signals at random moments, with two processes in one
workdir, and with flipped bits in its checkpoints. Each run is then resumed and compared, bit for bit, with an
undisturbed one. Writes results.json and table.md next to this file; about 40 minutes on two cores.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from fer_jax import checkpoint, command, inference
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

HERE = pathlib.Path(__file__).resolve().parent
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
# 0: the run ended first; negative: the signal came before the command could handle it.
EXIT_CODES = {"kill -9": {-9, 0}, "SIGTERM": {143, -15, 0}, "Ctrl-C": {130, -2, 0}}
TIMED = ("seconds", "images_per_second", "steps_per_second", "data_wait_share", "peak_memory_mib")
MOMENTS = {  # by the last message before the signal
    "imports and data": "",
    "compile": "training: ",
    "first phase": "memory of a step",
    "second phase": "fine-tuning from",
    "end": "best epoch",
}
LATE_SECONDS = 10.0


def start(workdir, log) -> subprocess.Popen:
    """Starts training, with its messages in a file."""
    line = [sys.executable, "-m", "fer_jax.main", "--config", HERE / "config.py", "--workdir", workdir]
    with open(log, "w") as file:
        return subprocess.Popen(list(map(str, line)), stdout=file, stderr=subprocess.STDOUT)


def finish(workdir, log) -> None:
    """Trains to the end. Raises InputError if that fails."""
    if start(workdir, log).wait():
        raise InputError(f"{workdir} cannot be trained: see {log}")


def arrays_of(workdir, kind: str) -> dict:
    """Returns the arrays of a checkpoint by name: of the best variables, or of the latest train state."""
    if kind == "best":
        tree = inference.load(workdir, "best").variables
    else:
        checkpoints = checkpoint.Checkpoints(workdir)
        tree, _ = checkpoints.restore("latest", None)
        checkpoints.close()
    return {name: np.asarray(leaf) for name, leaf in config_lib.flat(_as_dict(tree)).items()}


def _as_dict(tree):
    if isinstance(tree, list | tuple):
        return {str(number): _as_dict(leaf) for number, leaf in enumerate(tree)}
    return {name: _as_dict(leaf) for name, leaf in tree.items()} if isinstance(tree, dict) else tree


def records_of(workdir) -> list[dict]:
    """Returns the metrics of a run without times and memory."""
    return [
        {key: value for key, value in record.items() if key not in TIMED}
        for record in workdir_lib.read_metrics(workdir)
    ]


def differences(one, two) -> list[str]:
    """Returns the differences between two runs: their records, or arrays of a checkpoint."""
    found = [] if records_of(one) == records_of(two) else ["records"]
    for kind in ("best", "latest"):
        found += [] if _equal(arrays_of(one, kind), arrays_of(two, kind)) else [kind]
    return found


def _equal(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def moment_of(text: str) -> str:
    """Returns the stage that a run had reached, by its messages."""
    found = [name for name, message in MOMENTS.items() if message in text]
    return found[-1]


def interrupt(kind: str, delay: float, whole, folder) -> dict:
    """Sends a signal some seconds after the start of a run, resumes it and compares; returns what happened."""
    workdir, log = folder / "interrupted", folder / "interrupted.log"
    process = start(workdir, log)
    time.sleep(delay)
    text = log.read_text()
    process.send_signal(SIGNALS[kind])
    sent = time.monotonic()
    status = process.wait()
    took = time.monotonic() - sent
    said = log.read_text()[len(text) :].strip().splitlines()
    finish(workdir, folder / "resumed.log")
    different = differences(whole, workdir)
    shutil.rmtree(workdir)
    return {
        "signal": kind,
        "after_seconds": delay,
        "moment": moment_of(text),
        "seconds_to_end": took,
        "exit_code": status,
        "said": said[-1] if said else "",
        "traceback": any("Traceback" in line for line in said),
        "different": different,
    }


def start_pair(whole, folder) -> dict:
    """Starts two training processes in one workdir; returns how they ended."""
    workdir, logs = folder / "pair", [folder / f"pair-{which}.log" for which in "ab"]
    statuses = [process.wait() for process in [start(workdir, log) for log in logs]]
    refused = [log.read_text().strip().splitlines()[-1] for log, status in zip(logs, statuses, strict=True) if status]
    different = differences(whole, workdir)
    shutil.rmtree(workdir)
    return {"exit_codes": sorted(statuses), "said": refused, "different": different}


def flip(kind: str, whole, folder, draw) -> dict:
    """Flips a bit in a file of a checkpoint; returns the file and the outcome of loading it."""
    workdir = shutil.copytree(whole, folder / "flipped")
    newest = max((workdir / "checkpoints" / kind).iterdir(), key=lambda path: int(path.name))
    files = [path for path in sorted(newest.rglob("*")) if path.is_file() and path.stat().st_size]
    path = draw.choices(files, weights=[file.stat().st_size for file in files])[0]
    content = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        found, said = arrays_of(workdir, kind), ""
        outcome = "harmless" if _equal(found, arrays_of(whole, kind)) else "loaded otherwise"
        if outcome != "harmless" and kind == "latest":
            shutil.rmtree(newest)
            outcome = "the one before is taken" if _equal(found, arrays_of(workdir, kind)) else outcome
    except InputError as error:
        outcome, said = "refused", str(error)
    shutil.rmtree(workdir)
    return {"checkpoint": kind, "file": str(path.relative_to(newest)), "bit": bit, "outcome": outcome, "said": said}


def table(results: dict) -> str:
    """Returns the results in Markdown."""
    lines = [
        "| signal | sent | while | ended within, median (most) | exit codes | resumed with equal bits |",
        "| --- " * 6 + "|",
    ]
    for kind in SIGNALS:
        rows = [row for row in results["signals"] if row["signal"] == kind]
        if not rows:
            continue
        moments = collections.Counter(row["moment"] for row in rows)
        seconds = [row["seconds_to_end"] for row in rows]
        codes = collections.Counter(row["exit_code"] for row in rows)
        cells = [
            kind,
            len(rows),
            ", ".join(f"{name} {moments[name]}" for name in MOMENTS if moments[name]),
            f"{np.median(seconds):.1f} s ({max(seconds):.1f} s)",
            ", ".join(f"{code} x {count}" for code, count in sorted(codes.items())),
            f"{sum(not row['different'] for row in rows)} of {len(rows)}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    pairs = results["pairs"]
    right = sum(pair["exit_codes"] == [0, 2] and not pair["different"] for pair in pairs)
    lines += [
        "",
        f"Of {len(pairs)} pairs of processes started in one workdir, {right} ended with one trained as if alone and "
        "the other refused (exit code 2).",
        "",
        "| checkpoint | bits flipped | refused | the one before is taken | harmless | loaded otherwise |",
        "| --- " * 6 + "|",
    ]
    for kind in ("best", "latest"):
        outcomes = collections.Counter(row["outcome"] for row in results["flips"] if row["checkpoint"] == kind)
        names = ("refused", "the one before is taken", "harmless", "loaded otherwise")
        lines.append(f"| {kind} | {sum(outcomes.values())} | {' | '.join(str(outcomes[name]) for name in names)} |")
    return "\n".join(lines) + "\n"


def main():
    """Runs everything, and writes after each kind. Raises InputError at the end if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--signals", type=int, default=20, help="runs that get each signal; default: %(default)s")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of runs; default: %(default)s")
    parser.add_argument("--flips", type=int, default=24, help="number of flipped bits; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and bits; default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="default: %(default)s")
    options = parser.parse_args()
    command.start_logging()
    # A shell's background processes ignore Ctrl-C, and the training processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["JAX_PLATFORMS"] = "cpu"
    draw = random.Random(options.seed)
    results = {**workdir_lib.facts(), "seed": options.seed, "signals": [], "pairs": [], "flips": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        whole = folder / "whole"
        finish(folder / "first", folder / "first.log")  # compiles the programs, and draws the faces
        started = time.monotonic()
        finish(whole, folder / "whole.log")
        seconds = results["seconds_of_a_run"] = time.monotonic() - started
        print(f"a run takes {seconds:.1f} s", flush=True)
        draw_delay = lambda: draw.uniform(0.2, seconds)  # noqa: E731
        work = [
            *(("signals", (kind, draw_delay(), whole, folder)) for _ in range(options.signals) for kind in SIGNALS),
            *(("pairs", (whole, folder)) for _ in range(options.pairs)),
            *(("flips", (("best", "latest")[number % 2], whole, folder, draw)) for number in range(options.flips)),
        ]
        for which, arguments in work:
            row = {"signals": interrupt, "pairs": start_pair, "flips": flip}[which](*arguments)
            results[which].append(row)
            print(which, json.dumps(row), flush=True)
            workdir_lib.write_json(options.out / "results.json", results)
            (options.out / "table.md").write_text(table(results))
    print(table(results))
    if wrong := faults(results):
        raise InputError(f"{len(wrong)} of these went wrong: {wrong}")


def faults(results: dict) -> list[dict]:
    """Returns the rows with unexpected outcomes."""
    late = lambda row: row["seconds_to_end"] > LATE_SECONDS  # noqa: E731
    return [
        *(
            row
            for row in results["signals"]
            if row["different"]
            or row["traceback"]
            or late(row)
            or row["exit_code"] not in EXIT_CODES[row["signal"]] | {0}
        ),
        *(pair for pair in results["pairs"] if pair["different"] or pair["exit_codes"] != [0, 2]),
        *(row for row in results["flips"] if row["outcome"] == "loaded otherwise"),
    ]


if __name__ == "__main__":
    command.run(main)
