"""The records of a run next to its checkpoints: config, provenance and metrics.

config.json    the complete config
run.json       commit, versions, device, command, data fingerprint, class names
metrics.jsonl  one line every few steps and one line per epoch
history.csv    one row per epoch
startup.jsonl  one line per start, first or resumed: the seconds to its first step
trackers.json  the ids of the run in the trackers of `log.writers`
profile/       traces of the steps that `log.profile_steps` asks for
.lock          locked by the training process
"""

import contextlib
import datetime
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import shlex
import subprocess
import sys

import filelock
import jax

from fer_jax import config as config_lib
from fer_jax import extensions, files, ops, wording
from fer_jax.errors import Busy, InputError

logger = logging.getLogger("fer_jax")
LOCK = ".lock"
FIX = "give another --workdir"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")


def write_json(path, value) -> None:
    """Writes JSON atomically."""
    text = json.dumps(value, indent=2)
    with files.atomic_write(path) as file:
        file.write(text + "\n")


def check_folder(folder, *, option: str) -> None:
    """Raises InputError if a folder cannot be created or written; creates nothing.

    option: the flag that names it.
    """
    folder = pathlib.Path(folder).absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: {there} is not a writable folder; give another {option}")


@contextlib.contextmanager
def lock(workdir):
    """Locks a workdir for this process, process 0 of a training; the system releases the lock when the process ends.

    Raises:
      Busy: another process is training in it.
      InputError: the folder cannot be written.
    """
    if jax.process_index() != 0:
        yield
        return
    workdir = pathlib.Path(workdir)
    made, file_lock = not workdir.exists(), filelock.FileLock(workdir / LOCK)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file_lock.acquire(timeout=0)
    except filelock.Timeout:
        raise Busy(f"{workdir}: another process is training here; wait for it, or {FIX}") from None
    except NotImplementedError:
        logger.warning("%s: its file system has no locks; do not start a second training there", workdir)
    except OSError as error:
        raise InputError(f"{workdir} cannot be written ({error}): {FIX}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if made and [path.name for path in workdir.iterdir()] == [LOCK]:  # rejected before it started
                (workdir / LOCK).unlink()
                workdir.rmdir()
        file_lock.release()


def read_json(path, *, what: str, fix: str, keys: tuple[str, ...] = ()) -> dict:
    """Reads a JSON object that must have some keys.

    Raises:
      InputError: that fails; the message names the file and the fix.
    """
    try:
        found = json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no {what} here; {fix}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the {what} cannot be read ({error}); {fix}") from error
    lacking = [key for key in keys if not isinstance(found, dict) or key not in found]
    if lacking or not isinstance(found, dict):
        reason = f"it has no {', '.join(lacking)}" if lacking else "it is not a JSON object"
        raise InputError(f"{path} is not a valid {what}: {reason}; {fix}")
    return found


def read_config(workdir, fix: str = FIX) -> dict:
    """Returns the saved config of a run. Raises InputError as `read_json`."""
    return read_json(pathlib.Path(workdir) / "config.json", what="config of a run", fix=fix, keys=("train", "model"))


def read_provenance(workdir, fix: str = FIX) -> dict:
    """Returns the content of a run's run.json. Raises InputError as `read_json`."""
    path = pathlib.Path(workdir) / "run.json"
    return read_json(path, what="record of a run", fix=fix, keys=("data_fingerprint", "packages"))


def read_history(workdir) -> list[dict]:
    """Returns the epochs of a run, one dict each, from `metrics.jsonl`. Raises InputError as `read_metrics`."""
    return [record for record in read_metrics(workdir) if record["kind"] == "epoch"]


def read_metrics(workdir) -> list[dict]:
    """Returns the records in `metrics.jsonl`, without a partial last line that a killed process left.

    Raises:
      InputError: a line is not a record of a run.
    """
    path = pathlib.Path(workdir) / "metrics.jsonl"
    try:
        lines = path.read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); {FIX}") from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            is_record = {"kind", "step", *(("epoch",) if record["kind"] == "epoch" else ())} <= record.keys()
        except (ValueError, TypeError, KeyError, AttributeError):
            is_record = False
        if is_record:
            records.append(record)
        elif number < len(lines):  # only the last line can be partial
            raise InputError(f"{path}, line {number} is not a record of a run: restore the file, or {FIX}")
    return records


