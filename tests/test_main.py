"""Bad input to the commands: one message that names the thing and the fix, exit code 2, nothing lost."""

import json
import os
import re

import commands
import pytest

from fer_jax import config as config_lib
from fer_jax import fields


def refusal(module, *flags):
    """Runs a command that must refuse; returns its message."""
    result = commands.run(module, *flags)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    return result.stderr


@pytest.mark.parametrize("module", ["main", "search"])
def test_help_lists_the_flags_and_says_where_the_fields_are(module):
    result = commands.run(module, "--help")
    assert result.returncode == 0
    for flag in ("--config", "--workdir", "--[no]fields"):
        assert flag in result.stdout


def test_fields_are_listed_with_default_unit_and_range():
    result = commands.run("main", "--fields")
    assert result.returncode == 0, result.stderr
    assert "\n--config.optim.learning_rate=0.001\n    peak, per step; more than 0\n" in result.stdout
    listed = re.findall(r"^--config\.(\S+?)=", result.stdout, flags=re.MULTILINE)
    assert listed == list(config_lib.flat(fields.defaults()))


@pytest.mark.full
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give a config"),
        (("--config.train.epochs=2",), "error: --config.train.epochs changes a config: give one first, for instance"),
        (
            ("--config=configs/none.py",),
            "error: configs/none.py not found: give a config as NAME, FILE.py, NAME:VARIANT or FILE.py:VARIANT",
        ),
        (("--config=configs/none.py", "--config.train.epochs=2"), "error: configs/none.py not found"),
        (("--config=configs/cnn.py:model_9",), "error: unknown variant 'model_9' of this config; known are model_1"),
        (
            (*commands.SMALL, "--config.optim.learning_rat=1"),
            "error: the config has no field 'optim.learning_rat': did you mean optim.learning_rate?",
        ),
        ((*commands.SMALL, "--config.optm.learning_rate=1"), "did you mean optim.learning_rate?"),
        ((*commands.SMALL, "--config.lookahead=1"), "no field 'lookahead': --fields prints every field"),
        ((*commands.SMALL, "--config.optim.learning_rate=nan"), "error: optim.learning_rate is nan: give more than 0"),
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


@pytest.mark.full
def test_a_workdir_that_cannot_be_written_is_named_before_the_data(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n9,9,9\n")  # which could not be read either
    flags = (*commands.SMALL, f"--config.data.path={tmp_path}", f"--workdir={tmp_path}/file/run")
    assert "file/run cannot be written" in refusal("main", *flags)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a short run, and what training said."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    flags = (*commands.SMALL, "--config.data.feeder=resident", "--config.train.epochs=2", f"--workdir={workdir}")
    result = commands.run("main", *flags)
    assert result.returncode == 0, result.stderr
    return workdir, flags, result.stderr


@pytest.mark.full
def test_training_says_what_it_does(finished):
    _, _, stderr = finished
    for words in ("fingerprint sha256:", "total ", "images/s", "left", "macro F1"):
        assert words in stderr


@pytest.mark.full
def test_training_names_its_folder_first_and_keeps_its_lines_short(finished):
    workdir, _, stderr = finished
    lines = stderr.splitlines()
    assert lines[0] == f"run: {workdir}"
    assert max(map(len, lines)) <= 200
    assert all(len(line) <= 120 for line in lines if line.startswith(("epoch ", "memory ", "first step ")))
    assert " 0 MiB of arguments" not in stderr


@pytest.mark.full
def test_a_finished_run_says_so_and_changes_nothing(finished):
    workdir, flags, _ = finished
    before = (workdir / "metrics.jsonl").read_text()
    again = commands.run("main", *flags)
    assert again.returncode == 0
    assert "this run is complete" in again.stderr
    assert (workdir / "metrics.jsonl").read_text() == before


@pytest.mark.full
def test_another_config_is_refused_with_the_differences(finished):
    workdir, flags, _ = finished
    before = (workdir / "config.json").read_text()
    message = refusal("main", *flags, "--config.optim.learning_rate=0.5", "--config.seed=7")
    assert "optim.learning_rate: 0.001, now 0.5" in message
    assert "seed: 0, now 7" in message
    assert (workdir / "config.json").read_text() == before


@pytest.mark.full
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
    assert "is corrupt" in refusal("evaluate", "--workdir", copy)
    resumed = commands.run("main", *finished[1], f"--workdir={copy}")
    assert resumed.returncode == 0 and "Traceback" not in resumed.stderr, resumed.stderr
    assert f"latest/{step} is corrupt" in resumed.stderr and "going back to the one before it" in resumed.stderr


@pytest.mark.full
def test_a_workdir_without_a_run_is_named(tmp_path):
    assert str(tmp_path) in refusal("evaluate", "--workdir", tmp_path)


@pytest.mark.full
def test_a_run_without_a_checkpoint_is_named(finished, tmp_path):
    workdir, _, _ = finished
    for name in ("config.json", "run.json"):
        (tmp_path / name).write_text((workdir / name).read_text())
    assert "no checkpoint" in refusal("evaluate", "--workdir", tmp_path)
