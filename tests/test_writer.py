"""What a run writes: it can be read, its means are means, and a resumed run drops what it will write again."""

import csv
import json
import logging
import shlex
import types

import jax
import numpy as np
import pytest

from fer_jax import command, evaluate, metric_writers, train
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax import writer as writer_lib
from fer_jax.errors import InputError
from fer_jax.runtime import timing

STEPS, EVERY = 10, 4
VALIDATED = {"validation_loss": 0.7, "validation_accuracy": 0.5, "validation_macro_f1": 0.4}


def open_writer(folder, resume_step=0, writers=()):
    config = config_lib.get_default()
    config.log.update({"every_steps": EVERY, "writers": writers})
    run = types.SimpleNamespace(config=config, steps_per_epoch=STEPS)
    return writer_lib.Writer(run, folder, train.Position(resume_step // STEPS, resume_step))


def take(writer, sums, position=train.Position()):  # noqa: B008
    """Gives a writer the sums of an epoch's steps from a position on; returns (means, speed)."""
    start = max(position.step, position.epoch * STEPS)
    writer.start_epoch(position, start)
    for step, of_step in enumerate(sums, start + 1):
        writer.step(step, of_step)
    return writer.end_epoch(0.0)


def make_sums(seed=0, count=STEPS):
    rng = np.random.default_rng(seed)
    return [
        {"loss": np.float32(rng.uniform(1, 9)), "count": np.float32(rng.integers(1, 9)), "novelty": np.float32(i)}
        for i in range(count)
    ]


def write_epoch(writer, number):
    means, speed = take(writer, [{"loss": 8.0 / number, "accuracy": 2, "count": 8}] * STEPS, train.Position(number - 1))
    scores = {**means, "learning_rate": 1e-3, **speed, **VALIDATED}
    writer.epoch(train.Position(number, number * STEPS), scores, improved=True)


def test_history_and_csv_hold_the_epochs(tmp_path):
    writer = open_writer(tmp_path)
    for number in (1, 2):
        write_epoch(writer, number)
    writer.close()
    assert [row["epoch"] for row in workdir_lib.read_history(tmp_path)] == [1, 2]
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [(row["step"], row["epoch"], float(row["train_loss"])) for row in rows]
    assert found == [("10", "1", 1.0), ("20", "2", 0.5)]


def test_any_sum_of_a_step_is_logged_as_a_mean_over_its_faces(tmp_path):
    sums = make_sums()
    means, _ = take(open_writer(tmp_path), sums)
    table = {name: np.array([of_step[name] for of_step in sums], float) for name in sums[0]}
    for name in ("loss", "novelty"):
        assert means[f"train_{name}"] == pytest.approx(table[name].sum() / table["count"].sum())
    lines = workdir_lib.read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [4, 8, 10]
    for line, part in zip(lines, (slice(0, 4), slice(4, 8), slice(8, 10)), strict=True):
        for name in ("loss", "novelty"):
            assert line[name] == pytest.approx(table[name][part].sum() / table["count"][part].sum())


def test_an_epoch_that_is_resumed_in_its_middle_has_the_means_of_a_whole_one(tmp_path):
    sums = make_sums()
    whole, _ = take(open_writer(tmp_path), sums)
    first = open_writer(tmp_path)
    first.start_epoch(train.Position(), 0)
    for step in range(1, EVERY + 1):
        first.step(step, sums[step - 1])
    saved = json.loads(json.dumps([first.sums, first.seconds]))
    resumed, speed = take(
        open_writer(tmp_path, EVERY), sums[EVERY:], train.Position(0, EVERY, sums=saved[0], seconds=saved[1])
    )
    assert resumed == pytest.approx(whole)
    assert speed["seconds"] > saved[1]
    assert [line["step"] for line in workdir_lib.read_metrics(tmp_path)] == [4, 8, 10]


def test_an_epoch_whose_checkpoint_was_not_saved_is_written_once(tmp_path):
    writer = open_writer(tmp_path)
    means, speed = take(writer, [{"loss": 8.0, "accuracy": 2, "count": 8}] * STEPS)
    writer.epoch(train.Position(1, STEPS), {**means, **speed, "learning_rate": 0.1, **VALIDATED}, improved=True)
    run = types.SimpleNamespace(config=config_lib.get_default(), steps_per_epoch=STEPS)
    resumed = writer_lib.Writer(run, tmp_path, train.Position(0, STEPS))  # after its steps, before its scores
    assert resumed.history == [] and workdir_lib.read_history(tmp_path) == []


def test_a_loss_that_is_no_number_is_found_before_the_line_is_due(tmp_path):
    writer = open_writer(tmp_path)
    writer.start_epoch(train.Position(), 0)
    writer.step(1, {"loss": np.nan, "count": 8})
    with pytest.raises(InputError, match="the loss is nan"):
        _ = writer.window


def test_resuming_drops_what_came_after_the_checkpoint_and_a_broken_last_line(tmp_path):
    writer = open_writer(tmp_path)
    for number in (1, 2):
        write_epoch(writer, number)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    resumed = open_writer(tmp_path, resume_step=10)
    assert [row["epoch"] for row in resumed.history] == [1]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 10, 10]
    write_epoch(resumed, 2)
    assert [row["epoch"] for row in workdir_lib.read_history(tmp_path)] == [1, 2]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused_where_it_would_be_logged(tmp_path, loss):
    sums = [{"loss": 1.0, "count": 1}] * 5 + [{"loss": loss, "count": 1}] * 5
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step 8: lower optim\.learning_rate"):
        take(open_writer(tmp_path), sums)


@pytest.mark.parametrize(("shell", "start"), [(None, "python -m fer_jax.evaluate"), ("fer-jax", "fer-jax evaluate")])
def test_a_run_ends_with_the_command_that_scores_validation(tmp_path, caplog, monkeypatch, shell, start):
    monkeypatch.setattr(command, "shell_name", shell)
    caplog.set_level(logging.INFO, "fer_jax")
    folder = tmp_path / "my runs" / "it's one"
    folder.mkdir(parents=True)
    writer = open_writer(folder)
    write_epoch(writer, 1)
    rules = types.SimpleNamespace(best=types.SimpleNamespace(epoch=1), stop=False)
    writer.end(rules, train.Position(1, STEPS), trained=True)
    start = f"evaluate it: {start} "
    assert caplog.messages[-1].startswith(start)
    flags = evaluate._parse(shlex.split(caplog.messages[-1].removeprefix(start)))
    assert (flags.workdir, flags.split) == ([str(folder)], "validation")


def test_a_loss_without_bounds_is_said_once_and_trains_on(tmp_path, caplog):
    writer = open_writer(tmp_path)
    for number in (1, 2, 3):
        means, speed = take(writer, [{"loss": 6.8e19 * (number > 1), "count": 1}] * STEPS, train.Position(number - 1))
        scores = {**means, "train_accuracy": 0.1, "learning_rate": 1e6, **speed, **VALIDATED}
        writer.epoch(train.Position(number, number * STEPS), scores, improved=True)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("the training has probably diverged: train loss is 6.8e+19 in epoch 2")


def test_a_process_that_does_not_write_touches_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    writer = open_writer(tmp_path, writers=("tensorboard",))
    write_epoch(writer, 1)
    assert [row["epoch"] for row in writer.history] == [1]
    assert list(tmp_path.iterdir()) == []


class Memory:
    """A tracker that keeps what it is sent."""

    module, purges, run_id = "memory", False, "1"
    opened = ()

    def __init__(self, run):
        self.run, self.records, self.finished = run, [], None
        Memory.opened += (self,)

    def write(self, kind, step, values):
        self.records.append({"kind": kind, "step": step, **values})

    def close(self, finished=True):
        self.finished = finished


def test_a_tracker_gets_the_records_of_metrics_jsonl_and_of_a_resumed_run_only_new_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(Memory, "opened", ())
    monkeypatch.setitem(metric_writers.TRACKERS, "memory", Memory)
    writer = open_writer(tmp_path, writers=("memory", "memory"))
    write_epoch(writer, 1)
    take(writer, make_sums()[:6], train.Position(1, STEPS))  # up to step 16, with a line at 14
    before = workdir_lib.read_metrics(tmp_path)
    writer.close()
    resumed = open_writer(tmp_path, resume_step=10, writers=("memory",))
    write_epoch(resumed, 2)
    resumed.end(
        types.SimpleNamespace(best=types.SimpleNamespace(epoch=1), stop=False), train.Position(2, 20), trained=True
    )
    resumed.close()
    first, second = Memory.opened
    assert first.records == before and [record["step"] for record in before] == [4, 8, 10, 10, 14]
    assert second.records == [record for record in workdir_lib.read_metrics(tmp_path) if record["step"] > 14]
    assert second.run.config["log"]["every_steps"] == EVERY
    assert [(memory.run.step, memory.run.run_id, memory.finished) for memory in Memory.opened] == [
        (0, None, False),
        (10, "1", True),
    ]


def epoch_line(folder, caplog, monkeypatch, *, epoch=1, epochs=50, loss=1.2345, share=0.51236, rate=1234.5, left=0.0):
    """Returns what the console shows of an epoch whose losses and scores are given."""
    monkeypatch.setattr(timing.Progress, "left_seconds", left)
    writer = open_writer(folder)
    writer._config.train.epochs = epochs
    take(writer, make_sums())
    names = ("loss", "accuracy", "macro_f1", "ema_accuracy", "ema_macro_f1")
    scores = {
        f"{split}_{name}": loss if name == "loss" else share for split in ("train", "validation") for name in names
    }
    speed = {"seconds": 1e5, "images_per_second": rate, "steps_per_second": 1234.5, "data_wait_share": 1.0}
    caplog.clear()
    with caplog.at_level("INFO", "fer_jax"):
        writer.epoch(train.Position(epoch, epoch * STEPS), {**scores, "learning_rate": 1e-3, **speed}, improved=True)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    return line


def test_an_epoch_is_a_line_of_its_scores_speed_and_the_time_left(tmp_path, caplog, monkeypatch):
    assert epoch_line(tmp_path, caplog, monkeypatch, left=7500.0) == (
        "epoch 1/50: train loss 1.234 acc 0.512 | val loss 1.234 acc 0.512 macro F1 0.512 (best) | "
        "1,234 images/s, 2.1 h left"
    )
    (record,) = workdir_lib.read_history(tmp_path)
    assert record["validation_ema_accuracy"] == 0.51236
    rest = {"learning_rate", "steps_per_second", "data_wait_share", "peak_memory_mib"}
    assert rest <= record.keys()


@pytest.mark.parametrize("loss", [0.00012, 9.9994, 9.9996, 99.996, 999.96, 12345.6, 6.8e19])
@pytest.mark.parametrize("rate", [0.12, 9.96, 99.9, 9_999.6, 99_960.0, 999_400.0])
def test_the_line_of_an_epoch_fits_a_terminal(tmp_path, caplog, monkeypatch, loss, rate):
    for left in (59.4, 3569.0, 9.96 * 3600, 100 * 3600):
        line = epoch_line(
            tmp_path, caplog, monkeypatch, epoch=998, epochs=999, loss=loss, share=1.0, rate=rate, left=left
        )
        assert len(line) <= 120, line
        assert "macro F1 1.000 (best)" in line and line.endswith(" left")
