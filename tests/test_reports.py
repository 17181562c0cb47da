"""The reports' rows: every one has a config and none is missing; R3's MLP, and an accuracy on few faces."""

import functools
import json
import pathlib
import subprocess
import sys

import commands
import jax
import numpy as np
import pytest
import reports_modules
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.neural_network import MLPClassifier

from fer_jax import config as config_lib
from fer_jax import models, params

HERE = reports_modules.HERE
# Every figure of the reports' tables: of validation (R1, R3) or of the test split (R2, R4, R5).
FIGURES = {
    "R1": {0.6353, 0.6512, 0.6545, 0.6475, 0.6520, 0.6506, 0.56},
    "R2": {0.532, 0.46, 0.42},
    "R3": {0.5985, 0.6050, 0.635, 0.5020, 0.3033, 0.3250, 0.529, 0.6395},
    "R4": {0.695, 0.688, 0.51, 0.625, 0.789, 0.305, 0.438, 0.797, 0.25, 0.281, 0.933},
    "R5": {0.569, 0.335, 0.607, 0.611, 0.617},
}
SPLIT = {"R1": "validation", "R2": "test", "R3": "validation", "R4": "test", "R5": "test"}
PUBLISHED = {"train", "train_loss", "validation", "validation_loss", "test", "macro_f1", "mse", "kaggle"}
# Parameters as the reports, their authors' notebooks or the template that they follow print them, as Keras counts.
R3_BAYESIAN, R3_RESNET50, R3_VGG16, R5_CNN = 2_901_831, 24_114_055, 15_620_615, 5_810_183
COUNTS = {
    **dict.fromkeys(("r1_model_1", "r1_model_2", "r1_model_2_balanced", "r1_model_2_l2"), 1_469_031),
    "r1_model_3": 5_868_743,
    "r1_model_4": 1_977_447,
    "r1_model_5": 2_357_351,
    "r1_model_6": 813_671,
    "r1_efficientnetb0": 4_214_442 - 7,  # Keras's scaling layer holds 7 constants, which are code here
    **dict.fromkeys(("r3_four_layer", "r3_four_layer_augmented"), 1_949_447),
    **dict.fromkeys(("r3_seven_layer", "r3_seven_layer_augmented"), 1_394_183),
    **dict.fromkeys(("r3_bayesian", "r3_bayesian_351000"), R3_BAYESIAN),
    "r3_searched": 2_247_687,  # of the search's best trial, as it was recorded
    "r3_mlp_flax": 303_751,
    "r3_inception_v3": 22_329_127,
    **dict.fromkeys(("r3_resnet50", "r3_resnet50_351000"), R3_RESNET50),
    **dict.fromkeys(("r3_vgg16", "r3_vgg16_351000"), R3_VGG16),
    "r4_model_1": 605_572,
    "r4_model_2": 391_652,
    **dict.fromkeys(("r4_final", "r4_final_relu", "r4_final_plain", "r4_final_yilmaz_poli"), 1_782_852),
    "r4_final_grey": 1_782_340,
}
# A variant of a config, the one it is a change of, and the fields that it changes.
REBALANCED = {"data.min_class_share", "data.max_class_share"}
SGD = {"optim.name", "optim.momentum", "optim.nesterov"}
CHANGES = [
    ("cnn.py:model_2_balanced", "model_2", {"loss.class_weights"}),
    ("cnn.py:model_2_l2", "model_2", {"loss.l2"}),
    ("resnet50.py:r2_balanced", "r2", REBALANCED),
    ("resnet50.py:r2_adam", "r2", {"optim.name", "optim.learning_rate"}),
    ("resnet50.py:r2_tenth", "r2", {"optim.plateau.factor"}),
    ("vgg16.py:r2_balanced", "r2", REBALANCED),
    ("vgg16.py:r2_plain", "r2_no_dropout", {"model.head"}),
    ("vgg16.py:r4_random", "r4_unfrozen", {"model.weights"}),
    ("resnet101.py:random", "unfrozen", {"model.weights"}),
    ("r5_cnn.py:epochs_50", "adam", {"train.epochs"}),
    ("r5_cnn.py:batch_8", "adam", {"train.batch_size"}),
    ("r5_cnn.py:rate_9e-4", "adam", {"optim.learning_rate"}),
    ("r5_cnn.py:best", "adam", {"train.epochs", "train.batch_size", "optim.learning_rate"}),
    ("r5_cnn.py:best_2e-3", "best", {"optim.learning_rate"}),
    ("r5_cnn.py:dice", "adam", {"loss.name"}),
    ("r5_cnn.py:sgd", "adam", SGD),
    ("r5_cnn.py:sgd_1e-2", "sgd", {"optim.learning_rate"}),
    ("r5_cnn.py:sgd_momentum", "sgd", {"optim.momentum"}),
    ("r5_cnn.py:sgd_nesterov", "sgd_1e-2", {"optim.momentum", "optim.nesterov"}),
]
# Variants without a row of their own: another reading of a report, or the same network without augmentation.
NOT_ROWS = {
    "r4_cnn.py:model_1_grey",
    "r4_cnn.py:model_2_grey",
    "resnet50.py:r2_adam",
    "resnet50.py:r2_tenth",
    "r3_cnn.py:bayesian",
    "r3_searched.py:plain",
    "r5_sweep.py",
}
OWN_CONFIGS = ("demo.py", "lean.py", "vgg10_bn.py", "transfer.py")


