"""The reports' rows: every one has a config, none is missing, and what is shortened is said."""

import functools
import importlib.util
import json
import pathlib
import subprocess
import sys

import commands
import jax
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.neural_network import MLPClassifier

from fer_jax import config as config_lib
from fer_jax import models, params, records

HERE = commands.ROOT / "experiments" / "reports"
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
    **dict.fromkeys(("r4_final", "r4_final_relu", "r4_final_plain"), 1_782_852),
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


def load(path):
    """Returns the module of a file."""
    spec = importlib.util.spec_from_file_location(f"reports_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runner():
    sys.path.insert(0, str(HERE))
    yield load(HERE / "run.py")
    sys.path.remove(str(HERE))
    for name in ("systems", "tables"):
        sys.modules.pop(name)


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
    module = load(commands.ROOT / "configs" / name)
    first, second = (config_lib.to_dict(module.get_config(one)) for one in (base, variant))
    assert {line.partition(":")[0] for line in config_lib.differences(first, second)} == fields


def test_r3s_networks_stop_and_slow_down_on_validation_loss_and_see_its_augmentations(runner):
    augmented = {}
    for name, row in runner.systems.ROWS.items():
        if row.report == "R3" and row.kind == "train" and name != "r3_mlp_flax":
            config = runner.get_config(row)
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


def test_a_row_has_the_published_number_of_parameters(runner):
    rows = runner.systems.ROWS
    wanted = COUNTS | {name: R5_CNN for name, row in rows.items() if row.report == "R5"}
    for name, count in wanted.items():
        config = runner.get_config(rows[name])
        network = models.make(config.model, len(config.data.classes) or 7)
        faces = np.zeros((1, 48, 48, 1), np.uint8)
        shapes = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), faces)
        assert params.count(shapes) == count, name
    members = {member: wanted[member] for member, _ in rows["r3_ensemble"].members}
    assert sum(members.values()) == 42_636_501


def test_every_variant_of_a_reports_config_is_a_row(runner):
    used = {row.config for row in runner.systems.ROWS.values() if row.config}
    for path in sorted(pathlib.Path(commands.ROOT / "configs").glob("*.py")):
        if path.name.startswith("_") or path.name in OWN_CONFIGS:
            continue
        module = load(path)
        wanted = {f"{path.name}:{name}" for name in getattr(module, "VARIANTS", ())} or {path.name}
        assert wanted - used - NOT_ROWS == set()
        assert not NOT_ROWS & used


@pytest.mark.parametrize("budget", ["smoke", "cpu", "gpu"])
def test_every_budget_fits_every_config_and_is_said_in_words(runner, budget):
    for name, row in runner.systems.ROWS.items():
        if row.kind in ("train", "average", "search"):
            fields = runner.shortening(row, budget, "random")
            config = runner.get_config(row)
            config.update_from_flattened_dict(fields)
            told = runner.describe(row, fields)
            assert bool(told) == bool(fields), name
            if budget == "gpu":
                assert set(fields) <= {"model.weights"}
            narrowed = fields.get("search.space", ())
            assert all(line.split()[0] in told or "narrower ranges" in told for line in narrowed)
            if "train.epochs" in fields:
                assert f"{config.train.epochs} of " in told


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
    scores = json.loads((workdir / "evaluation-test.json").read_text())
    assert scores["parameters"] == 2304 * 128 + 128 + 128 * 64 + 64 + 64 * 7 + 7
    assert scores["mean_squared_error_hard"] == pytest.approx(2 * (1 - scores["accuracy"]) / 7)


