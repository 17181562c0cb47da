"""What a run writes beside its checkpoints: its config, its facts and its metrics.

config.json    the config, whole
run.json       commit, versions, device, command, data fingerprint, class names
metrics.jsonl  a line every few steps and a line an epoch
history.csv    a row an epoch
startup.jsonl  a line a start, first or resumed: the seconds to its first step
.lock          held by the process that trains
"""

import contextlib
import datetime
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import subprocess
import sys

import filelock
import jax

from fer_jax import config as config_lib
from fer_jax import extensions, files, ops
from fer_jax.errors import Busy, InputError

logger = logging.getLogger("fer_jax")
LOCK = ".lock"
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


@contextlib.contextmanager
def lock(workdir):
    """Holds a workdir for this process, the first one of a training; the system lets go of it when the process ends.

    Raises:
      Busy: another process trains in it.
      InputError: the folder cannot be written.
    """
    if jax.process_index() != 0:
        yield
        return
    workdir = pathlib.Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(workdir / LOCK)
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise Busy(f"{workdir}: another process trains here; wait for its end, or give another --workdir") from None
    except OSError as error:
        raise InputError(f"{workdir} cannot be written ({error}): give another --workdir") from error
    try:
        yield
    finally:
        held.release()
        if [path.name for path in workdir.iterdir()] == [LOCK]:  # refused before it began: nothing is left of it
            (workdir / LOCK).unlink()
            workdir.rmdir()


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
    return [record for record in read_jsonl(pathlib.Path(workdir) / "metrics.jsonl") if record["kind"] == "epoch"]


def read_provenance(workdir) -> dict:
    """Returns what run.json says of a run."""
    return read_json(pathlib.Path(workdir) / "run.json", what="record of the run", mend="give another --workdir")


def facts() -> dict:
    """Returns where and with what the program runs: time, command, commit, device, versions."""
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

    The environment variable FER_JAX_COMMIT comes first: a copy of the code has no history, or lies in another's.
    """
    if given := os.environ.get("FER_JAX_COMMIT"):
        return given
    here = pathlib.Path(__file__).resolve().parent
    try:
        run = lambda *args: subprocess.run(  # noqa: E731
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True
        ).stdout.strip()
        modified = run("status", "--porcelain", "--untracked-files=no")
        return run("rev-parse", "--short=12", "HEAD") + ("-modified" if modified else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


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


def read_jsonl(path) -> list[dict]:
    """Returns the records of a file of JSON lines, up to one that was being written when the program was killed."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def write_start(workdir, split: dict) -> None:
    """Appends a start to `startup.jsonl`: what `timing.Clock.end` returns, with the epoch that it began."""
    with (pathlib.Path(workdir) / "startup.jsonl").open("a") as file:
        file.write(json.dumps({"time": _now(), **split}) + "\n")


def open_run(config, workdir, data, weights=None) -> None:
    """Writes what the run is into its workdir, or refuses a workdir whose run is another one.

    Raises:
      InputError: the differences to the run that is there, or a workdir that cannot be written.
    """
    workdir = pathlib.Path(workdir)
    mine = config_lib.to_dict(config)
    sources = extensions.record(mine)
    facts_now = {
        **facts(),
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "image_shape": list(data.image_shape),
        "synthetic": data.synthetic,
        "classes": list(data.classes),
        "notes": list(data.notes),
        "weights": weights.facts if weights else None,
        "sources": sources,
    }
    if (workdir / "config.json").exists():
        saved = read_json(workdir / "config.json", what="config", mend="give another --workdir")
        # A field that the saved config does not have yet had its default.
        both = config_lib.to_dict(config_lib.from_dict(saved)), mine
        different = config_lib.differences(*map(extensions.without_folders, both))
        before = read_json(workdir / "run.json", what="record of the run", mend="give another --workdir")
        if before["data_fingerprint"] != data.fingerprint:
            different.append(f"the data: {before['data_fingerprint']}, now {data.fingerprint}")
        different += extensions.differences(before.get("sources", {}), sources)
        if before.get("cpu_path", saved["model"].get("cpu_path", True)) != facts_now["cpu_path"] and ops.on_cpu():
            logger.warning("%s began with another %s: results will differ by rounding", workdir, ops.SWITCH)
        if different:
            lines = "\n  ".join(different)
            raise InputError(
                f"{workdir} holds a run with another config:\n  {lines}\n"
                "give these fields their old values to go on with it, or another --workdir for a new run"
                + (f"; {workdir / extensions.FOLDER} has the files as they were" if sources else "")
            )
        return
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            extensions.keep(sources, workdir)
            write_json(workdir / "run.json", facts_now)
            write_json(workdir / "config.json", mine)
        except OSError as error:
            raise InputError(f"{workdir} cannot be written ({error}): give another --workdir") from error
