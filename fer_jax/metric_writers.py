"""Writers of a run's metrics behind one protocol: JSON lines, CSV, and experiment trackers by name.

A tracker's library is an extra of the package and imported only where `log.writers` names it.
"""

import csv
import dataclasses
import importlib.util
import json
import logging
import os
import pathlib
import re
import time
import uuid
from collections.abc import Mapping
from typing import Protocol

from fer_jax import config as config_lib
from fer_jax import files
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

logger = logging.getLogger("fer_jax")
PROJECT = "fer_jax"  # the project, or experiment, that runs are put in
RECORD = "trackers.json"  # the ids of the run in its trackers, and what they were sent


class MetricWriter(Protocol):
    """What all writers of metrics have in common."""

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Writes the figures of a step. kind: 'step', or 'epoch' for those of the whole epoch that ends there."""

    def close(self, finished: bool = True) -> None:
        """Writes what is buffered. finished: whether the run is complete; else it may be resumed."""


class JsonLines:
    """Appends a line of JSON per record."""

    def __init__(self, path):
        self._path = pathlib.Path(path)

    def write(self, kind, step, values):
        with self._path.open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")

    def close(self, finished=True):
        pass


class HistoryCsv:
    """Writes the epochs as a table, whole each time. records: those of the epochs so far."""

    def __init__(self, path, records):
        self._path, self._rows = path, list(records)

    def write(self, kind, step, values):
        if kind != "epoch":
            return
        self._rows.append({"kind": kind, "step": step, **values})
        with files.atomic_write(self._path, newline="") as file:
            writer = csv.DictWriter(file, [name for name in self._rows[0] if name != "kind"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self._rows)

    def close(self, finished=True):
        pass


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """The facts of a run that trackers record.

    config: nested dicts of JSON values. run_id: of the run in the tracker where it was tracked before, else None.
    step: the step that it resumes after, 0 where it begins.
    """

    folder: pathlib.Path
    config: dict
    run_id: str | None
    step: int

    @property
    def name(self) -> str:
        """The last two parts of the workdir, which tell apart the runs of one folder and the seeds of one run."""
        return "/".join(self.folder.resolve().parts[-2:])

    def make_id(self) -> str:
        """Returns the run's id, or a new one that no other run has."""
        return self.run_id or f"{re.sub(r'[^a-zA-Z0-9_.-]', '_', self.folder.name)[-60:]}-{uuid.uuid4().hex[:8]}"


class TensorBoard:
    """Event files in <workdir>/tensorboard; TensorBoard hides what a killed run wrote after its last checkpoint."""

    module, purges = "tensorboardX", True

    def __init__(self, run: TrackedRun):
        from tensorboardX import SummaryWriter

        self.run_id = None
        self._board = SummaryWriter(
            str(run.folder / "tensorboard"),
            purge_step=run.step + 1,
            filename_suffix=f".{run.step}",  # the time in the name has whole seconds
        )

    def write(self, kind, step, values):
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self, finished=True):
        self._board.close()