def test_the_hard_error_is_scikit_learns(runner):
    mlp = load(HERE / "mlp.py")
    labels, decided = [0, 2, 1, 2], np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]])
    expected = sklearn_metrics.mean_squared_error([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]], decided)
    assert mlp.hard_mean_squared_error(labels, decided) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_one_hot_labels_are_decided_each_by_itself(runner, tmp_path):
    mlp = load(HERE / "mlp.py")
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
    few = load(HERE / "few_faces.py")
    labels = np.repeat([0, 1], [100, 60])
    right = np.concatenate([np.arange(100) < 80, np.arange(60) < 30])
    drawn = few.draw(right, labels, 20)
    assert drawn.mean() == pytest.approx((0.8 + 0.5) / 2, abs=5e-3)
    variances = [stats.hypergeom(100, 80, 20).var(), stats.hypergeom(60, 30, 20).var()]
    assert drawn.std() == pytest.approx(np.sqrt(sum(variances)) / 40, rel=0.03)
    assert np.ptp(few.draw(right[:100], labels[:100], 100)) == 0  # all faces: no choice is left


def write_noise(path, faces=700):
    """Writes a fer2013.csv of so many faces of noise."""
    rng, usages = np.random.default_rng(0), ("Training",) * 5 + ("PublicTest", "PrivateTest")
    lines = (
        f"{i % 7},{' '.join(map(str, rng.integers(0, 256, 48 * 48)))},{usages[i // 7 % 7]}\n" for i in range(faces)
    )
    path.write_text("emotion,pixels,Usage\n" + "".join(lines))


@pytest.mark.slow
def test_the_runner_trains_scores_mixes_and_resumes(runner, tmp_path, monkeypatch, capfd):
    write_noise(tmp_path / "fer2013.csv")
    row = runner.systems.Row
    rows = {
        "broken": row("R3", "a network of unknown layers", "r3_mlp.py", fields={"model.layers": "dense 9 sigmund"}),
        "small": row("R3", "a small network", "r3_mlp.py", {"test": 0.5}),
        "both": row("R3", "an ensemble of it", kind="ensemble", members=(("small", 3),)),
        "joined": row("R3", "an average of it", "r3_ensemble.py", kind="average", members=(("small", 2),)),
        "other": row("R3", "another network", "r3_mlp.py"),
    }
    monkeypatch.setattr(runner.systems, "ROWS", rows)
    line = ["run.py", "--data_path", "fer2013.csv", "--budget", "smoke", "--rows", "broken,small,both,joined"]
    monkeypatch.setattr(sys, "argv", [*line, "--runs", "runs", "--out", "out"])
    monkeypatch.chdir(tmp_path)

    with pytest.raises(runner.InputError, match="broken failed"):
        runner.main()  # one seed of each row; the ensemble asks for a second one
    found = json.loads((tmp_path / "out" / "r3" / "results.json").read_text())
    assert [record["seed"] for record in found["small"]] == [0, 1]
    assert found["small"][1]["workdir"] == "smoke/small/seed1"
    assert found["small"][0]["test"] is None  # a shortened run does not touch the test split
    assert found["both"][0]["shortened"] == "2 of 3 members, shortened members"
    assert found["joined"][0]["shortened"].startswith("shortened members, 1 of 50 epochs")
    assert found["joined"][0]["fields"]["model.members"] == ["smoke/small/seed0", "smoke/small/seed1"]
    assert found["joined"][0]["parameters"] == 2 * found["small"][0]["parameters"]
    page = (tmp_path / "out" / "results.md").read_text()
    assert all(row.system in page for row in rows.values())
    assert page.count("not run yet") == 2
    assert "1 of 50 epochs" in page
    assert (tmp_path / "out" / "r3" / "curves.png").read_bytes().startswith(b"\x89PNG")
    capfd.readouterr()
    monkeypatch.setattr(sys, "argv", [word.removeprefix("broken,") for word in sys.argv])
    runner.main()
    assert "this run is complete" in capfd.readouterr().err
    again = json.loads((tmp_path / "out" / "r3" / "results.json").read_text())
    for name in ("small", "joined"):
        assert [record["time"] for record in again[name]] == [record["time"] for record in found[name]]


