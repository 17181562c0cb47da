"""Is one stack of Python, JAX and fer_jax faster than another? Pairs their train steps on one machine.

python benchmarks/speed/stacks.py --old <python> <checkout> --new <python> <checkout> [--rows lean,r5_cnn]

Each side is an interpreter and a checkout of this project, with the row in its own process; in each round one after the
other trains for some seconds. A ratio is the new side's images per second over the old side's in the same round; its
median is reported with a 95% bootstrap interval. Writes stacks.json next to this file.
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import processes

from fer_jax import command
from fer_jax import workdir as workdir_lib

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
ROWS = ("r1_model_2", "r5_cnn", "lean", "resnet50_165_frozen", "efficientnetb0_96")
FACES = 512
DESCRIBE = "import json, sys, rows; print(json.dumps(rows.describe(rows.get_config(rows.ROWS[sys.argv[1]]))))"


class Side:
    """An interpreter and a checkout, with the worker of a row."""

    def __init__(self, python: str, checkout: str):
        (worker,) = pathlib.Path(checkout).resolve().glob("*/speed/worker.py")  # in experiments/ in old checkouts
        self._python, self._folder = python, worker.parent
        self._env = {**os.environ, "PYTHONPATH": str(self._folder.parents[1])}
        self.name = f"{python} {checkout}"

    def describe(self, row: str) -> dict:
        """Returns a row as described by the side's own code."""
        line = [self._python, "-c", DESCRIBE, row]
        return json.loads(subprocess.check_output(line, cwd=self._folder, env=self._env, text=True))

    def start(self, row: str, data: str):
        """Starts the worker of a row; returns (process, its facts)."""
        process = processes.Process("fer_jax", python=self._python, folder=self._folder, env=self._env)
        return process, process.ask(do="build", spec=self.describe(row), data=data, choice={})


def pair(row: str, sides: dict, *, rounds: int, seconds: float) -> dict:
    """Returns the images per second of both sides, {'old': [...], 'new': [...]}, and their ratio."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "faces.npz")
        images = rng.integers(0, 256, (FACES, 48, 48, 1), dtype=np.uint8)
        np.savez(data, images=images, labels=rng.integers(0, 7, FACES).astype(np.int32))
        started = {name: side.start(row, data) for name, side in sides.items()}
    works = {
        name: functools.partial(process.ask, do="train", seconds=seconds) for name, (process, _) in started.items()
    }
    rates = {name: [] for name in sides}
    for number, done in enumerate(timing.take_turns(works, rounds, alternate=True)):
        for name, measured in done.items():
            rates[name].append(timing.images_per_second(measured))
        print(f"{row}: round {number + 1} of {rounds}: {rates['new'][-1] / rates['old'][-1]:.3f}", flush=True)
    for process, _ in started.values():
        process.__exit__()
    ratios = timing.ratios(rates["new"], rates["old"])
    return {
        "images_per_second": rates,
        "ratio": {"median": ratios["median"], "interval_95": timing.interval_95(ratios["rounds"])},
        "versions": {name: built["versions"] for name, (_, built) in started.items()},
    }


def main():
    """Pairs the rows, and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for side in ("old", "new"):
        parser.add_argument(f"--{side}", nargs=2, required=True, metavar=("PYTHON", "CHECKOUT"))
    names = functools.partial(str.split, sep=",")
    parser.add_argument("--rows", type=names, default=list(ROWS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each side in a round (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "stacks.json", help="default: %(default)s")
    options = parser.parse_args()
    sides = {name: Side(*getattr(options, name)) for name in ("old", "new")}
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    for row in options.rows:
        found = pair(row, sides, rounds=options.rounds, seconds=options.seconds)
        kept[row] = {**workdir_lib.facts(), "seed": 0, "seconds": options.seconds, **found}
        workdir_lib.write_json(options.out, kept)
        print(f"{row}: {found['ratio']['median']:.3f} {found['ratio']['interval_95']}", flush=True)


if __name__ == "__main__":
    command.run(main)
