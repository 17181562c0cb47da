"""A process with one row in one framework, which works on request: one JSON line per question and per answer.

python benchmarks/speed/worker.py <fer_jax | keras | torch>   # started by run.py

{"do": "build", "spec": ..., "data": "<path>.npz", "choice": {...}} -> seconds of import, build and first step; counts
{"do": "train" | "evaluate" | "predict", "seconds": 8} -> {"images": ..., "seconds": ...}
{"do": "finish"} -> {"peak_MiB": ..., and facts of the framework}
"""

import importlib
import json
import os
import pathlib
import resource
import sys

import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing


class Worker:
    """Answers the questions of one process; the module of its framework has a class `System` for a row."""

    def __init__(self, framework):
        self._module, self._import_seconds = timing.seconds(importlib.import_module, f"in_{framework}")
        self._batches = None

    def answer(self, ask: dict) -> dict:
        """Does what the question asks."""
        if ask["do"] == "build":
            return self._build(ask["spec"], ask["data"], ask["choice"])
        if ask["do"] == "finish":
            peak = peak_mib()  # before describing, which may compile again
            return {"peak_MiB": peak, **self._batches.system.describe()}
        return self._batches.measure(ask["do"], ask["seconds"])

    def _build(self, spec, path, choice):
        data = np.load(path)
        system, build_seconds = timing.seconds(self._module.System, spec, data["images"], data["labels"], **choice)
        first_step_seconds = timing.seconds(system.train, 1)[1]
        self._batches = timing.Batches(system, spec["batch"])
        return {
            "import_seconds": self._import_seconds,
            "build_seconds": build_seconds,
            "first_step_seconds": first_step_seconds,
            "parameters": system.parameters(),
            "versions": self._module.versions(),
        }


def peak_mib() -> float:
    """Returns the peak memory of this process, in MiB.

    On Linux it is that of this program only; ru_maxrss would start with the parent's memory.
    """
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main():
    """Answers questions until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
