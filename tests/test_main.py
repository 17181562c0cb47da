"""Bad input to the commands: one message that names the thing and the mend, exit code 2, nothing lost."""

import json
import os

import commands
import pytest


def refusal(module, *flags):
    """Runs a command that must refuse; returns its message."""
    result = commands.run(module, *flags)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    return result.stderr


def test_help_lists_the_flags():
    result = commands.run("main", "--help")
    assert "--config" in result.stdout
    assert "--workdir" in result.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give a config"),
        (("--config=configs/none.py",), "configs/none.py"),
        (("--config=configs/cnn.py:model_9",), "known are model_1"),
        ((*commands.SMALL, "--config.optim.learning_rat=1"), "learning_rate"),
        ((*commands.SMALL, "--config.train.epochs=many"), "train.epochs"),
        ((*commands.SMALL, "--config.data.path=/no/such/folder"), "/no/such/folder"),
        ((*commands.SMALL, "--config.data.feeder=carrier_pigeon"), "known are tfdata, resident"),
        ((*commands.SMALL, "--config.model.layers=conv 8 relu, flattn"), "unknown layer 'flattn'"),
        ((*commands.SMALL, "--config.train.monitor=test_accuracy"), "known are validation_accuracy"),
    ],
)
def test_bad_flags_are_refused_before_work_starts(flags, message, tmp_path):
    workdir = tmp_path / "run"
    assert message in refusal("main", *flags, f"--workdir={workdir}")
    assert not workdir.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a short run, and what training said."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    flags = (*commands.SMALL, "--config.data.feeder=resident", "--config.train.epochs=2", f"--workdir={workdir}")
    result = commands.run("main", *flags)
    assert result.returncode == 0, result.stderr
    return workdir, flags, result.stderr


def test_training_says_what_it_does(finished):
    _, _, told = finished
    for words in ("fingerprint sha256:", "total ", "steps/s", "images/s", "waiting for data", "left", "macro F1"):
        assert words in told


def test_a_finished_run_says_so_and_changes_nothing(finished):
    workdir, flags, _ = finished
    before = (workdir / "metrics.jsonl").read_text()
    again = commands.run("main", *flags)
    assert again.returncode == 0
    assert "this run is complete" in again.stderr
    assert (workdir / "metrics.jsonl").read_text() == before


def test_another_config_is_refused_with_the_differences(finished):
    workdir, flags, _ = finished
    before = (workdir / "config.json").read_text()
    message = refusal("main", *flags, "--config.optim.learning_rate=0.5", "--config.seed=7")
    assert "optim.learning_rate: 0.001, now 0.5" in message
    assert "seed: 0, now 7" in message
    assert (workdir / "config.json").read_text() == before


def test_a_truncated_checkpoint_is_named(finished, tmp_path):
    workdir, _, _ = finished
    copy = tmp_path / "copy"
    os.system(f"cp -r {workdir} {copy}")
    step = json.loads((copy / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    for newest in ("best", f"latest/{step}"):
        files = [path for path in (copy / "checkpoints" / newest).rglob("*") if path.is_file()]
        largest = max(files, key=lambda path: path.stat().st_size)
        with largest.open("r+b") as file:
            file.truncate(largest.stat().st_size // 3)
    assert "is damaged" in refusal("evaluate", "--workdir", copy)
    message = refusal("main", *finished[1], f"--workdir={copy}")
    assert f"latest/{step} is damaged" in message


def test_a_workdir_without_a_run_is_named(tmp_path):
    assert str(tmp_path) in refusal("evaluate", "--workdir", tmp_path)


def test_a_run_without_a_checkpoint_is_named(finished, tmp_path):
    workdir, _, _ = finished
    for name in ("config.json", "run.json"):
        (tmp_path / name).write_text((workdir / name).read_text())
    assert "no checkpoint" in refusal("evaluate", "--workdir", tmp_path)
