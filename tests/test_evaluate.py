"""One whole run in this process: train, evaluate, compare; the figures hold against scikit-learn and each other."""

import dataclasses
import json
import shutil

import commands
import jax
import numpy as np
import pytest
import test_report
from PIL import Image
from sklearn import metrics as sklearn_metrics

from fer_jax import augment, datasets, ensemble, explain, inference, report, scoring, train
from fer_jax import config as config_lib
from fer_jax import run as run_lib
from fer_jax.errors import InputError
from fer_jax.runtime import timing


def small_config(**train_fields):
    config = config_lib.get_default()
    config.model.layers = "conv 8 relu, batch_norm, max_pool, conv 8 relu, avg_pool, flatten, dense 16 relu"
    config.data.drawn_size = "tiny"
    config.data.name = "drawn_faces"
    config.data.feeder = "resident"
    config.train.batch_size = 64
    config.train.epochs = 3
    config.train.update(train_fields)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "small"
    best = train.train(small_config(), workdir)
    scores = {split: scoring.evaluate(workdir, split=split) for split in ("validation", "test")}
    return workdir, best, scores


def test_the_report_has_its_files_and_keys(run):
    workdir, _, _ = run
    saved = json.loads((workdir / "evaluation-test.json").read_text())
    for key in ("accuracy", "macro_f1", "loss", "n", "confusion", "mean_squared_error", "calibration_error", "seed"):
        assert key in saved
    for key in ("commit", "device", "time", "command", "data_fingerprint", "config"):
        assert saved[key]
    assert saved["n"] == 140
    assert (workdir / "evaluation-test.md").read_text().startswith("# ")
    page = (workdir / "evaluation-test.html").read_text()
    assert "synthetic" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "")


def test_the_scores_are_those_of_the_predictions(run):
    workdir, _, scores = run
    model = inference.load(workdir)
    data = datasets.load(model.config.data)
    logits = model.model.apply(model.variables, data.test.images, train=False)
    predicted = np.argmax(logits, axis=-1)
    assert scores["test"]["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(data.test.labels, predicted))
    expected = sklearn_metrics.confusion_matrix(data.test.labels, predicted, labels=range(7))
    np.testing.assert_array_equal(scores["test"]["confusion"], expected)


def test_the_best_checkpoint_is_the_best_epoch(run):
    workdir, best, scores = run
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    accuracies = [row["validation_accuracy"] for row in rows if row["kind"] == "epoch"]
    assert best["validation_accuracy"] == max(accuracies)
    assert scores["validation"]["accuracy"] == pytest.approx(max(accuracies))
    assert scores["validation"]["loss"] == pytest.approx(best["validation_loss"], rel=1e-4)
    assert scores["validation"]["macro_f1"] == pytest.approx(best["validation_macro_f1"], rel=1e-5)


@pytest.mark.full
def test_early_stopping_puts_the_best_variables_back(tmp_path):
    config = small_config(epochs=30, monitor="validation_loss")
    config.optim.learning_rate = 0.05
    config.train.early_stopping.patience_epochs = 2
    train.train(config, tmp_path / "run")
    best, latest = inference.load(tmp_path / "run", "best"), inference.load(tmp_path / "run", "latest")
    assert latest.meta["epoch"] < 30
    assert latest.meta["epoch"] == best.meta["epoch"]
    jax.tree.map(np.testing.assert_array_equal, best.variables, latest.variables)


@pytest.mark.full
def test_the_plateau_cuts_the_learning_rate(tmp_path):
    config = small_config(epochs=3)
    config.optim.plateau.patience_epochs = 1
    config.optim.plateau.min_delta = 100.0
    config.optim.plateau.factor = 0.5
    train.train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["learning_rate"] for row in rows if row["kind"] == "epoch"] == pytest.approx([1e-3, 1e-3, 5e-4])


@pytest.mark.full
def test_bfloat16_class_weights_and_rebalancing_train(tmp_path):
    config = small_config(epochs=1)
    config.model.dtype = "bfloat16"
    config.loss.class_weights = "balanced"
    config.loss.label_smoothing = 0.1
    config.loss.l2 = 1e-4
    config.data.min_class_share = 0.1
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.01
    best = train.train(config, tmp_path / "run")
    assert np.isfinite(best["train_loss"])