@pytest.mark.parametrize(
    ("published", "shortened", "difference"),
    [
        ({"test": 0.5, "validation": 0.9}, "", "+12.5"),
        ({"validation": 0.62}, "", "-2.0"),
        ({"test": 0.5}, "short", "-"),
    ],
)
def test_the_difference_is_to_the_figure_of_the_same_split(runner, published, shortened, difference):
    row = runner.systems.Row("R1", "a network", "cnn.py", published)
    test, validation = [[{"accuracy": value} for value in values] for values in ((0.6, 0.65), (0.59, 0.61))]
    found = [{"test": a, "validation": b, "shortened": shortened} for a, b in zip(test, validation, strict=True)]
    assert runner.tables._difference(row, found) == difference


def test_a_searchs_line_names_its_start(runner):
    scores = {"accuracy": 0.52, "macro_f1": 0.4, "bootstrap_interval_95": {"accuracy": [0.5, 0.54]}}
    found = {"validation": scores, "test": None, "shortened": "20 of 100 trials", "device": "AMD"}
    row = runner.systems.ROWS["r3_search"]
    assert "| 0.5200 (its start 0.4600) | - |" in runner.tables._line(row, [{**found, "start": {"value": 0.46}}])
    assert "| 0.5200 | - |" in runner.tables._line(row, [found])
    again = {"start": [0.41, 0.43], "best": [0.44, 0.48]}
    line = runner.tables._line(row, [{**found, "start": {"value": 0.46}, "again": again}])
    assert "(its start 0.4600; with 2 other seeds 0.4600 +- 0.0283, its start 0.4200 +- 0.0141)" in line


def test_a_searchs_start_and_best_are_trained_again_with_other_seeds(runner, tmp_path, monkeypatch):
    row = runner.systems.ROWS["r3_search"]
    monkeypatch.setattr(sys, "argv", ["run.py", "--data_path", "fer2013.csv", "--runs", str(tmp_path)])
    options = runner.parse()
    config = runner.get_config(row)
    config.update_from_flattened_dict(runner.shortening(row, "cpu"))
    _, first = runner.space.parse(config.search)
    best = {**first, "filters_6": 320, "optim.learning_rate": 2e-3}
    folder, trained = tmp_path / "cpu" / "r3_search" / "seed0", {}
    trials = [
        {"number": n, "state": "complete", "value": 0.4 + n / 100, "params": params, "workdir": f"trial-{n}"}
        for n, params in enumerate((first, first, best))
    ]
    trials[0] |= {"state": "fail", "value": None, "workdir": "trial-1"}  # cut off, and taken up again as trial 1

    def run(module, *flags):
        workdir = pathlib.Path(flags[flags.index("--workdir") + 1])
        if module == "search":
            folder.mkdir(parents=True)
            records.write_json(folder / "search.json", {"trials": trials, "best": trials[2]})
            for trial in trials[1:]:
                path = folder / trial["workdir"] / "metrics.jsonl"
                path.parent.mkdir()
                path.write_text('{"kind": "epoch", "seconds": 30.0}\n')
        elif module == "main":
            trained[workdir.relative_to(folder)] = dict(flag.split("=", 1) for flag in flags if "=" in str(flag))
        else:
            workdir.mkdir(parents=True, exist_ok=True)
            accuracy = {"start": 40, "best": 50}.get(workdir.parent.name, 0) + int(workdir.name[-1])
            found = {"accuracy": accuracy, "data_fingerprint": "", "n": 7}
            records.write_json(workdir / "evaluation-validation.json", found)

    monkeypatch.setattr(runner, "run", run)
    found = runner.explore("r3_search", row, 0, options)
    assert found["start"] == {"params": first, "value": trials[1]["value"]}
    assert (found["trials"], found["cut_off"]) == (2, 0)
    assert found["again"] == {"start": [41, 42], "best": [51, 52]}
    assert found["seconds"] == 60
    assert {str(path) for path in trained} == {"start/seed1", "start/seed2", "best/seed1", "best/seed2"}
    start, best = (trained[pathlib.Path(what, "seed2")] for what in ("start", "best"))
    assert {name for name in best if start.get(name) != best[name]} == {
        "--config.model.layers",
        "--config.optim.learning_rate",
    }
    assert "{" not in start["--config.model.layers"] + best["--config.model.layers"]
    assert best["--config.seed"] == "2"
    assert best["--config.train.epochs"] == start["--config.train.epochs"] == "4"


