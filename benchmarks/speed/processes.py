"""The workers of a row, from the command's side: processes that exist at once, of which one works at a time."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import summary

from fer_jax.errors import InputError

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
TRIALS = 2  # of which the faster counts, so that a brief disturbance does not decide
# Documented ways to run a framework; the fastest in a short trial is measured. Keras's default for jit_compile is the
# first on a CPU and the second on a GPU.
CHOICES = {
    "cpu": {
        "fer_jax": ({},),
        "keras": ({"jit_compile": False}, {"jit_compile": True}),
        "torch": ({"memory_format": "channels_last"}, {"memory_format": "contiguous_format"}),
    },
    "gpu": {
        "fer_jax": ({},),
        "keras": ({"jit_compile": False}, {"jit_compile": True}),
        "torch": ({"mode": "default"}, {"mode": "reduce-overhead"}),  # channels last, eager kernels or CUDA graphs
    },
}


def environment(framework: str) -> dict:
    """Returns the environment of a worker: this process's, so that all frameworks share its malloc settings."""
    env = dict(os.environ)
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # three frameworks share the device
    if framework != "fer_jax":
        env.pop("XLA_FLAGS", None)  # TensorFlow's XLA aborts on unknown flags
    return env


class Process:
    """A worker; `ask` makes it work, and waits. As a context manager, it ends the process."""

    def __init__(self, framework: str, *, python: str = sys.executable, folder=HERE, env: dict | None = None):
        """folder: that of worker.py; env: instead of the result of `environment`."""
        self._framework = framework
        self._process = subprocess.Popen(
            [python, str(folder / "worker.py"), framework],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env or environment(framework),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.communicate()

    def ask(self, **question) -> dict:
        """Returns the answer. Raises InputError if the worker has ended; its messages are on stderr."""
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            raise InputError(f"the worker of {self._framework} ended at '{question['do']}': see its message above")
        return json.loads(answer)


class Crew:
    """The workers of one framework for a row: for each kind of work, the one that was fastest in a short trial.

    As a context manager, it ends its processes.
    """

    def __init__(
        self, framework: str, build: dict, *, choices: tuple, seconds: float, kinds=summary.KINDS, python=sys.executable
    ):
        """Builds the row in one worker per choice, by `ask(do="build")` with the arguments in `build`.

        seconds: of a trial of each kind of work. A choice that fails is skipped if another one works.
        """
        self._processes, failed = [], None
        with contextlib.ExitStack() as stack:
            for choice in choices:
                process = stack.enter_context(Process(framework, python=python))
                try:
                    built = process.ask(do="build", choice=choice, **build)
                except InputError as error:
                    failed = error
                    continue
                self._processes.append((process, {"choice": choice, **built, "trial_images_per_second": {}}))
            if not self._processes:
                raise failed
            for _ in range(TRIALS):
                for process, facts in self._processes:
                    best = facts["trial_images_per_second"]
                    for kind in kinds:
                        best[kind] = max(
                            best.get(kind, 0.0), timing.images_per_second(process.ask(do=kind, seconds=seconds))
                        )
            self._by_kind = {
                kind: max(self._processes, key=lambda one, kind=kind: one[1]["trial_images_per_second"][kind])
                for kind in kinds
            }
            for process, _ in self._processes:
                if not self._kinds(process):
                    process.__exit__()
            stack.pop_all()

    def _kinds(self, process):
        return [kind for kind, one in self._by_kind.items() if one[0] is process]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, _ in self._processes:
            process.__exit__()

    @property
    def parameters(self) -> dict:
        """The parameter counts of the network."""
        return self._processes[0][1]["parameters"]

    def work(self, kind: str, seconds: float) -> dict:
        """Does some work; returns its images and seconds."""
        return self._by_kind[kind][0].ask(do=kind, seconds=seconds)

    def finish(self) -> list[dict]:
        """Returns the facts of each choice that was tried; `kinds` are the kinds of work that it was chosen for."""
        found = []
        for process, facts in self._processes:
            kinds = self._kinds(process)
            found.append({**facts, "kinds": kinds, **(process.ask(do="finish") if kinds else {})})
        return found
