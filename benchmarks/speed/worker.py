"""A process that holds one row in one framework and works when it is asked to, a JSON line a question and an answer.

python benchmarks/speed/worker.py <fer_jax | keras | torch>   # started by run.py

{"do": "build", "spec": ..., "data": "<path>.npz", "choice": {...}} -> seconds of import, build and first step; counts
{"do": "train" | "evaluate" | "predict", "seconds": 8} -> {"images": ..., "seconds": ...}
{"do": "finish"} -> {"peak_MiB": ..., and what the framework adds}
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
    """The answers of one process; the module of its framework has a class `System`, of which one row is made."""

    def __init__(self, framework):
        self._module, self._import_seconds = timing.seconds(importlib.import_module, f"in_{framework}")
        self._batches = None

    def answer(self, ask: dict) -> dict:
        """Does what is asked."""
        if ask["do"] == "build":
            return self._build(ask["spec"], ask["data"], ask["choice"])
        if ask["do"] == "finish":
            peak = peak_mib()  # before the description, which may compile again
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
    """Returns the most memory that this process has held, MiB.

    Where Linux tells it is that of this program alone: ru_maxrss begins with what the starting process held.
    """
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main():
    """Answers until the questions end."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
