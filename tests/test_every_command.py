"""Every command once, as a user calls it: from a training to what is made of it."""

import json
import shutil

import commands
import numpy as np
import pytest

from fer_jax import cli

FLAGS = (*commands.SMALL, "--config.data.feeder=resident", "--config.train.epochs=1")


def run(module, *flags):
    result = commands.run(module, *flags)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a trained run, and a copy of it."""
    root = tmp_path_factory.mktemp("commands")
    said = run("main", *FLAGS, f"--workdir={root / 'run0'}").stderr
    assert said.startswith(f"run: {root / 'run0'}\n") and "epoch 1/1" in said
    shutil.copytree(root / "run0", root / "run1")
    return root


def accuracy(path):
    return json.loads(path.read_text())["accuracy"]


def test_a_run_is_evaluated_as_training_scored_it(root):
    run("evaluate", f"--workdir={root / 'run0'}", "--split=validation", "--explain=none")
    lines = (root / "run0" / "metrics.jsonl").read_text().splitlines()
    (epoch,) = [record for record in map(json.loads, lines) if record["kind"] == "epoch"]
    assert accuracy(root / "run0" / "evaluation-validation.json") == pytest.approx(epoch["validation_accuracy"])


def test_runs_are_scored_as_one(root):
    run("ensemble", "--workdir", root / "run0", root / "run1", "--out", root / "both", "--split=validation")
    assert 0 < accuracy(root / "both" / "evaluation-validation.json") <= 1


def test_a_run_is_exported_and_predicts(root):
    run("export", "--model", root / "run0", "--out", root / "models" / "small")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48 * 48))
    table = root / "test.csv"
    table.write_text("pixels\n" + "\n".join(" ".join(map(str, row)) for row in pixels))
    submission = root / "submission.csv"
    model = root / "models" / "small.safetensors"
    run("predict", "--model", model, "--format", "kaggle", "--data_path", table, "--out", submission)
    lines = submission.read_text().splitlines()
    assert lines[0] == "emotion" and len(lines) == 6 and set(lines[1:]) <= set("0123456")


def test_a_search_tries_one_network(root):
    space = "--config.search.space=('optim.learning_rate log 1e-4 1e-2',)"
    run("search", *FLAGS, space, "--trials=1", f"--workdir={root / 'study'}")
    assert len(list((root / "study").glob("*/history.csv"))) == 1


def test_weights_are_listed():
    assert "vgg16" in run("pretrained", "--list").stdout


def test_no_command_is_left_out():
    modules = {module.removeprefix("fer_jax.") for module, _ in cli.COMMANDS.values()}
    assert modules == {"main", "evaluate", "ensemble", "predict", "export", "search", "pretrained"}