@pytest.fixture(scope="module")
def runner():
    with reports_modules.imported() as modules:
        yield modules


def test_no_figure_of_the_reports_is_missing(runner):
    rows = runner.systems.ROWS
    found = {report: set() for report in runner.systems.REPORTS}
    for row in rows.values():
        found[row.report] |= {row.published[SPLIT[row.report]]} if SPLIT[row.report] in row.published else set()
        assert row.published.keys() <= PUBLISHED
    assert found == FIGURES
    figures = {name: row.published for name, row in rows.items()}
    r1 = {"train": 0.9289, "train_loss": 0.2025, "validation": 0.6545, "validation_loss": 1.9193}
    assert figures["r1_model_3"] == {**r1, "test": 0.67, "macro_f1": 0.67}
    assert figures["r3_ensemble_351000"] == {"kaggle": 0.69413}
    assert figures["r4_final"] == {"train": 0.924, "validation": 0.936, "test": 0.933}
    assert figures["r5_best"]["test"] == 0.617


def test_a_figure_of_either_of_two_rows_is_shown_with_both(runner):
    rows = runner.systems.ROWS
    for first, second in (
        ("r2_resnet50", "r2_resnet50_balanced"),
        ("r3_four_layer", "r3_four_layer_augmented"),
        ("r3_seven_layer", "r3_seven_layer_augmented"),
        ("r4_vgg16_unfrozen", "r4_vgg16_random"),
        ("r4_resnet101_unfrozen", "r4_resnet101_random"),
        ("r5_sgd", "r5_sgd_1e-2"),
    ):
        assert rows[first].published == rows[second].published != {}


@pytest.mark.parametrize(("changed", "base", "fields"), CHANGES)
def test_a_variant_changes_what_its_name_says_and_no_more(changed, base, fields):
    name, _, variant = changed.partition(":")
    module = reports_modules.load(commands.ROOT / "configs" / name)
    first, second = (config_lib.to_dict(module.get_config(one)) for one in (base, variant))
    assert {line.partition(":")[0] for line in config_lib.differences(first, second)} == fields


def test_r3s_networks_stop_and_slow_down_on_validation_loss_and_see_its_augmentations(runner):
    augmented = {}
    for name, row in runner.systems.ROWS.items():
        if row.report == "R3" and row.kind == "train" and name != "r3_mlp_flax":
            config = runner.systems.get_config(row)
            stopping, plateau = config.train.early_stopping, config.optim.plateau
            assert (stopping.monitor, stopping.patience_epochs) == ("validation_loss", 20), name
            assert plateau.monitor == "validation_loss" and plateau.patience_epochs > 0, name
            assert config.data.split == "random", name
            augmented[name] = config.augment.to_dict()
    named = {"flip_horizontal", "flip_vertical", "rotate_degrees", "zoom", "shear_degrees", "crop_px"}
    default = config_lib.get_default().augment.to_dict()
    plain = {name for name, policy in augmented.items() if policy == default}
    assert plain == {"r3_four_layer", "r3_seven_layer", "r3_resnet50"}
    once = augmented["r3_vgg16"]
    assert {name for name in once if once[name] != default[name]} == named
    for name in augmented.keys() - plain:
        assert augmented[name] == {**once, "fixed_views": 12 if name.endswith("_351000") else 0}, name