def facts() -> dict:
    """Returns the facts of this process: time, command, commit, device, versions."""
    device = jax.devices()[0]
    name = device.device_kind if device.platform != "cpu" else f"{_cpu_name()}, {os.cpu_count()} cores"
    return {
        "time": _now(),
        "command": shlex.join(["python", *_program(), *sys.argv[1:]]),
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
    """Returns the commit of the running code, with '-modified' if files differ from it, or 'unknown'.

    The environment variable FER_JAX_COMMIT has precedence: a copy of the code may be without its repository, or inside
    another.
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
    """Returns the program as typed: `-m` and a module, or a file."""
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


def write_start(workdir, split: dict) -> None:
    """Appends a start to `startup.jsonl`: the result of `timing.Clock.end`, with the epoch it started at."""
    with (pathlib.Path(workdir) / "startup.jsonl").open("a") as file:
        file.write(json.dumps({"time": _now(), **split}) + "\n")


def open_run(config, workdir, data, weights=None, last: dict | None = None, *, teacher=None) -> None:
    """Writes the records of a new run into its workdir, or checks that the run there is the same.

    last: the metadata of the latest checkpoint. A run may be extended by more epochs, unless its epochs depend on
    their number.

    Raises:
      InputError: the run there differs (the message lists how), or the workdir cannot be written.
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
        "targets_digest": data.targets_digest,
        "notes": list(data.notes),
        "weights": weights.facts if weights else None,
        **({"teacher": list(teacher.facts)} if teacher else {}),
        "sources": sources,
    }
    if (workdir / "config.json").exists():
        _reopen(workdir, mine, facts_now, last or {})
    elif jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            extensions.keep(sources, workdir)
            write_json(workdir / "run.json", facts_now)
            write_json(workdir / "config.json", mine)
        except OSError as error:
            raise InputError(f"{workdir} cannot be written ({error}): {FIX}") from error


def _reopen(workdir, mine, facts_now, last):
    saved, before = read_config(workdir), read_provenance(workdir)
    # Fields missing from a saved config had their defaults.
    there = config_lib.to_dict(config_lib.from_dict(saved))
    had, has = there["train"]["epochs"], mine["train"]["epochs"]
    obstacle = _obstacle_to_more_epochs(mine, last) if has > had else ""
    if has > had and not obstacle:
        there["train"]["epochs"] = has
    different = config_lib.differences(*map(extensions.without_folders, (there, mine)))
    if before["data_fingerprint"] != facts_now["data_fingerprint"]:
        different.append(f"the data: {before['data_fingerprint']}, now {facts_now['data_fingerprint']}")
    if before.get("targets_digest") != facts_now["targets_digest"]:
        digests = (before.get("targets_digest"), facts_now["targets_digest"])
        different.append(f"the training targets: {', now '.join(str(digest or 'labels') for digest in digests)}")
    different += extensions.differences(before.get("sources", {}), facts_now["sources"])
    if before.get("cpu_path", saved["model"].get("cpu_path", True)) != facts_now["cpu_path"] and ops.on_cpu():
        logger.warning("%s was started with another %s: results will differ by rounding", workdir, ops.SWITCH)
    if different:
        lines = "\n  ".join([*different, *filter(None, [obstacle])])
        raise InputError(
            f"{workdir} holds a run with another config:\n  {lines}\n"
            "give these fields their old values to resume it, or another --workdir for a new run"
            + (f"; {workdir / extensions.FOLDER} has the original files" if facts_now["sources"] else "")
        )
    if has > had and jax.process_index() == 0:
        logger.info("%s: the plan was %s, now %d", workdir, wording.count(had, "epoch"), has)
        more = [*before.get("more_epochs", []), {"time": _now(), "from": had, "to": has}]
        write_json(workdir / "run.json", {**before, "more_epochs": more})
        write_json(workdir / "config.json", {**saved, "train": {**saved["train"], "epochs": has}})


def _obstacle_to_more_epochs(config, last):
    """Returns why a run cannot be extended by more epochs; '' if it can."""
    if config["optim"]["schedule"] == "cosine":
        return "a cosine schedule depends on train.epochs: with more of them every epoch would differ"
    phases = 2 if config["optim"]["fine_tune"]["after_epochs"] else 1
    if last.get("phase", phases - 1) < phases - 1:
        return ""  # the checks below concern the last phase
    patience = config["train"]["early_stopping"]["patience_epochs"]
    if patience and last.get("early_stopping", {}).get("wait", 0) >= patience:
        return "the run stopped early: more epochs would not be trained"
    if "variables_epoch" in last:
        return f"the run ended with the variables of its best epoch, {last['variables_epoch']}, not of its last one"
    return ""
