"""How fast are training, evaluation and prediction, compared with Keras on TensorFlow and with PyTorch?

python benchmarks/speed/run.py --data_path <folder with fer2013.csv> --torch_python <Python with torch>

Each row has one process per framework; they take turns, one at a time, for some rounds. Writes results.json and
table.md next to this file, or to --out; recorded rows are kept unless they are measured again.
"""

import argparse
import contextlib
import functools
import importlib.util
import pathlib
import statistics
import subprocess
import sys
import tempfile

import jax
import numpy as np
import processes
import rows as rows_lib
import summary

from fer_jax import command, datasets
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
DATA_BATCHES = 16
TRIAL_SECONDS = 2.0
DTYPES = {"cpu": ("float32",), "gpu": ("float32", "bfloat16")}
FEEDERS_ROW, FEEDERS = "r1_model_2", ("resident", "tfdata")


def say(text):
    """Prints progress."""
    print(text, file=sys.stderr, flush=True)


def write_data(faces, batch, folder):
    """Writes the faces of a row into the folder, the same for all frameworks, and returns the path."""
    picked = np.arange(DATA_BATCHES * batch) % len(faces)
    path = pathlib.Path(folder) / "faces.npz"
    np.savez(path, images=faces.images[picked], labels=faces.labels[picked].astype(np.int32))
    return str(path)


def same_counts(counts: dict) -> None:
    """Raises InputError if the frameworks differ in the numbers of parameters."""
    if len({tuple(sorted(count.items())) for count in counts.values()}) > 1:
        listed = (f"{name} {count['total']:,} ({count['trained']:,} trained)" for name, count in counts.items())
        raise InputError("these are not the same network, by their parameters: " + "; ".join(listed))


def measure(name, spec, faces, options, platform):
    """Measures a row; returns the workers' facts and the rounds of each kind of work."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        build = {"spec": spec, "data": write_data(faces, spec["batch"], folder)}
        crews = {}
        for framework in options.frameworks:
            say(f"{name}: building it in {summary.NAMES[framework]}")
            crew = processes.Crew(
                framework,
                build,
                choices=processes.CHOICES[platform][framework],
                python=options.torch_python if framework == "torch" else sys.executable,
                seconds=min(TRIAL_SECONDS, options.seconds),
            )
            crews[framework] = stack.enter_context(crew)
        same_counts({framework: crew.parameters for framework, crew in crews.items()})
        works = {
            (kind, framework): functools.partial(crew.work, kind, options.seconds)
            for kind in summary.KINDS
            for framework, crew in crews.items()
        }
        rounds = {kind: [] for kind in summary.KINDS}
        for number, found in enumerate(timing.take_turns(works, options.rounds)):
            for kind, done in rounds.items():
                done.append({framework: found[kind, framework] for framework in crews})
            now = ", ".join(f"{kind} {_ratio(done)}" for kind, done in rounds.items())
            say(f"{name}: round {number + 1} of {options.rounds}: {now}")
        return {framework: crew.finish() for framework, crew in crews.items()}, rounds


def _ratio(done):
    found = summary.ratio(done)
    return (
        f"{found['median']:.2f}"
        if found
        else f"{timing.images_per_second(next(iter(done[-1].values()))):,.0f} images/s"
    )


def feeders(spec, faces, options):
    """Returns images/s of training with each feeder, which shows whether the host keeps up with a GPU."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        build = {"spec": spec, "data": write_data(faces, spec["batch"], folder)}
        for feeder in FEEDERS:
            if feeder == "tfdata" and not importlib.util.find_spec("tensorflow"):
                continue
            with processes.Process("fer_jax") as worker:
                worker.ask(do="build", choice={"feeder": feeder}, **build)
                done = [worker.ask(do="train", seconds=options.seconds) for _ in range(options.rounds)]
            found[feeder] = statistics.median(map(timing.images_per_second, done))
    return found


