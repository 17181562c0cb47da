"""What happens to training in two processes if one of them is killed, stopped, interrupted or hangs?

python experiments/faults/many.py [--minutes 30]

Two processes train config.py on drawn faces over the loopback device, repeatedly for so many minutes: one of them is
disturbed at a random moment, both end, and the same command resumes the run. Each finished run is compared, bit for
bit, with an undisturbed one. Writes many.json and many.md to this folder.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import run

from fer_jax import command
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

HEARTBEAT_SECONDS = 5
LATE_SECONDS = 60
# Fault of one of two processes -> the exit codes of it and of the other one, after the first step.
CODES = {"SIGTERM": (143, 143), "Ctrl-C": (130, 143), "kill -9": (-9, 1), "hang": (-9, 1)}
SIGNALS = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT, "kill -9": signal.SIGKILL, "hang": signal.SIGSTOP}


def start(workdir) -> list[subprocess.Popen]:
    """Starts both processes, which log to <workdir>-<number>.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "fer_jax.main", "--config", run.HERE / "config.py", "--workdir", workdir]
    line += ["--multi_process", f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2", "--join_seconds=60"]
    line += [f"--heartbeat_seconds={HEARTBEAT_SECONDS}"]
    started = []
    for number in range(2):
        with open(f"{workdir}-{number}.log", "w") as file:
            words = [*map(str, line), f"--process_id={number}"]
            started.append(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT))
    return started


def said(workdir, number) -> str:
    """Returns the messages of a process."""
    return pathlib.Path(f"{workdir}-{number}.log").read_text(errors="replace")


def resident_mib(processes) -> list[int]:
    """Returns the resident memory of each process (Linux)."""
    try:
        texts = [pathlib.Path(f"/proc/{process.pid}/status").read_text() for process in processes]
    except FileNotFoundError:
        return []
    return [round(int(size) / 1024) for text in texts for size in re.findall(r"VmRSS:\s+(\d+)", text)]


def harm(kind, victim, delay, workdir) -> dict:
    """Starts a run, disturbs one of its processes after some seconds, and returns how both end."""
    processes = start(workdir)
    ends = time.monotonic() + delay
    mib = []
    while time.monotonic() < ends and all(process.poll() is None for process in processes):
        mib = resident_mib(processes) or mib
        time.sleep(0.05)
    row = {"harm": kind, "victim": victim, "after_seconds": round(delay, 1), "mib": mib}
    if any(process.poll() is not None for process in processes):  # the run ended before the fault
        codes = [process.wait(LATE_SECONDS) for process in processes]
        return row | {"harm": "none", "exit_codes": codes, "seconds": 0.0, "finished": codes == [0, 0], "wrong": []}
    trained = "memory of a step" in said(workdir, 0)
    finished = "best epoch" in said(workdir, 0)
    sent = time.monotonic()
    processes[victim].send_signal(SIGNALS[kind])
    wrong = []
    try:
        processes[1 - victim].wait(LATE_SECONDS)
    except subprocess.TimeoutExpired:
        wrong.append("the other one does not end")
        processes[1 - victim].kill()
    seconds = time.monotonic() - sent
    if kind == "hang":
        processes[victim].kill()
    codes = [process.wait(LATE_SECONDS) for process in processes]
    texts = [said(workdir, number) for number in range(2)]
    finished = finished or codes == [0, 0]
    if not finished and trained:
        if (codes[victim], codes[1 - victim]) != CODES[kind]:
            wrong.append(f"exit codes {codes}")
        steps = [re.findall(r"stopped at step (\d+)", text) for text in texts]
        wrong += [] if steps[0] == steps[1] else [f"saved steps {steps}"]
    wrong += ["a stack is printed"] * any(re.search(r"Traceback|Check failure", text) for text in texts)
    return row | {
        "trained": trained,
        "exit_codes": codes,
        "seconds": round(seconds, 1),
        "finished": finished,
        "wrong": wrong,
        "said": [text.strip().splitlines()[-1] if text.strip() else "" for text in texts],
    }


def table(results) -> str:
    """Returns the results in Markdown."""
    lines = [
        "| one of two | times | the other one ended within, median (most) | exit codes, its and the other's | wrong |"
    ]
    lines += ["| --- " * 5 + "|"]
    for kind in SIGNALS:
        rows = [row for row in results["rows"] if row["harm"] == kind and not row["finished"]]
        if not rows:
            continue
        seconds = [row["seconds"] for row in rows]
        pairs = [(row["exit_codes"][row["victim"]], row["exit_codes"][1 - row["victim"]]) for row in rows]
        codes = collections.Counter(pairs)
        cells = [
            kind,
            len(rows),
            f"{np.median(seconds):.1f} s ({max(seconds):.1f} s)",
            ", ".join(f"{mine} and {other} x {count}" for (mine, other), count in sorted(codes.items())),
            sum(bool(row["wrong"]) for row in rows),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    most = [max(row["mib"]) for row in results["rows"] if row["mib"]]
    third = max(1, len(most) // 3)
    equal = sum(not one["different"] for one in results["runs"])
    lines += [
        "",
        f"In {results['minutes']:.0f} minutes {len(results['runs'])} runs came to their end so, {equal} of them with "
        "the bits of the run that was left alone. Memory of the larger process when it was harmed: "
        f"{np.median(most[:third]):.0f} MiB in the median of the first third, {np.median(most[-third:]):.0f} MiB in "
        "that of the last.",
    ]
    return "\n".join(lines) + "\n"


def main():
    """Runs for so many minutes, and writes after each run. Raises InputError at the end if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=30, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=run.HERE, help="default: %(default)s")
    options = parser.parse_args()
    command.start_logging()
    # A shell's background processes ignore Ctrl-C, and the training processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["JAX_PLATFORMS"] = "cpu"
    draw = random.Random(options.seed)
    results = {**workdir_lib.facts(), "seed": options.seed, "rows": [], "runs": []}
    with tempfile.TemporaryDirectory() as temporary:
        whole, workdir = (pathlib.Path(temporary) / name for name in ("whole", "harmed"))
        began = time.monotonic()
        if [process.wait() for process in start(whole)] != [0, 0]:
            raise InputError(f"the undisturbed run fails: {said(whole, 0)} {said(whole, 1)}")
        longest = time.monotonic() - began
        print(f"a run takes {longest:.1f} s", flush=True)
        began, parts = time.monotonic(), 0
        while time.monotonic() - began < 60 * options.minutes or workdir.exists():
            kind, victim = draw.choice(list(SIGNALS)), draw.randrange(2)
            over = time.monotonic() - began > 60 * options.minutes  # only the run in progress is ended
            row = harm(kind, victim, 10 * longest if over else draw.uniform(3, longest), workdir)
            parts += 1
            results["rows"].append(row)
            results["minutes"] = (time.monotonic() - began) / 60
            print(json.dumps(row), flush=True)
            if row["finished"]:
                different = run.differences(whole, workdir)
                results["runs"].append({"parts": parts, "different": different})
                print(json.dumps(results["runs"][-1]), flush=True)
                shutil.rmtree(workdir)
                parts = 0
            workdir_lib.write_json(options.out / "many.json", results)
            (options.out / "many.md").write_text(table(results))
    print(table(results))
    wrong = [row for row in results["rows"] if row["wrong"]] + [one for one in results["runs"] if one["different"]]
    if wrong:
        raise InputError(f"{len(wrong)} of these went wrong: {wrong}")


if __name__ == "__main__":
    command.run(main)