class Wandb:
    """A run of Weights & Biases, with its local files in <workdir>/wandb.

    WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE in the environment apply. The axis is the metric `global_step`:
    wandb's own step refuses a second record of a step once the run was resumed.
    """

    module, purges = "wandb", False

    def __init__(self, run: TrackedRun):
        import wandb

        self.run_id = run.make_id()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(run.folder),
            id=self.run_id,
            name=run.name,
            config=run.config,
            allow_val_change=True,  # a resumed run may have more epochs
            resume="allow",
            reinit="create_new",  # leaves a run of the calling program alone
        )
        self._run.define_metric("*", step_metric="global_step")

    def write(self, kind, step, values):
        self._run.log({"global_step": step, **{f"{kind}/{name}": value for name, value in values.items()}})

    def close(self, finished=True):
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run in MLflow's tracking store: MLFLOW_TRACKING_URI, or MLflow's default."""

    module, purges = "mlflow", False

    def __init__(self, run: TrackedRun):
        from mlflow import MlflowClient, entities

        self._entities, self._client = entities, MlflowClient()
        if run.run_id:
            self.run_id = run.run_id
            self._client.update_run(self.run_id, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(PROJECT)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        self.run_id = self._client.create_run(experiment_id, run_name=run.name).info.run_id
        fields = config_lib.flat(run.config).items()
        params = [entities.Param(name, json.dumps(value)) for name, value in fields]
        for first in range(0, len(params), 100):  # the most that MLflow takes at once
            self._client.log_batch(self.run_id, params=params[first : first + 100])

    def write(self, kind, step, values):
        now_ms = int(time.time() * 1000)
        metrics = [self._entities.Metric(f"{kind}/{name}", value, now_ms, step) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self, finished=True):
        self._client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")


class Trackio:
    """A run of Trackio, on this machine or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says."""

    module, purges = "trackio", False

    def __init__(self, run: TrackedRun):
        import trackio

        self.run_id = run.make_id()  # Trackio finds a run by its name
        fields = config_lib.flat(run.config)
        self._run = trackio.init(project=PROJECT, name=self.run_id, config=fields, resume="allow")

    def write(self, kind, step, values):
        self._run.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self, finished=True):
        self._run.finish()


TRACKERS = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": MLflow, "trackio": Trackio}


class Guarded:
    """A tracker that is not sent a record twice, and whose failure does not end the training.

    sent: the last step of each kind that it has.
    """

    def __init__(self, name: str, tracker: MetricWriter, sent: Mapping[str, int]):
        self._name, self._tracker, self._sent = name, tracker, sent

    def write(self, kind, step, values):
        if step > self._sent.get(kind, -1):
            self._try("write", kind, step, values)

    def close(self, finished=True):
        self._try("close", finished)

    def _try(self, method, *args):
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, method)(*args)
        except Exception as error:  # whatever a library or its server raises
            self._tracker = None
            logger.warning(
                "%s failed and gets no more metrics of this run, which metrics.jsonl has all (%s: %s)",
                *(self._name, type(error).__name__, error),
            )


def check(names) -> None:
    """Raises InputError where one of `log.writers` is unknown or its library not installed."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"log.writers names {name!r}; known are {', '.join(TRACKERS)}")
        spec = importlib.util.find_spec(TRACKERS[name].module)
        if spec is None or spec.origin is None:  # a folder of the library's name is found too, without an origin
            raise InputError(
                f"log.writers names {name}, which needs {TRACKERS[name].module}: pip install 'fer-jax[{name}]'"
            )


def open_trackers(names, folder, config: dict, *, step: int, written: Mapping[str, int]) -> list[Guarded]:
    """Opens the trackers of a run; those that it had before resume.

    Args:
      names: of TRACKERS.
      folder: the workdir, which keeps the ids of the run in `trackers.json`.
      config: nested dicts of JSON values.
      step: the one that the run resumes after.
      written: the last step of each kind in metrics.jsonl, which may come after `step`.

    Raises:
      InputError: one that cannot be started; `trackers.json` cannot be read.
    """
    path, saved, opened = folder / RECORD, {}, []
    if path.exists():
        saved = workdir_lib.read_json(path, what="record of a run's trackers", fix="delete it to track a new run")
    for name in dict.fromkeys(names):
        before, library = saved.get(name), TRACKERS[name]
        sent = _last_steps(before["sent"], written) if before else {}
        if library.purges:
            sent = {kind: min(last, step) for kind, last in sent.items()}
        try:
            tracker = library(TrackedRun(folder, config, before and before["run_id"], step))
        except Exception as error:  # whatever a library or its server raises
            for other in opened:
                other.close(finished=False)
            hint = f"; to track a new run there, remove {name} from {path}" if before else ""
            raise InputError(
                f"log.writers: {name} cannot be started ({type(error).__name__}: {error}){hint}"
            ) from error
        saved[name] = {"run_id": tracker.run_id, "sent": sent}
        opened.append(Guarded(name, tracker, sent))
    if opened:
        workdir_lib.write_json(path, saved)
    return opened


def _last_steps(sent, written):
    return {kind: max(sent.get(kind, 0), written.get(kind, 0)) for kind in sent.keys() | written.keys()}
