"""How accurate and how fast are popular packages, and ours, on the same faces?

python benchmarks/packages/run.py --data_path <folder with fer2013.csv> --fer_python <python> --node_modules <folder>

Scores FER-2013's PublicTest faces, already cropped, with each package in its own process, and writes results.json and
table.md next to this file. The README says what to install. Only the emotion networks are compared, without detection.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from fer_jax import command, datasets
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

HERE = pathlib.Path(__file__).resolve().parent
BATCHES = (1, 128)


def commands_of(options) -> dict:
    """Returns {name in the table: the command without faces and jobs}."""
    ours = [sys.executable, HERE / "in_fer_jax.py"]
    found = {f"fer_jax, {options.model}, {views}": [*ours, f"{options.model}:{views}"] for views in options.views}
    if options.fer_python:
        found |= {f"fer, {kind}": [options.fer_python, HERE / "in_fer.py", kind] for kind in ("keras", "tflite")}
    if options.node_modules:
        found["face-api, WASM"] = ["node", HERE / "face_api.mjs", options.node_modules]
    return found


def measure(line, file, jobs) -> dict:
    """Runs a package once; returns its seconds to the first answer, and the rate and labels of each job.

    Raises:
      InputError: it fails, or returns labels for fewer faces than it was given.
    """
    started = time.perf_counter()
    with subprocess.Popen(
        [*map(str, line), str(file), json.dumps(jobs)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline()
        took = time.perf_counter() - started
        rest, errors = process.communicate()
    if process.returncode:
        raise InputError(f"{line[0]} {line[1]} failed: {errors.strip().splitlines()[-1:]}")
    json.loads(first)
    found = [json.loads(text) for text in rest.splitlines() if text.startswith("{")]
    for job, one in zip(jobs, found, strict=True):
        if len(one["labels"]) != job["count"]:
            raise InputError(f"{line[1]} returned labels for {len(one['labels'])} of {job['count']} faces")
    return {"first_seconds": took, "jobs": found}


def summarize(rounds, labels, names) -> dict:
    """Returns a package's accuracy, and the median and range of each figure over its rounds."""
    predicted = rounds[0]["jobs"][-1]["labels"]
    right = np.mean([name == names[label] for name, label in zip(predicted, labels, strict=True)])
    figures = {"accuracy": float(right), "first_seconds": _spread([one["first_seconds"] for one in rounds])}
    for place, batch in enumerate(BATCHES):
        rates = [len(one["jobs"][place]["labels"]) / one["jobs"][place]["seconds"] for one in rounds]
        figures[f"images_per_second_{batch}"] = _spread(rates)
    return figures


def _spread(values):
    return {"median": float(np.median(values)), "least": min(values), "most": max(values)}


def table(results) -> str:
    """Returns the results in Markdown."""
    lines = ["| package | accuracy | first answer, s | images/s, batch 1 | images/s, batch 128 |", "| --- " * 5 + "|"]
    for name, figures in results["packages"].items():
        cells = [name, f"{figures['accuracy']:.4f}", _cell(figures["first_seconds"], 2)]
        cells += [_cell(figures[f"images_per_second_{batch}"], 0) for batch in BATCHES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(spread, digits):
    return f"{spread['median']:,.{digits}f} ({spread['least']:,.{digits}f} to {spread['most']:,.{digits}f})"


def main():
    """Measures the packages in alternating rounds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", required=True, help="FER-2013, as data.path")
    parser.add_argument("--fer_python", help="the Python of an environment with the package fer")
    parser.add_argument("--node_modules", help="a folder with @vladmandic/face-api and @tensorflow/tfjs")
    parser.add_argument("--model", default="small", help="of ours; default: %(default)s")
    parser.add_argument("--views", nargs="+", default=["none", "flip", "flip_shifts"], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--single", type=int, default=300, help="number of faces for batch 1; default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="default: %(default)s")
    options = parser.parse_args()
    command.start_logging()
    section = config_lib.get_default().data
    section.path = options.data_path
    data = datasets.load(section)
    faces = data.validation
    jobs = [{"batch": 1, "count": options.single}, {"batch": 128, "count": len(faces.labels)}]
    lines = commands_of(options)
    rounds = {name: [] for name in lines}
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "faces.u8"
        faces.images.tofile(file)
        for number in range(options.rounds):
            for name, line in lines.items():
                rounds[name].append(measure(line, file, jobs))
                print(f"round {number + 1}/{options.rounds}: {name}", flush=True)
    packages = {name: summarize(found, faces.labels, data.classes) for name, found in rounds.items()}
    results = {**workdir_lib.facts(), "faces": len(faces.labels), "rounds": options.rounds, "packages": packages}
    workdir_lib.write_json(options.out / "results.json", results)
    (options.out / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    command.run(main)