def test_a_reports_best_row_is_tested_against_the_others_on_the_same_faces(runner, tmp_path):
    rng = np.random.default_rng(0)
    labels, held = rng.integers(0, 7, 500), {}
    for name, right in (("r5_adam", 300), ("r5_sgd", 100), ("r5_batch_16", 290)):
        probs = np.eye(7)[labels].astype(np.float32)
        probs[rng.permutation(500)[right:]] = 0
        predicted = np.where(probs.any(1), labels, (labels + 1) % 7)
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "evaluation-test.npz", labels=labels, probs=np.eye(7)[predicted], classes=[])
        held[name] = [{"budget": "gpu", "workdir": name, "test": {"accuracy": right / 500}}]
    held["r5_epochs_75"] = [{"budget": "smoke", "workdir": "elsewhere", "test": None}]

    found = runner.tables.pairs(held, tmp_path, {})
    assert set(found) == {"r5_adam and r5_sgd", "r5_adam and r5_batch_16"}
    assert found["r5_adam and r5_sgd"]["difference"] == pytest.approx(0.4)
    assert found["r5_adam and r5_sgd"]["p_value"] < 1e-6
    assert found["r5_adam and r5_batch_16"]["p_value"] > 0.05
    for path in tmp_path.glob("*/*.npz"):
        path.unlink()
    assert runner.tables.pairs(held, tmp_path, found) == found
    assert "Adam 1e-4, batch 64, 30 epochs, against SGD, same settings" in runner.tables._tests(found)[0]


@pytest.mark.parametrize(("best", "made"), [(None, []), (20, []), (30, ["validation"])])
def test_a_score_of_an_earlier_checkpoint_is_made_anew(runner, tmp_path, best, made):
    scores = {"accuracy": 0.5, "data_fingerprint": "sha256:0", "step": 20}
    (tmp_path / "evaluation-validation.json").write_text(json.dumps(scores))
    if best:
        (tmp_path / "checkpoints" / "best" / str(best)).mkdir(parents=True)
    asked = []
    runner._scores(tmp_path, whole=False, make=asked.append)
    assert asked == made


def test_an_ensemble_of_more_members_is_scored_anew_on_both_splits(runner, tmp_path, monkeypatch):
    row = runner.systems.Row("R3", "an ensemble", kind="ensemble", members=(("small", 3),))
    options = runner.parse(["--data_path", "x", "--budget", "cpu", "--runs", str(tmp_path)])
    scored = []

    def train(seed, epoch):
        folder = tmp_path / "cpu" / "small" / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("validation", "test"):
            (folder / f"evaluation-{split}.json").write_text(json.dumps({"epoch": epoch}))

    def run(module, *flags):
        assert module == "ensemble"
        workdirs = flags[1 : flags.index("--out")]
        out, split = flags[flags.index("--out") + 1], flags[-1]
        scored.append((split, len(workdirs)))
        members = [{"workdir": str(path), "epoch": runner._epoch(path)} for path in workdirs]
        out.mkdir(parents=True, exist_ok=True)
        (out / f"evaluation-{split}.json").write_text(json.dumps({"members": members, "data_fingerprint": ""}))

    monkeypatch.setattr(runner, "run", run)
    train(0, 4), train(1, 7)
    assert runner.mix("both", row, 0, options)["members"] == 2
    runner.mix("both", row, 0, options)
    assert scored == [("validation", 2), ("test", 2)]
    train(2, 5)
    runner.mix("both", row, 0, options)
    train(1, 9)
    assert runner.mix("both", row, 0, options)["shortened"] == ""
    assert scored[2:] == [("validation", 3), ("test", 3)] * 2


def test_unknown_rows_are_named(runner):
    options = runner.parse(["--data_path", "x", "--rows", "r9_model"])
    with pytest.raises(runner.InputError, match="r9_model; reports are R1, R2"):
        runner.chosen(options)
    assert config_lib.flat({"a": {"b": 1}}) == {"a.b": 1}