def measure_row(name, dtype, faces, options, platform):
    """Returns the record of a row."""
    row = rows_lib.ROWS[name]
    spec = rows_lib.describe(rows_lib.get_config(row, dtype))
    workers, rounds = measure(name, spec, faces, options, platform)
    found = {
        **workdir_lib.facts(),
        "row": name,
        "config": row.config,
        **{key: spec[key] for key in ("batch", "size_px", "dtype")},
        "workers": workers,
        "rounds": rounds,
        "summary": summary.summarize(rounds),
    }
    if platform == "gpu" and "fer_jax" in workers:
        if options.peak_tflops:
            step_flops = summary.trainer(workers["fer_jax"])["step_flops"]
            flops = step_flops * found["summary"]["train"]["images_per_second"]["fer_jax"] / spec["batch"]
            found["model_flops_utilization"] = flops / (options.peak_tflops * 1e12)
        if name == FEEDERS_ROW:
            found["feeders_images_per_second"] = feeders(spec, faces, options)
    return found


def installed(options) -> list[str]:
    """Returns the installed frameworks."""
    has_torch = subprocess.run([options.torch_python, "-c", "import torch"], capture_output=True, check=False)
    keras = all(importlib.util.find_spec(package) for package in ("keras", "tensorflow"))
    return ["fer_jax", *(["keras"] if keras else []), *([] if has_torch.returncode else ["torch"])]


def parse():
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = functools.partial(str.split, sep=",")
    parser.add_argument("--rows", type=names, default=list(rows_lib.ROWS), help=f"of {','.join(rows_lib.ROWS)}")
    parser.add_argument("--frameworks", type=names, help="of fer_jax,keras,torch; default: those installed")
    parser.add_argument("--dtypes", type=names, help="default: float32, on a GPU bfloat16 too")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each kind of work in a round (%(default)s)")
    parser.add_argument("--data_path", default="", help="as data.path; default: drawn faces")
    parser.add_argument("--torch_python", default=sys.executable, help="the Python that has torch; default: this one")
    parser.add_argument("--peak_tflops", type=float, default=0.0, help="of the GPU in the dtype of the row")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results.json", help="default: %(default)s")
    parser.add_argument("--figure", type=pathlib.Path, help="a PNG of the ratios")
    options = parser.parse_args()
    options.frameworks = options.frameworks or installed(options)
    for kind, given, known in (
        ("rows", options.rows, rows_lib.ROWS),
        ("frameworks", options.frameworks, summary.NAMES),
    ):
        if unknown := set(given) - set(known):
            raise InputError(f"--{kind}: unknown {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    return options


def record(out: pathlib.Path, key: str, row: dict) -> dict:
    """Adds a row to the record and its table; returns all rows."""
    recorded = {"rows": {}}
    if out.exists():
        recorded = workdir_lib.read_json(out, what="record", fix="give another --out")
    recorded["rows"][key] = row
    out.parent.mkdir(parents=True, exist_ok=True)
    workdir_lib.write_json(out, recorded)
    out.with_name("table.md").write_text(summary.table(recorded["rows"]))
    return recorded["rows"]


def main():
    """Measures the rows, and writes the record after each."""
    options = parse()
    platform = "cpu" if jax.default_backend() == "cpu" else "gpu"
    config = config_lib.get_default()
    config.data.path = options.data_path
    data = datasets.load(config.data)
    setting = {"rounds": options.rounds, "seconds": options.seconds, "seed": 0}
    setting |= {"data": data.name, "data_fingerprint": data.fingerprint}
    for dtype in options.dtypes or DTYPES[platform]:
        for name in options.rows:
            found = measure_row(name, dtype, data.train, options, platform)
            key = name if dtype == "float32" else f"{name} {dtype}"
            rows = record(options.out, key, {**found, "setting": setting})
    if options.figure:
        summary.figure(rows, options.figure)
    print(summary.table(rows), end="")


if __name__ == "__main__":
    command.run(main)
