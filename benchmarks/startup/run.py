"""How long does it take from a command to the end of its first train step, and which parts take the time?

python benchmarks/startup/run.py --data_path <folder with fer2013.csv>

Starts R1's model 2 in fer_jax and in Keras, alternating, each in a new process that is ended after its first step, with
an empty cache of compiled programs and with a full one. Adds the rounds to results.json next to this file.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from fer_jax import config as config_lib
from fer_jax import datasets
from fer_jax import workdir as workdir_lib

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODULES = ("main", "evaluate")
SYSTEMS = {
    "tfdata": ("--config.data.feeder=tfdata",),
    "resident": ("--config.data.feeder=resident",),
    "tfdata, flipped faces": ("--config.data.feeder=tfdata", "--config.augment.flip_horizontal=0.5"),
}
FIRST_STEP, FIRST_BATCH = "first step", "first batch"


def until(command, marker):
    """Returns the seconds from the start of a command to the line of output that begins with `marker`."""
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        printed = []
        for line in process.stdout:
            if line.startswith(marker):
                seconds = time.perf_counter() - started
                process.kill()
                return seconds
            printed.append(line)
    raise RuntimeError(f"{' '.join(map(str, command))} ended without a {marker}:\n{''.join(printed)}")


class Ours:
    """Starts fer_jax, with a separate cache folder."""

    def __init__(self, data_path, folder):
        self._data_path, self._folder = data_path, folder

    def start(self, flags, *, cold):
        """Returns {seconds, split}: by this process's clock, and as recorded by the run."""
        workdir, cache = self._folder / "run", self._folder / "cache"
        shutil.rmtree(workdir, ignore_errors=True)
        if cold:
            shutil.rmtree(cache / "compiled", ignore_errors=True)
        command = [sys.executable, "-m", "fer_jax.main", "--config=configs/cnn.py:model_2", *flags]
        command += [f"--config.data.path={self._data_path}", f"--config.data.cache_dir={cache}", f"--workdir={workdir}"]
        seconds = until(command, FIRST_STEP)
        return {"seconds": seconds, "split": json.loads((workdir / "startup.jsonl").read_text().splitlines()[-1])}


def help_seconds(module):
    """Returns how long `--help` takes."""
    command = [sys.executable, "-m", f"fer_jax.{module}", "--help"]
    check = module != "main"  # absl's --help exits with 1
    return timing.seconds(subprocess.run, command, cwd=ROOT, stdout=subprocess.DEVNULL, check=check)[1]


def measure(ours, faces):
    """Returns one round: every system once, cold and warm."""
    found = {f"--help of {module}": {"seconds": help_seconds(module)} for module in MODULES}
    keras = [sys.executable, str(HERE / "keras_reference.py"), str(faces)]
    found["keras"] = {"seconds": until(keras, FIRST_BATCH)}
    for name, flags in SYSTEMS.items():
        found[f"{name}, cold"] = ours.start(flags, cold=True)
        found[f"{name}, warm"] = ours.start(flags, cold=False)
    return found


def summarize(rounds):
    """Returns {what: {seconds: median, range, parts: medians}}."""
    rows, keras = {}, statistics.median(found["keras"]["seconds"] for found in rounds)
    for what in rounds[0]:
        seconds = timing.spread([found[what]["seconds"] for found in rounds])
        rows[what] = {"seconds": seconds["median"], "range": [seconds["min"], seconds["max"]]}
        if "split" in rounds[0][what]:
            parts = [found[what]["split"]["parts"] for found in rounds]
            rows[what]["parts"] = {part: statistics.median(one[part] for one in parts) for part in parts[0]}
            rows[what]["of_keras"] = rows[what]["seconds"] / keras
    return rows


def table(rows):
    """Returns the summary as a Markdown table."""
    lines = ["| | seconds, median | range | of Keras's | parts |", "| --- | --- | --- | --- | --- |"]
    for what, row in rows.items():
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in row.get("parts", {}).items() if seconds >= 0.05)
        share = f"{row['of_keras']:.2f}" if "of_keras" in row else ""
        low, high = row["range"]
        lines.append(f"| {what} | {row['seconds']:.2f} | {low:.2f} to {high:.2f} | {share} | {parts} |")
    return "\n".join(lines)


def main():
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", required=True, help="as data.path")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results.json", help="default: %(default)s")
    options = parser.parse_args()
    config = config_lib.get_default()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        config.data.update({"path": options.data_path, "cache_dir": str(folder / "cache")})
        train = datasets.load(config.data).train
        np.savez(folder / "faces.npz", images=train.images, labels=train.labels)
        ours = Ours(options.data_path, folder)
        rounds = json.loads(options.out.read_text())["rounds"] if options.out.exists() else []
        for _ in range(options.rounds):
            rounds.append(measure(ours, folder / "faces.npz"))
            rows = summarize(rounds)
            workdir_lib.write_json(options.out, {**workdir_lib.facts(), "summary": rows, "rounds": rounds})
    print(table(rows))


if __name__ == "__main__":
    main()
