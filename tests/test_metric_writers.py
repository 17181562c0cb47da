"""Trackers: each record once, also of a run that was stopped and resumed; a failing one does not end a training.

Every tracker is tested with a stand-in of its library, and with the library itself where that is installed.
"""

import contextlib
import json
import os
import pathlib
import sqlite3
import struct
import subprocess
import sys
import time
import types

import pytest

from fer_jax import config as config_lib
from fer_jax import metric_writers
from fer_jax.errors import InputError

CONFIG = config_lib.to_dict(config_lib.get_default())
EPOCH = 5  # steps
EXPECTED = [("step/loss", step, 1 / step) for step in range(1, 11)] + [("epoch/loss", 5, 0.2), ("epoch/loss", 10, 0.1)]


def write(trackers, steps):
    for step in steps:
        for tracker in trackers:
            tracker.write("step", step, {"loss": 1 / step})
            if step % EPOCH == 0:
                tracker.write("epoch", step, {"loss": 1 / step})


def track_in_two_parts(name, folder):
    """Tracks a run that is stopped after step 7 and resumes from its checkpoint of step 5, up to step 10."""
    folder.mkdir()
    for start, stop, written in ((0, 7, {}), (5, 10, {"step": 7, "epoch": 5})):
        trackers = metric_writers.open_trackers([name], folder, CONFIG, step=start, written=written)
        write(trackers, range(start + 1, stop + 1))
        for tracker in trackers:
            tracker.close(finished=stop == 10)


@pytest.fixture
def fake_wandb(monkeypatch):
    """A stand-in of wandb: `calls` has the arguments of `init`, `rows` what was logged, `exits` the exit codes."""
    module = types.SimpleNamespace(calls=[], rows=[], exits=[], axes=[])

    def init(**options):
        module.calls.append(options)
        return types.SimpleNamespace(
            define_metric=lambda name, step_metric: module.axes.append((name, step_metric)),
            log=module.rows.append,
            finish=lambda **options: module.exits.append(options),
        )

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def scalars_of(rows, axis):
    return [(name, row[axis], value) for row in rows for name, value in row.items() if name.endswith("/loss")]


