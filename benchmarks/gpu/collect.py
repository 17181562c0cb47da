"""Unpacks the results of train_rows.py to where the project's commands find them.

python benchmarks/gpu/collect.py <the folder that came back>

Finished runs become workdirs, <runs>/<row>/seed<k>, with their best variables as a checkpoint, for fer_jax.evaluate,
predict and ensemble, and for experiments/reports/run.py --collect, which makes run files of them. Everything that the
next call needs is in .gpu/resume.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import numpy as np
import pieces

from fer_jax import checkpoint, command
from fer_jax import workdir as workdir_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "reports" / "whole"  # where `experiments/reports/run.py --collect` looks


def restore(folder) -> None:
    """Makes the best checkpoint of a workdir from its variables, converted back to float32."""
    meta = json.loads((folder / "best.json").read_text())
    variables = {}
    with np.load(folder / "variables.npz") as found:
        for name, array in found.items():
            *path, leaf = name.split(".")
            place = variables
            for part in path:
                place = place.setdefault(part, {})
            place[leaf] = array.astype(np.float32)
    variables.setdefault("batch_stats", {})
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.save("best", meta["step"], variables, meta)
    checkpoints.close()


def collect(folder, runs, resume) -> list[str]:
    """Unpacks the results; returns the names of the runs in them, '<row>/seed0'."""
    with tempfile.TemporaryDirectory() as unpacked:
        found = pathlib.Path(unpacked)
        pieces.read(folder, found)
        names = []
        for config in sorted(found.glob("runs/*/*/config.json")):
            target = runs / config.parent.relative_to(found / "runs")
            shutil.copytree(config.parent, target, dirs_exist_ok=True)
            if (target / "variables.npz").exists():
                restore(target)
            names.append(f"{target.parent.name}/{target.name}")
        done = resume / "done.json"
        before = json.loads(done.read_text()) if done.exists() else []
        shutil.rmtree(resume, ignore_errors=True)
        resume.mkdir(parents=True)
        if (found / "unfinished").exists():
            shutil.copytree(found / "unfinished", resume / "unfinished")
        workdir_lib.write_json(done, sorted({*before, *json.loads((found / "done.json").read_text())}))
    return names


def main():
    """Collects the runs, and lists the new ones."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=pathlib.Path, help="holds results.zip.0 and what follows")
    parser.add_argument("--runs", type=pathlib.Path, default=RUNS, help="default: %(default)s")
    parser.add_argument("--resume", type=pathlib.Path, default=ROOT / ".gpu" / "resume", help="default: %(default)s")
    options = parser.parse_args()
    for name in collect(options.folder, options.runs, options.resume):
        for split in ("validation", "test"):
            path = options.runs / name / f"evaluation-{split}.json"
            if path.exists():
                print(f"{name}: {split} accuracy {json.loads(path.read_text())['accuracy']:.4f}")
    size = sum(path.stat().st_size for path in options.resume.rglob("*") if path.is_file())
    print(f"{options.resume}: {size / 2**20:.1f} MiB for the next call")


if __name__ == "__main__":
    command.run(main)