@pytest.mark.full
def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    config = small_config()
    config.optim.name = "sgd"
    config.optim.learning_rate = 1e20
    with pytest.raises(InputError, match=r"the loss is .* at step \d+: lower optim.learning_rate"):
        train.train(config, tmp_path / "run")


@pytest.mark.full
def test_two_workdirs_give_a_comparison(run, tmp_path):
    workdir, _, _ = run
    other = tmp_path / "other"
    train.train(small_config(epochs=1), other)
    page = tmp_path / "pages" / "comparison.html"
    result = commands.run("evaluate", "--workdir", workdir, other, "--split", "validation", "--comparison", page)
    assert result.returncode == 0, result.stderr
    assert "by Grad-CAM" in (workdir / "evaluation-validation.html").read_text()
    assert "accuracy" in result.stdout
    text = page.read_text()
    assert str(workdir) in text
    assert str(other) in text


def augmented_in(path):
    """Returns the faces of a report that are marked as original, and as augmented, [N, H, W] each."""
    page = test_report.Page(path.read_text())
    return [np.array(test_report.face_images(page, kind)) for kind in ("original", "augmented")]


@pytest.fixture(scope="module")
def augmented_run(tmp_path_factory):
    """The workdir and the config of a run with augmentation, which is evaluated."""
    workdir, config = tmp_path_factory.mktemp("runs") / "augmented", small_config(epochs=1)
    config.seed = 5
    config.augment.update({"rotate_degrees": 20.0, "flip_horizontal": 0.5, "erase": 0.5})
    train.train(config, workdir)
    scoring.evaluate(workdir, split="validation")
    return workdir, config


@pytest.mark.full
def test_the_report_shows_training_faces_as_the_run_augments_them(augmented_run):
    workdir, config = augmented_run
    shown, versions = augmented_in(workdir / "evaluation-validation.html")
    faces = datasets.load(config.data).train
    picked = [int(np.flatnonzero(faces.labels == label)[0]) for label in range(4)]
    np.testing.assert_array_equal(shown, faces.images[picked, ..., 0])
    policy, key = augment.make(config.augment, 48), jax.random.split(jax.random.key(5), 4)[2]
    for view in range(4):
        uniform = jax.random.uniform(jax.random.fold_in(key, view), (len(faces), augment.DRAWS))
        expected = augment.apply(policy, faces.images, augment.parameters(policy, uniform, 48))
        np.testing.assert_array_equal(versions[view::4], expected[np.array(picked), ..., 0])