def test_wandb_gets_each_record_once_in_one_run(tmp_path, fake_wandb, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    track_in_two_parts("wandb", tmp_path / "seed_3")
    assert sorted(scalars_of(fake_wandb.rows, "global_step")) == sorted(EXPECTED)
    first, second = fake_wandb.calls
    assert first["id"] == second["id"] and first["id"].startswith("seed_3-")
    assert (second["resume"], second["config"], second["project"]) == ("allow", CONFIG, "fer_jax")
    assert second["name"] == f"{tmp_path.name}/seed_3"
    assert set(fake_wandb.axes) == {("*", "global_step")}
    assert fake_wandb.exits == [{"exit_code": 1}, {"exit_code": 0}]


def test_two_workdirs_are_two_runs_and_ids_have_no_letters_that_wandb_refuses(tmp_path, fake_wandb):
    for folder in (tmp_path / "a" / "50% #1?", tmp_path / "b" / "50% #1?"):
        folder.mkdir(parents=True)
        metric_writers.open_trackers(["wandb"], folder, CONFIG, step=0, written={})
    one, two = (options["id"] for options in fake_wandb.calls)
    assert one != two
    assert not set(one) & set(r"/\#?%: ")


def wandb_records(path):
    """Yields the records of a .wandb file: protocol buffers in LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        rest = 32768 - at % 32768
        if rest < 7:
            at += rest
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts, at = parts + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def whole_wandb_records(path):
    """Returns the records of a .wandb file, once wandb's own process has written the last one."""
    for _ in range(100):
        records = list(wandb_records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


@pytest.mark.filterwarnings("ignore")
def test_wandb_itself(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    track_in_two_parts("wandb", tmp_path / "run")
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    rows, ids, fields = [], set(), {}
    for record in (record for file in files for record in whole_wandb_records(file)):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
        elif record.WhichOneof("record_type") == "run":
            ids.add(record.run.run_id)
            fields |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    found = sorted(scalars_of(rows, "global_step"))
    assert [entry[:2] for entry in found] == [entry[:2] for entry in sorted(EXPECTED)]
    assert [entry[2] for entry in found] == pytest.approx([entry[2] for entry in sorted(EXPECTED)])
    assert len(ids) == 1
    assert fields["optim"]["learning_rate"] == CONFIG["optim"]["learning_rate"]


class FakeMlflowClient:
    """A stand-in of MlflowClient, whose runs are the class's: {run id: [name, status, params, metrics]}."""

    runs, experiments = {}, {}

    def get_experiment_by_name(self, name):
        number = self.experiments.get(name)
        return number and types.SimpleNamespace(experiment_id=number)

    def create_experiment(self, name):
        return self.experiments.setdefault(name, "1")

    def create_run(self, experiment_id, run_name):
        assert experiment_id == "1"
        run_id = f"run-{len(self.runs)}"
        self.runs[run_id] = types.SimpleNamespace(name=run_name, status="RUNNING", params={}, metrics=[])
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

    def update_run(self, run_id, status):
        self.runs[run_id].status = status

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(params) <= 100
        self.runs[run_id].params.update(params)
        self.runs[run_id].metrics += [(metric.key, metric.step, metric.value) for metric in metrics]

    def set_terminated(self, run_id, status):
        self.runs[run_id].status = status


class FakeMetric:
    def __init__(self, key, value, timestamp, step):
        assert timestamp > 1e12  # milliseconds since 1970
        self.key, self.value, self.step = key, value, step


@pytest.fixture
def fake_mlflow(monkeypatch):
    client = type("Client", (FakeMlflowClient,), {"runs": {}, "experiments": {}})
    entities = types.SimpleNamespace(Metric=FakeMetric, Param=lambda key, value: (key, value))
    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace(MlflowClient=client, entities=entities))
    return client


def test_mlflow_gets_each_record_once_in_one_run(tmp_path, fake_mlflow):
    track_in_two_parts("mlflow", tmp_path / "run")
    (run,) = fake_mlflow.runs.values()
    assert sorted(run.metrics) == sorted(EXPECTED)
    assert (run.name, run.status) == (f"{tmp_path.name}/run", "FINISHED")
    assert {name: json.loads(value) for name, value in run.params.items()} == config_lib.flat(CONFIG)


def test_mlflow_shows_a_run_that_was_stopped_as_killed(tmp_path, fake_mlflow):
    (tracker,) = metric_writers.open_trackers(["mlflow"], tmp_path, CONFIG, step=0, written={})
    tracker.close(finished=False)
    (run,) = fake_mlflow.runs.values()
    assert run.status == "KILLED"


@pytest.mark.filterwarnings("ignore")
def test_mlflow_itself(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    track_in_two_parts("mlflow", tmp_path / "run")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("fer_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    histories = [client.get_metric_history(run.info.run_id, name) for name in ("step/loss", "epoch/loss")]
    assert [(metric.key, metric.step, metric.value) for history in histories for metric in history] == EXPECTED
    assert run.info.status == "FINISHED"
    assert {name: json.loads(value) for name, value in run.data.params.items()} == config_lib.flat(CONFIG)


def test_trackio_gets_each_record_once_in_one_run(tmp_path, monkeypatch):
    calls, rows, ends = [], [], []

    def init(**options):
        calls.append(options)
        return types.SimpleNamespace(
            log=lambda values, step: rows.append({"step": step, **values}), finish=lambda: ends.append(True)
        )

    monkeypatch.setitem(sys.modules, "trackio", types.SimpleNamespace(init=init))
    track_in_two_parts("trackio", tmp_path / "run")
    assert sorted(scalars_of(rows, "step")) == sorted(EXPECTED)
    first, second = calls
    assert first["name"] == second["name"] and second["resume"] == "allow"
    assert second["config"] == config_lib.flat(CONFIG)
    assert len(ends) == 2


@pytest.mark.filterwarnings("ignore")
def test_trackio_itself(tmp_path):
    """In a process of its own: the library reads its folder from the environment when it is imported."""
    pytest.importorskip("trackio")
    script = (
        "import pathlib, sys, test_metric_writers\n"
        "test_metric_writers.track_in_two_parts('trackio', pathlib.Path(sys.argv[1]))"
    )
    words, environ = (
        [sys.executable, "-c", script, tmp_path / "run"],
        os.environ | {"TRACKIO_DIR": tmp_path / "trackio"},
    )
    subprocess.run(words, env=environ, check=True, capture_output=True, cwd=pathlib.Path(__file__).parent)
    with contextlib.closing(sqlite3.connect(tmp_path / "trackio" / "fer_jax.db")) as database:
        stored = database.execute("select run_id, step, metrics from metrics").fetchall()
        ((config,),) = database.execute("select config from configs").fetchall()
    rows = [{"step": step, **json.loads(metrics)} for _, step, metrics in stored]
    assert sorted(scalars_of(rows, "step")) == sorted(EXPECTED)
    assert len({run_id for run_id, _, _ in stored}) == 1
    assert config_lib.flat(CONFIG).items() <= json.loads(config).items()


def tensorboard_scalars(folder):
    """Returns the scalars that TensorBoard shows: a start of session hides the steps from its own on."""
    event_pb2 = pytest.importorskip("tensorboardX").proto.event_pb2
    shown = []
    for file in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event, data = event_pb2.Event.FromString(data[12 : 12 + length]), data[16 + length :]
            if event.session_log.status == event.session_log.START and event.HasField("session_log"):
                shown = [scalar for scalar in shown if scalar[1] < event.step]
            shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return shown


def test_tensorboard_shows_each_record_once(tmp_path):
    pytest.importorskip("tensorboardX")
    track_in_two_parts("tensorboard", tmp_path / "run")
    found = sorted(tensorboard_scalars(tmp_path / "run" / "tensorboard"))
    assert [scalar[:2] for scalar in found] == [scalar[:2] for scalar in sorted(EXPECTED)]
    assert [scalar[2] for scalar in found] == pytest.approx([scalar[2] for scalar in sorted(EXPECTED)])


@pytest.mark.filterwarnings("ignore")
def test_tensorboards_own_reader_shows_each_record_once(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("tensorboardX")
    track_in_two_parts("tensorboard", tmp_path / "run")
    events = accumulators.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    found = [(tag, event.step) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    assert sorted(found) == sorted(scalar[:2] for scalar in EXPECTED)


class Failing:
    module, purges, run_id = "failing", False, None

    def __init__(self, run):
        self.calls = 0

    def write(self, kind, step, values):
        self.calls += 1
        raise ConnectionError("the server is gone")

    def close(self, finished=True):
        raise ConnectionError("still gone")


def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(metric_writers.TRACKERS, "failing", Failing)
    trackers = metric_writers.open_trackers(["failing"], tmp_path, CONFIG, step=0, written={})
    tracker = trackers[0]._tracker
    write(trackers, range(1, 4))
    trackers[0].close()
    assert tracker.calls == 1
    (said,) = caplog.messages
    assert said.startswith("failing failed") and "metrics.jsonl has all (ConnectionError: the server is gone)" in said


def test_a_tracker_that_cannot_be_started_is_named(tmp_path, fake_wandb, monkeypatch):
    (tmp_path / "run").mkdir()
    metric_writers.open_trackers(["wandb"], tmp_path / "run", CONFIG, step=0, written={})

    def init(**_):
        raise RuntimeError("no API key")

    monkeypatch.setattr(fake_wandb, "init", init)
    with pytest.raises(InputError, match=r"wandb cannot be started \(RuntimeError: no API key\)$"):
        metric_writers.open_trackers(["wandb"], tmp_path, CONFIG, step=0, written={})
    with pytest.raises(InputError, match=r"no API key\); to track a new run there, remove wandb from .*trackers\.json"):
        metric_writers.open_trackers(["wandb"], tmp_path / "run", CONFIG, step=0, written={})


def test_a_run_that_is_stopped_twice_is_still_sent_each_record_once(tmp_path, fake_wandb):
    for start, stop, written in ((0, 9, {}), (5, 6, {"step": 9, "epoch": 5}), (5, 10, {"step": 6, "epoch": 5})):
        trackers = metric_writers.open_trackers(["wandb"], tmp_path, CONFIG, step=start, written=written)
        write(trackers, range(start + 1, stop + 1))
    assert sorted(scalars_of(fake_wandb.rows, "global_step")) == sorted(EXPECTED)


def test_a_tracker_that_is_added_later_gets_all_from_then_on(tmp_path, fake_wandb):
    trackers = metric_writers.open_trackers(["wandb"], tmp_path, CONFIG, step=5, written={"step": 9, "epoch": 5})
    write(trackers, range(6, 11))
    assert sorted(scalars_of(fake_wandb.rows, "global_step")) == sorted(row for row in EXPECTED if row[1] > 5)
