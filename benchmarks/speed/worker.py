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
import time

import numpy as np

WARM_UP_SECONDS, LEAST_BATCHES = 1.0, 2


class Timed:
    """A system and how long its batches take, so that some seconds of work can be asked for."""

    def __init__(self, system, batch: int):
        self.system, self._batch, self._batch_seconds = system, batch, {}

    def measure(self, kind: str, seconds: float) -> dict:
        """Returns {"images", "seconds"} of about so much work, whole batches; the first time it warms up before."""
        if kind not in self._batch_seconds:
            self.run(kind, 1)  # compiles
            self.run(kind, 1)
            if self._batch_seconds[kind] < WARM_UP_SECONDS / LEAST_BATCHES:
                self.run(kind, self._batches(kind, min(seconds, WARM_UP_SECONDS)))
        batches = self._batches(kind, seconds)
        return {"images": batches * self._batch, "seconds": self.run(kind, batches)}

    def run(self, kind: str, batches: int) -> float:
        """Returns the seconds of some batches."""
        started = time.perf_counter()
        counted = getattr(self.system, kind)(batches)  # a system that times itself returns the seconds
        took = counted or time.perf_counter() - started
        self._batch_seconds[kind] = took / batches
        return took

    def _batches(self, kind, seconds):
        return max(LEAST_BATCHES, round(seconds / self._batch_seconds[kind]))


class Worker:
    """The answers of one process; the module of its framework has a class `System`, of which one row is made."""

    def __init__(self, framework):
        started = time.perf_counter()
        self._module = importlib.import_module(f"in_{framework}")
        self._import_seconds = time.perf_counter() - started
        self._timed = None

    def answer(self, ask: dict) -> dict:
        """Does what is asked."""
        if ask["do"] == "build":
            return self._build(ask["spec"], ask["data"], ask["choice"])
        if ask["do"] == "finish":
            peak = peak_mib()  # before the description, which may compile again
            return {"peak_MiB": peak, **self._timed.system.describe()}
        return self._timed.measure(ask["do"], ask["seconds"])

    def _build(self, spec, path, choice):
        data = np.load(path)
        started = time.perf_counter()
        system = self._module.System(spec, data["images"], data["labels"], **choice)
        built = time.perf_counter()
        system.train(1)
        first_step = time.perf_counter() - built
        self._timed = Timed(system, spec["batch"])
        return {
            "import_seconds": self._import_seconds,
            "build_seconds": built - started,
            "first_step_seconds": first_step,
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
