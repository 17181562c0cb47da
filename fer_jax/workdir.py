"""What a run writes beside its checkpoints: its config, its facts and its metrics.

config.json    the config, whole
run.json       commit, versions, device, command, data fingerprint, class names
metrics.jsonl  a line every few steps and a line an epoch
history.csv    a row an epoch
startup.jsonl  a line a start, first or resumed: the seconds to its first step
"""

import csv
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

from fer_jax import files, ops
from fer_jax.errors import InputError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


def write_json(path, value) -> None:
    """Writes JSON, whole or not at all."""
    text = json.dumps(value, indent=2)
    with files.atomic_write(path) as file:
        file.write(text + "\n")


def check_folder(folder, *, option: str) -> None:
    """Raises InputError where a folder is not there and cannot be made, or cannot be written; makes nothing.

    option: the flag that names it.
    """
    folder = pathlib.Path(folder).absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: {there} is no folder, or a protected one; give another {option}")


def read_json(path, *, what: str, mend: str):
    """Reads a JSON file. Raises InputError, which says what it is and how to mend it, if that fails."""
    try:
        return json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no {what} here; {mend}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the {what} cannot be read ({error}); {mend}") from error


def read_history(workdir) -> list[dict]:
    """Returns the epochs of a run, a dict each, from `metrics.jsonl`."""
    return [record for record in _read_jsonl(pathlib.Path(workdir) / "metrics.jsonl") if record["kind"] == "epoch"]


def read_weights(workdir) -> dict | None:
    """Returns the facts of the pretrained weights that a run began with, None where it began without."""
    return read_json(pathlib.Path(workdir) / "run.json", what="record of the run", mend="give another --workdir").get(
        "weights"
    )


def facts() -> dict:
    """Returns where and with what the program runs: time, command, commit, device, versions."""
    import jax

    device = jax.devices()[0]
    name = device.device_kind if device.platform != "cpu" else f"{_cpu_name()}, {os.cpu_count()} cores"
    return {
        "time": _now(),
        "command": " ".join(["python", *_program(), *sys.argv[1:]]),
        "commit": commit(),
        "device": f"{jax.device_count()} x {name}" if jax.device_count() > 1 else name,
        "platform": device.platform,
        "cpu_path": ops.cpu_path(),
        "processes": jax.process_count(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
    }


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str:
    """Returns the commit of the code that runs, with '-modified' where files differ from it, or 'unknown'.

    Where the code is a copy without its history, the environment variable FER_JAX_COMMIT says it.
    """
    here = pathlib.Path(__file__).resolve().parent
    try:
        run = lambda *args: subprocess.run(  # noqa: E731
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True
        ).stdout.strip()
        modified = run("status", "--porcelain", "--untracked-files=no")
        return run("rev-parse", "--short=12", "HEAD") + ("-modified" if modified else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("FER_JAX_COMMIT") or "unknown"


def _program():
    """Returns what was run, as it is typed: `-m` and a module, or a file."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return ("-m", spec.name) if spec else (sys.argv[0],)


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _read_jsonl(path):
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break  # the line that was being written when the program was killed
    return records


def write_start(workdir, split: dict) -> None:
    """Appends a start to `startup.jsonl`: what `startup.Clock.watch` reports, with the epoch that it began."""
    with (pathlib.Path(workdir) / "startup.jsonl").open("a") as file:
        file.write(json.dumps({"time": _now(), **split}) + "\n")


class Metrics:
    """The writer of a run's metrics; `resume_step` drops what was written after the checkpoint it resumes from.

    With `writes=False` (all processes but the first) it keeps the history and touches no file.
    """

    def __init__(self, workdir, *, resume_step: int, tensorboard: bool, writes: bool = True):
        self._folder, self._writes = pathlib.Path(workdir), writes
        self._path = self._folder / "metrics.jsonl"
        kept = [record for record in _read_jsonl(self._path) if record["step"] <= resume_step]
        self.history = [record for record in kept if record["kind"] == "epoch"]
        self._board = None
        if not writes:
            return
        with files.atomic_write(self._path) as file:
            file.writelines(json.dumps(record) + "\n" for record in kept)
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise InputError("log.tensorboard needs tensorboardX: pip install 'fer-jax[tensorboard]'") from error
            self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=resume_step + 1)

    def write(self, kind: str, step: int, values: dict) -> None:
        """Appends a record of kind 'step' or 'epoch'."""
        record = {"kind": kind, "step": step, **values}
        if kind == "epoch":
            self.history.append(record)
        if not self._writes:
            return
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if kind == "epoch":
            self._write_csv()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def _write_csv(self):
        with files.atomic_write(self._folder / "history.csv", newline="") as file:
            writer = csv.DictWriter(file, [name for name in self.history[0] if name != "kind"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.history)

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self._board:
            self._board.close()
