"""Records of a run: what is written can be read, and a resumed run drops what it will write again."""

import csv
import json

import pytest

from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError


def epoch(number):
    return {"epoch": number, "train_loss": 1.0 / number}


def open_metrics(folder, resume_step=0):
    return workdir_lib.Metrics(folder, resume_step=resume_step, tensorboard=False)


def test_history_and_csv_hold_the_epochs(tmp_path):
    metrics = open_metrics(tmp_path)
    for number in (1, 2):
        metrics.write("step", 10 * number - 5, {"loss": 2.0})
        metrics.write("epoch", 10 * number, epoch(number))
    metrics.close()
    assert [row["epoch"] for row in workdir_lib.read_history(tmp_path)] == [1, 2]
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [(row["step"], row["epoch"], float(row["train_loss"])) for row in rows]
    assert found == [
        ("10", "1", 1.0),
        ("20", "2", 0.5),
    ]


def test_resuming_drops_what_came_after_the_checkpoint_and_a_broken_last_line(tmp_path):
    metrics = open_metrics(tmp_path)
    for number in (1, 2):
        metrics.write("epoch", 10 * number, epoch(number))
    metrics.write("step", 25, {"loss": 2.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    resumed = open_metrics(tmp_path, resume_step=10)
    assert [row["epoch"] for row in resumed.history] == [1]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10]
    resumed.write("epoch", 20, epoch(2))
    assert [row["epoch"] for row in workdir_lib.read_history(tmp_path)] == [1, 2]


def test_a_process_that_does_not_write_touches_nothing(tmp_path):
    metrics = workdir_lib.Metrics(tmp_path, resume_step=0, tensorboard=False, writes=False)
    metrics.write("epoch", 10, epoch(1))
    assert [row["epoch"] for row in metrics.history] == [1]
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_the_scalars(tmp_path):
    event_file_loader = pytest.importorskip("tensorboardX").proto.event_pb2
    metrics = workdir_lib.Metrics(tmp_path, resume_step=0, tensorboard=True)
    metrics.write("epoch", 10, epoch(1))
    metrics.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    data, tags = events.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = event_file_loader.Event.FromString(data[12 : 12 + length])
        tags += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
        data = data[16 + length :]
    assert ("epoch/train_loss", 1.0, 10) in tags


def test_read_json_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="no config here; train first"):
        workdir_lib.read_json(tmp_path / "config.json", what="config", mend="train first")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        workdir_lib.read_json(tmp_path / "config.json", what="config", mend="train first")


def test_facts_name_the_machine_and_the_code():
    facts = workdir_lib.facts()
    assert facts["platform"] == "cpu"
    assert facts["device"]
    assert facts["packages"]["jax"]
    assert facts["commit"] == "unknown" or len(facts["commit"].removesuffix("-modified")) == 12


def test_a_copy_without_history_takes_its_commit_from_the_environment(monkeypatch):
    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(workdir_lib.subprocess, "run", no_git)
    monkeypatch.delenv("FER_JAX_COMMIT", raising=False)
    assert workdir_lib.commit() == "unknown"
    monkeypatch.setenv("FER_JAX_COMMIT", "0123456789ab-modified")
    assert workdir_lib.commit() == "0123456789ab-modified"
