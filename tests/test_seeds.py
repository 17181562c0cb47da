"""A config with several seeds: the runs are those of single trainings, and their mean and spread are NumPy's."""

import json
import subprocess
import sys

import commands
import numpy as np
import pytest
import tiny

from fer_jax import config as config_lib
from fer_jax import seeds, train
from fer_jax import workdir as workdir_lib
from fer_jax.errors import Diverged, InputError
from fer_jax.runtime import interrupts

SCORES = {
    3: {
        "epoch": 2,
        "validation_loss": 1.5,
        "validation_accuracy": 0.5,
        "train_loss": 0.1,
        "validation_ema_accuracy": 0.6,
    },
    4: {"epoch": 1, "validation_loss": 1.25, "validation_accuracy": 0.625, "validation_ema_accuracy": 0.5},
    5: {"epoch": 9, "validation_loss": 1.75, "validation_accuracy": 0.53125},
}


@pytest.fixture
def trained(monkeypatch):
    """Replaces the training of a run by its scores above; the list of the runs that were asked for."""
    asked = []

    def stand_in(config, folder, clock=None):
        asked.append((config.seed, folder.name, clock))
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"data_fingerprint": "sha256:1", "packages": {}, "commit": "abc", "device": "a CPU"}
        workdir_lib.write_json(folder / "run.json", facts)
        return SCORES[config.seed]

    monkeypatch.setattr(train, "train", stand_in)
    return asked


def make_config(**fields):
    config = config_lib.get_default()
    config.update_from_flattened_dict({"seed": 3, **fields})
    return config


def test_mean_and_sample_sd_are_numpys_and_the_file_says_of_what(tmp_path, trained):
    config = make_config(**{"train.monitor": "validation_loss"})
    summary = seeds.train_seeds(config, tmp_path / "runs", 3, clock="the command's")
    assert trained == [(3, "seed_3", "the command's"), (4, "seed_4", None), (5, "seed_5", None)]
    found = json.loads((tmp_path / "runs" / "seeds.json").read_text())
    assert found.items() >= summary.items()
    assert list(found["mean"]) == ["validation_loss", "validation_accuracy"]  # those of all runs
    for name in found["mean"]:
        column = [scores[name] for scores in SCORES.values()]
        assert found["mean"][name] == pytest.approx(np.mean(column))
        assert found["sd"][name] == pytest.approx(np.std(column, ddof=1))
    assert (found["seeds"], found["n"], found["monitor"]) == ([3, 4, 5], 3, "validation_loss")
    assert config_lib.from_dict(found["config"]).to_dict() == config.to_dict()
    assert {"commit", "device", "command", "time"} <= found.keys()
    first = found["runs"][0]
    assert (first["seed"], first["best_epoch"], first["data_fingerprint"]) == (3, 2, "sha256:1")
    assert first["scores"]["validation_ema_accuracy"] == 0.6 and "train_loss" not in first["scores"]
    assert config.seed == 3


def test_the_table_has_a_line_a_seed_then_mean_sd_and_n(tmp_path, trained):
    lines = seeds.table(seeds.train_seeds(make_config(), tmp_path, 2)).splitlines()
    assert lines[0] == "validation scores at the best epoch by validation_accuracy, n = 2"
    assert [line.split() for line in lines[1:]] == [
        ["seed", "best", "epoch", "accuracy", "loss", "ema_accuracy"],
        ["3", "2", "0.5000", "1.5000", "0.6000"],
        ["4", "1", "0.6250", "1.2500", "0.5000"],
        ["mean", "0.5625", "1.3750", "0.5500"],
        ["sd", "0.0884", "0.1768", "0.0707"],
    ]
    assert len({len(line) for line in lines[1:]}) == 1


def test_one_seed_has_no_spread(tmp_path, trained):
    summary = seeds.train_seeds(make_config(), tmp_path, 1)
    assert set(summary["sd"].values()) == {None}
    assert seeds.table(summary).splitlines()[-1].split() == ["sd", "-", "-", "-"]


@pytest.mark.parametrize(
    ("seed", "count", "message"),
    [
        (0, 0, "--seeds is 0: give 1 or more"),
        (0, -2, "--seeds is -2: give 1 or more"),
        (2**32 - 2, 3, "--seeds is 3: the last seed would be 4294967296; seeds are 0 to 4294967295"),
    ],
)
def test_seeds_out_of_range_are_refused_before_the_first_run(tmp_path, trained, seed, count, message):
    with pytest.raises(InputError, match=message):
        seeds.train_seeds(make_config(seed=seed), tmp_path, count)
    assert trained == []


def fail(monkeypatch, errors):
    """Makes the trainings of some seeds raise; errors: {seed: exception}."""
    stand_in = train.train

    def fails(config, folder, clock=None):
        stand_in(config, folder)
        if config.seed in errors:
            raise errors[config.seed]
        return SCORES[config.seed]

    monkeypatch.setattr(train, "train", fails)