@pytest.mark.full
def test_fixed_views_are_shown_as_training_has_them(augmented_run, tmp_path):
    workdir, config = augmented_run
    copy = with_changes(workdir, tmp_path / "run", "config.json", "augment", fixed_views=2)
    scoring.evaluate(copy, split="validation")
    config = config.copy_and_resolve_references()
    config.augment.fixed_views = 2
    of_training = run_lib.build(config).data.train
    picked = [int(np.flatnonzero(of_training.labels == label)[0]) for label in range(4)]
    second = np.add(picked, len(of_training) // 2)
    _, versions = augmented_in(copy / "evaluation-validation.html")
    np.testing.assert_array_equal(versions[::2], of_training.images[picked, ..., 0])
    np.testing.assert_array_equal(versions[1::2], of_training.images[second, ..., 0])


@pytest.mark.full
def test_no_augmented_faces_without_augmentation_or_of_other_faces(run, augmented_run, pictures):
    assert [len(faces) for faces in augmented_in(run[0] / "evaluation-test.html")] == [0, 0]
    scoring.evaluate(augmented_run[0], split="test", data_path=str(pictures))
    assert [len(faces) for faces in augmented_in(augmented_run[0] / "evaluation-test-my own.html")] == [0, 0]


def test_the_report_names_the_command_of_the_training(run):
    command = json.loads((run[0] / "run.json").read_text())["command"]
    page = test_report.Page((run[0] / "evaluation-test.html").read_text())
    assert [
        code["text"]
        for name, code in zip(page.find("dt"), page.find("dd"), strict=True)
        if name["text"] == "training command"
    ] == [command]


def test_mistakes_are_explained_by_the_class_that_was_predicted(run, monkeypatch):
    pages = []
    monkeypatch.setattr(scoring.report, "html", lambda *args: pages.append(args) or "")
    scoring.evaluate(run[0], split="test", heat="auto")
    evaluation, *_, heat = pages[0]
    model, rows = inference.load(run[0]), report.mistakes(evaluation)
    assert heat.method == "grad_cam" and list(heat.overlays) == rows.tolist() and len(rows)
    faces, predicted = evaluation.images[rows], evaluation.probs[rows].argmax(axis=1)
    for face, cam, row in zip(
        faces, explain.grad_cam(model.model, model.variables, faces, predicted), rows, strict=True
    ):
        np.testing.assert_array_equal(heat.overlays[row], explain.overlay(face, cam))


@pytest.fixture(scope="module")
def of_other_faces(run, tmp_path_factory):
    """The workdir of a copy of the run whose test split has other pictures, with equal labels."""
    other = shutil.copytree(run[0], tmp_path_factory.mktemp("runs") / "other")
    model = inference.load(other)
    eval_data = scoring.load_faces(model)
    test = eval_data.splits["test"]
    turned = datasets.Faces(test.images[:, ::-1], test.labels)
    eval_data = dataclasses.replace(eval_data, splits={**eval_data.splits, "test": turned})
    _, probs = inference.predict(model, turned)
    facts = {"workdir": str(other), "checkpoint": "best", "config": config_lib.to_dict(model.config)}
    scoring.write(scoring.target(other, "test"), eval_data, "test", probs, facts)
    return other


@pytest.mark.full
def test_equal_labels_are_not_the_same_faces(run, of_other_faces):
    """The labels, their counts, the data's fingerprint and the split are equal: only the pictures tell."""
    paths = [scoring.target(workdir, "test") for workdir in (run[0], of_other_faces, run[0])]
    assert [(pair["first"], pair["second"]) for pair in scoring.compare(paths)] == [(0, 2)]
    assert [pair["first"] for pair in scoring.compare(paths[1:])] == []
    runs = [
        {"name": str(number), "scores": json.loads(path.with_suffix(".json").read_text()), "history": [], "config": {}}
        for number, path in enumerate(paths)
    ]
    assert "their scores do not compare" in report.comparison_html(runs)
    assert "their scores do not compare" not in report.comparison_html([runs[0], runs[2]])


def test_an_evaluation_without_a_digest_is_compared_and_said_to_be(run, tmp_path):
    workdir, _, scores = run
    path = scoring.target(tmp_path, "test")
    older = {name: value for name, value in scores["test"].items() if name != "faces_digest"}
    path.with_suffix(".json").write_text(json.dumps(older))
    with np.load(f"{scoring.target(workdir, 'test')}.npz") as found:
        np.savez(f"{path}.npz", **{name: found[name] for name in found if name != "faces_digest"})
    (pair,) = scoring.compare([scoring.target(workdir, "test"), path])
    assert (pair["faces"], pair["only_first"], pair["only_second"]) == ("unknown", 0, 0)
    runs = [
        {"name": name, "scores": one, "history": [], "config": {}}
        for name, one in (("a", scores["test"]), ("b", older))
    ]
    assert "The pictures could not be compared" in report.comparison_html(runs, [pair])


@pytest.mark.full
def test_an_ensemble_refuses_a_member_that_was_scored_on_other_faces(run, of_other_faces, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "predict", None)  # refused before the work
    with pytest.raises(InputError, match=r"evaluation-test\.json is of other faces than the test split"):
        ensemble.ensemble([run[0], of_other_faces], tmp_path / "out")


def test_a_long_evaluation_shows_its_progress(run, monkeypatch, caplog):
    model = inference.load(run[0])
    monkeypatch.setattr(timing, "PREDICTION_LINE_SECONDS", 0.0)
    with caplog.at_level("INFO", "fer_jax"):
        inference.predict(model, scoring.load_faces(model).splits["test"], batch_size=20)
    lines = [line for line in caplog.messages if line.startswith("predicting")]
    assert len(lines) == 5  # of 7 batches: neither at the first, from which the rate counts, nor after the last
    assert "step 6/7" in lines[-1] and "images/s" in lines[-1] and "left" in lines[-1]


def test_a_run_that_is_missing_is_named_before_another_is_scored(run, tmp_path):
    workdir, _, _ = run
    result = commands.run("evaluate", "--workdir", workdir, tmp_path / "none", "--split", "train")
    assert result.returncode == 2
    assert str(tmp_path / "none" / "config.json") in result.stderr
    assert not (workdir / "evaluation-train.json").exists()


def test_a_run_from_before_faces_had_a_shape_is_of_48_px_and_grey(run, tmp_path):
    workdir, _, scores = run
    older = shutil.copytree(workdir, tmp_path / "older")
    saved = {name: json.loads((older / name).read_text()) for name in ("run.json", "config.json")}
    assert saved["run.json"].pop("image_shape") == [48, 48, 1]
    assert (saved["config.json"]["data"].pop("size_px"), saved["config.json"]["data"].pop("channels")) == (48, 1)
    for name, content in saved.items():
        (older / name).write_text(json.dumps(content))
    assert inference.load(older).image_shape == (48, 48, 1)
    assert scoring.evaluate(older, split="test")["confusion"] == scores["test"]["confusion"]
    train.train(small_config(), older)  # goes on with it: no difference to the defaults of today


@pytest.fixture
def pictures(tmp_path):
    """90 pictures in folders by class, without splits."""
    rng = np.random.default_rng(0)
    for number in range(90):
        folder = tmp_path / "my own" / datasets.facts.CLASSES[number % 7]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    return tmp_path / "my own"


def with_changes(workdir, copy, name, section="", **changes):
    """Returns a copy of a run, with some fields of one of its files changed."""
    shutil.copytree(workdir, copy)
    content = json.loads((copy / name).read_text())
    (content[section] if section else content).update(changes)
    (copy / name).write_text(json.dumps(content))
    return copy


@pytest.mark.full
def test_own_pictures_without_splits_are_scored_whole(run, pictures, tmp_path):
    copy = with_changes(run[0], tmp_path / "run", "config.json", "data", train_faces=70, split="random")
    result = commands.run(
        "evaluate", "--workdir", copy, "--split", "test", "--data_path", pictures, "--explain", "none"
    )
    assert result.returncode == 0, result.stderr
    assert "Grad-CAM" not in (copy / "evaluation-test-my own.html").read_text()
    assert "loss" in result.stdout and ", 90 faces" in result.stdout
    scores = json.loads((copy / "evaluation-test-my own.json").read_text())
    assert np.sum(scores["confusion"]) == scores["n"] == 90
    assert any("all 90 faces are taken as the split test" in note for note in scores["notes"])


@pytest.mark.full
def test_other_faces_are_not_thinned_as_the_runs_training_faces_are(run, pictures, tmp_path):
    copy = with_changes(run[0], tmp_path / "run", "config.json", "data", train_faces=70)
    for split in ("train", "val", "test"):
        shutil.copytree(pictures, tmp_path / "others" / split)
    assert scoring.evaluate(copy, split="train")["n"] == 70
    assert scoring.evaluate(copy, split="train", data_path=str(tmp_path / "others"))["n"] == 90


@pytest.mark.full
def test_the_runs_own_faces_at_another_path_keep_its_splits(run, pictures, tmp_path):
    fingerprint = datasets.load(with_path(pictures)).fingerprint
    copy = with_changes(run[0], tmp_path / "run", "run.json", data_fingerprint=fingerprint)
    scores = scoring.evaluate(copy, split="test", data_path=str(pictures))
    assert scores["n"] == len(datasets.load(with_path(pictures)).test) == 9


def with_path(path):
    section = config_lib.get_default().data
    section.path = str(path)
    return section


def test_faces_that_are_not_there_are_named_before_the_model_is_loaded(run, tmp_path):
    result = commands.run("evaluate", "--workdir", run[0], "--data_path", tmp_path / "none")
    assert result.returncode == 2
    assert result.stderr.endswith(f"error: --data_path: {tmp_path}/none does not exist\n")
    assert "model:" not in result.stderr


def test_classes_are_matched_by_name():
    faces = datasets.Faces(np.zeros((3, 48, 48, 1), np.uint8), np.array([0, 1, 1], np.int32))
    moved = scoring.by_name(faces, ("sad", "happy"), ("angry", "happy", "sad"))
    assert moved.labels.tolist() == [2, 1, 1]
    with pytest.raises(InputError, match="the model has no bored"):
        scoring.by_name(faces, ("sad", "bored"), ("angry", "happy", "sad"))
