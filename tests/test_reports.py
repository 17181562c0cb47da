"""The reports' rows: every one has a config and none is missing; R3's MLP, and an accuracy on few faces."""

import json
import pathlib
import subprocess
import sys
from collections import Counter

import commands
import numpy as np
import pytest
import reports_modules
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.neural_network import MLPClassifier

# Systems in the reports' tables; R4's table has a line for each regime, and its last one an RGB and a grey variant.
SYSTEMS = {"R1": 7, "R2": 3, "R3": 10, "R4": 13, "R5": 5}
HERE = reports_modules.HERE
OWN_CONFIGS = ("demo.py", "lean.py", "vgg10_bn.py", "transfer.py")


@pytest.fixture(scope="module")
def runner():
    with reports_modules.imported() as modules:
        yield modules


def test_no_row_of_the_reports_is_missing(runner):
    rows = runner.systems.ROWS
    published = Counter(row.report for row in rows.values() if row.published)
    grey = 1  # the report gives one figure for its last CNN's two variants
    assert {report: published[report] + (grey if report == "R4" else 0) for report in published} == SYSTEMS
    figures = {name: row.published for name, row in rows.items()}
    assert figures["r1_model_3"] == {"train": 0.9289, "validation": 0.6545, "test": 0.67, "macro_f1": 0.67}
    assert figures["r3_ensemble_351000"] == {"test": 0.69413}
    assert figures["r4_final"]["test"] == 0.933
    assert figures["r5_sgd"] == {"test": 0.335}


def test_every_variant_of_a_reports_config_is_a_row(runner):
    used = {row.config for row in runner.systems.ROWS.values() if row.config}
    for path in sorted(pathlib.Path(commands.ROOT / "configs").glob("*.py")):
        if path.name.startswith("_") or path.name in OWN_CONFIGS:
            continue
        module = reports_modules.load(path)
        wanted = {f"{path.name}:{name}" for name in getattr(module, "VARIANTS", ())} or {path.name}
        left = {"r4_cnn.py:model_1_grey", "r4_cnn.py:model_2_grey"}
        assert wanted - used - left == set()


def test_a_smoke_run_fits_every_config(runner):
    for name, row in runner.systems.ROWS.items():
        if row.kind in ("train", "average", "search"):
            config = runner.systems.get_config(row)
            assert runner.running.shortening(row, "whole") == {}
            config.update_from_flattened_dict(runner.running.shortening(row, "smoke", "random"))
            assert config.train.epochs == 1, name
            assert config.data.train_faces <= 512
            assert not config.model.weights


def test_members_of_ensembles_are_rows_before_them(runner):
    rows = runner.systems.ROWS
    for number, row in enumerate(rows.values()):
        for member, seeds in row.members:
            assert list(rows).index(member) < number
            assert seeds >= 1


def test_the_parameters_of_the_two_perceptrons_are_the_same(runner, tmp_path):
    workdir = tmp_path / "mlp"
    line = [sys.executable, HERE / "mlp.py", "--data_path", "", "--workdir", workdir, "--epochs", "2"]
    ran = subprocess.run(
        [*map(str, line), "--train_faces", "300"], cwd=commands.ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not (workdir / "evaluation-test.json").exists()  # of a shortened run
    scores = json.loads((workdir / "evaluation-validation.json").read_text())
    assert scores["parameters"] == 2304 * 128 + 128 + 128 * 64 + 64 + 64 * 7 + 7
    assert scores["mean_squared_error_hard"] == pytest.approx(2 * (1 - scores["accuracy"]) / 7)


def test_the_hard_error_is_scikit_learns(runner):
    mlp = reports_modules.load(HERE / "mlp.py")
    labels, decided = [0, 2, 1, 2], np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]])
    expected = sklearn_metrics.mean_squared_error([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]], decided)
    assert mlp.hard_mean_squared_error(labels, decided) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_one_hot_labels_are_decided_each_by_itself(runner, tmp_path):
    mlp = reports_modules.load(HERE / "mlp.py")
    images, labels = np.random.default_rng(0).random((40, 4)), np.arange(40) % 3
    for targets in (labels, np.eye(3)[labels]):
        model = MLPClassifier((4,), max_iter=5, random_state=0).fit(images, targets)
        probs, decided = mlp.decide(model, images, 3)
        np.testing.assert_allclose(probs.sum(axis=1), 1)
        if targets.ndim > 1:
            np.testing.assert_array_equal(decided, model.predict_proba(images) > 0.5)
            assert set(decided.sum(axis=1)) != {1}
        else:
            np.testing.assert_array_equal(decided.argmax(axis=1), probs.argmax(axis=1))
            assert set(decided.sum(axis=1)) == {1}


def test_few_faces_spread_as_drawing_without_replacement_says(runner):
    few = reports_modules.load(HERE / "few_faces.py")
    labels = np.repeat([0, 1], [100, 60])
    right = np.concatenate([np.arange(100) < 80, np.arange(60) < 30])
    drawn = few.draw(right, labels, 20)
    assert drawn.mean() == pytest.approx((0.8 + 0.5) / 2, abs=5e-3)
    variances = [stats.hypergeom(100, 80, 20).var(), stats.hypergeom(60, 30, 20).var()]
    assert drawn.std() == pytest.approx(np.sqrt(sum(variances)) / 40, rel=0.03)
    assert np.ptp(few.draw(right[:100], labels[:100], 100)) == 0  # all faces: no choice is left