@pytest.mark.parametrize("error", [interrupts.Stopped(2, "stopped"), InputError("no such data")])
def test_an_interrupt_or_bad_input_ends_all_runs(tmp_path, trained, monkeypatch, error):
    fail(monkeypatch, {4: error})
    with pytest.raises(type(error)):
        seeds.train_seeds(make_config(), tmp_path, 3)
    assert [seed for seed, *_ in trained] == [3, 4]
    assert not (tmp_path / "seeds.json").exists()


def test_a_seed_that_diverges_does_not_end_the_others(tmp_path, trained, monkeypatch):
    fail(monkeypatch, {4: Diverged("the loss is nan at step 8")})
    summary = seeds.train_seeds(make_config(), tmp_path, 3)
    assert [seed for seed, *_ in trained] == [3, 4, 5]
    assert (summary["seeds"], summary["n"]) == ([3, 5], 2)
    assert summary["mean"]["validation_loss"] == np.mean([1.5, 1.75])
    assert json.loads((tmp_path / "seeds.json").read_text())["diverged"] == {"4": "the loss is nan at step 8"}


def test_seeds_that_all_diverge_are_one_error(tmp_path, trained, monkeypatch):
    fail(monkeypatch, {seed: Diverged(f"nan with {seed}") for seed in (3, 4)})
    with pytest.raises(InputError, match="no seed of 2 could be trained; the last: nan with 4"):
        seeds.train_seeds(make_config(), tmp_path, 2)
    assert not (tmp_path / "seeds.json").exists()


@pytest.mark.full
def test_runs_are_those_of_single_trainings_and_more_seeds_train_only_the_new_ones(tmp_path):
    config = tiny.make_config(tmp_path / "cache", **{"train.epochs": 1, "seed": 7})
    seeds.train_seeds(config, tmp_path / "runs", 1)
    before = (tmp_path / "runs" / "seed_7" / "metrics.jsonl").read_text()
    summary = seeds.train_seeds(config, tmp_path / "runs", 2)
    assert (tmp_path / "runs" / "seed_7" / "metrics.jsonl").read_text() == before
    config.seed = 8
    alone = train.train(config, tmp_path / "alone")
    of_8 = summary["runs"][1]
    assert of_8["scores"] == {name: value for name, value in alone.items() if name.startswith("validation_")}
    assert of_8["scores"] != summary["runs"][0]["scores"]
    assert [workdir_lib.read_config(tmp_path / "runs" / f"seed_{seed}")["seed"] for seed in (7, 8)] == [7, 8]


@pytest.mark.full
def test_the_command_prints_the_table_and_its_runs_can_be_evaluated(tmp_path):
    workdir = tmp_path / "runs"
    flags = (*commands.SMALL, "--config.data.feeder=resident", "--config.train.epochs=1", f"--workdir={workdir}")
    ran = commands.run("main", *flags, "--seeds=2")
    assert ran.returncode == 0, ran.stderr
    found = json.loads((workdir / "seeds.json").read_text())
    words = [line.split() for line in ran.stdout.splitlines()]
    assert ["mean", *(f"{value:.4f}" for value in found["mean"].values())] in words
    assert words[-1] == ["all", "figures:", str(workdir / "seeds.json")]
    folders, page = sorted(workdir.glob("seed_*")), tmp_path / "comparison.html"
    scored = commands.run(
        "evaluate", "--workdir", *folders, "--split=validation", f"--comparison={page}", "--explain=none"
    )
    assert scored.returncode == 0, scored.stderr
    for run in found["runs"]:
        scores = json.loads((workdir / f"seed_{run['seed']}" / "evaluation-validation.json").read_text())
        assert scores["accuracy"] == pytest.approx(run["scores"]["validation_accuracy"])
    assert page.exists()


SEED_1_DIVERGES = """
import runpy
from fer_jax import errors, train

train_run = train.train

def train_or_diverge(config, workdir, clock=None):
    if config.seed == 1:
        raise errors.Diverged("the loss is nan")
    return train_run(config, workdir, clock=clock)

train.train = train_or_diverge
runpy.run_module("fer_jax.main", run_name="__main__", alter_sys=True)
"""


@pytest.mark.full
def test_the_command_fails_after_the_table_if_a_seed_diverged(tmp_path):
    flags = (*commands.SMALL, "--config.data.feeder=resident", "--config.train.epochs=1", f"--workdir={tmp_path}")
    command = [sys.executable, "-c", SEED_1_DIVERGES, *flags, "--seeds=3"]
    ran = subprocess.run(
        command, cwd=commands.ROOT, env=commands.environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 2 and ran.stdout.startswith("validation scores at the best epoch"), ran.stderr
    assert ran.stderr.endswith("error: 1 of 3 seeds diverged:\n  seed 1: the loss is nan\n")
    assert json.loads((tmp_path / "seeds.json").read_text())["seeds"] == [0, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seeds=0",), "error: --seeds is 0: give 1 or more"),
        (("--seeds=many",), "--seeds"),
        (("--seeds=2", "--multi_process"), "error: --seeds runs in one process"),
    ],
)
def test_bad_flags_are_refused(tmp_path, flags, message):
    ran = commands.run("main", *commands.SMALL, *flags, f"--workdir={tmp_path / 'runs'}")
    assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "runs").exists()