def count(config):
    """Returns the number of parameters of a config's network."""
    section = json.dumps(config_lib.to_dict(config)["model"], sort_keys=True)
    return count_section(section, len(config.data.classes) or 7)


@functools.cache
def count_section(section, classes):
    """Returns that of a model section, given as JSON: many rows have the same one."""
    network = models.make(config_lib.from_dict({"model": json.loads(section)}).model, classes)
    faces = np.zeros((1, 48, 48, 1), np.uint8)
    return params.count(jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), faces))


@pytest.mark.full
def test_a_row_has_the_published_number_of_parameters(runner):
    rows = runner.systems.ROWS
    wanted = COUNTS | {name: R5_CNN for name, row in rows.items() if row.report == "R5"}
    for name, published in wanted.items():
        assert count(runner.systems.get_config(rows[name])) == published, name
    members = {member: wanted[member] for member, _ in rows["r3_ensemble"].members}
    assert sum(members.values()) == 42_636_501


def test_every_variant_of_a_reports_config_is_a_row(runner):
    used = {row.config for row in runner.systems.ROWS.values() if row.config}
    for path in sorted(pathlib.Path(commands.ROOT / "configs").glob("*.py")):
        if path.name.startswith("_") or path.name in OWN_CONFIGS:
            continue
        module = reports_modules.load(path)
        wanted = {f"{path.name}:{name}" for name in getattr(module, "VARIANTS", ())} or {path.name}
        assert wanted - used - NOT_ROWS == set()
        assert not NOT_ROWS & used


def test_a_smoke_run_fits_every_config(runner):
    for name, row in runner.systems.ROWS.items():
        if row.kind in ("train", "average", "search"):
            config = runner.systems.get_config(row)
            assert runner.running.shortening(row, "whole") == {}
            config.update_from_flattened_dict(runner.running.shortening(row, "smoke", "random"))
            assert config.train.epochs == 1, name
            assert config.data.train_faces <= 512
            assert not config.model.weights


def test_r3s_published_ensembles_are_averages_trained_further_at_1e_4(runner):
    rows = runner.systems.ROWS
    ensembles = [row for row in rows.values() if row.kind in ("ensemble", "average") and row.report == "R3"]
    for name in ("r3_ensemble", "r3_ensemble_351000"):
        row = rows[name]
        config = runner.systems.get_config(row)
        assert (row.kind, config.model.name, config.optim.name) == ("average", "average", "adam")
        assert config.optim.learning_rate == 1e-4
        assert rows[f"{name}_mean"].members == row.members
        networks = [runner.systems.get_config(rows[member]) for member, _ in row.members]
        assert [network.model.name for network in networks] == ["resnet50", "cnn", "vgg16"]
        assert {network.augment.fixed_views for network in networks} == {config.augment.fixed_views}
    assert {row.kind for row in ensembles if row.published and len(row.members) > 1} == {"average"}
    assert not any(row.published for row in ensembles if row.system.startswith("our "))


def test_what_was_chosen_on_the_official_publictest_says_so(runner):
    for name, row in runner.systems.ROWS.items():
        searched = {name, *(member for member, _ in row.members)} & {"r3_searched"}
        assert bool(searched) == ("chose its CNN on PublicTest" in row.lesson)


def test_twins_have_parameters_within_a_hundredth(runner):
    for name in ("r4_cfc", "r4_roi"):
        rows = [runner.systems.ROWS[one] for one in (name, f"{name}_plain")]
        counts = [count(runner.systems.get_config(row)) for row in rows]
        assert counts[0] != counts[1]
        assert counts[1] == pytest.approx(counts[0], rel=0.01)
        assert "within 1% of its parameters" in rows[1].system


def test_members_of_ensembles_are_rows_before_them(runner):
    rows = runner.systems.ROWS
    for number, row in enumerate(rows.values()):
        for member, seeds in row.members:
            assert list(rows).index(member) < number
            assert seeds >= 1


@pytest.mark.full
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
