"""Ensembles: the mean of what the members predict, weights that no grid beats, and members that do not fit."""

import json
import shutil

import commands
import numpy as np
import pytest
from scipy import optimize
from sklearn import metrics

from fer_jax import config as config_lib
from fer_jax import datasets, ensemble, explain, inference, scoring, submission, train
from fer_jax.errors import InputError


def make_config(layers, **fields):
    config = config_lib.get_default()
    config.model.layers = layers
    config.data.update({"drawn_size": "tiny", "name": "drawn_faces", "feeder": "resident"})
    config.train.update({"batch_size": 64, "epochs": 2})
    config.update_from_flattened_dict(fields)
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short runs and their predictions of the test split."""
    root = tmp_path_factory.mktemp("runs")
    layers = {"conv": "conv 8 relu, max_pool, conv 8 relu, avg_pool, flatten", "dense": "flatten, dense 16 relu"}
    workdirs = []
    for name, text in layers.items():
        train.train(make_config(text), root / name)
        scoring.evaluate(root / name, split="test")
        workdirs.append(root / name)
    return root, workdirs


def log_loss(labels, probs):
    probs = probs.astype(float)
    return metrics.log_loss(labels, probs / probs.sum(1, keepdims=True), labels=range(7))


def predictions(workdir, split="test"):
    with np.load(workdir / f"evaluation-{split}.npz") as found:
        return found["labels"], found["probs"]


@pytest.mark.full
def test_equal_weights_give_the_mean(runs):
    root, workdirs = runs
    scores = ensemble.ensemble(workdirs, root / "mean", split="test")
    (labels, first), (_, second) = map(predictions, workdirs)
    mean = (first + second) / 2
    np.testing.assert_allclose(predictions(root / "mean")[1], mean, atol=1e-6)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(labels, mean.argmax(1)))
    assert scores["loss"] == pytest.approx(log_loss(labels, mean), rel=1e-4)
    parameters = [json.loads((w / "evaluation-test.json").read_text())["parameters"] for w in workdirs]
    assert scores["parameters"] == sum(parameters)
    record = json.loads((root / "mean" / "ensemble.json").read_text())
    assert [member["weight"] for member in record["members"]] == [0.5, 0.5]
    assert (root / "mean" / "evaluation-test.html").read_text().startswith("<!")


@pytest.mark.full
@pytest.mark.parametrize("conv", [True, False])
def test_the_heat_of_an_ensemble_is_its_members_weighted_mean(runs, monkeypatch, conv):
    """One method for all: Grad-CAM cannot explain the dense member."""
    root, (with_map, without) = runs
    workdirs = [with_map, shutil.copytree(with_map if conv else without, root / f"other-{conv}")]
    pages = []
    monkeypatch.setattr(scoring.report, "html", lambda *args: pages.append(args) or "")
    scores = ensemble.ensemble(workdirs, root / f"heat-{conv}", split="test", weights="fitted", heat="auto")
    evaluation, *_, heat = pages[0]
    assert heat.method == ("grad_cam" if conv else "occlusion")
    rows = list(heat.overlays)[:3]
    faces, labels = evaluation.images[rows], evaluation.probs[rows].argmax(1)
    mean = 0.0
    for member, workdir in zip(scores["members"], workdirs, strict=True):
        model = inference.load(workdir)
        mean += member["weight"] * explain.METHODS[heat.method](model.model, model.variables, faces, labels)
    for row, face, one in zip(rows, faces, mean, strict=True):
        shown = explain.overlay(face, one / one.max())
        assert np.abs(heat.overlays[row].astype(int) - shown).max() <= 1


@pytest.mark.full
def test_fitted_weights_are_of_the_validation_split_alone(runs):
    root, workdirs = runs
    result = commands.run(
        "ensemble", "--workdir", *workdirs, "--out", root / "fitted", "--weights", "fitted", "--split", "test"
    )
    assert result.returncode == 0, result.stderr
    weights = [member["weight"] for member in json.loads((root / "fitted" / "ensemble.json").read_text())["members"]]
    for workdir in workdirs:
        scoring.evaluate(workdir, split="validation")
    (labels, first), (_, second) = (predictions(workdir, "validation") for workdir in workdirs)

    def loss(share):
        mixed = share * first[range(len(labels)), labels] + (1 - share) * second[range(len(labels)), labels]
        return -np.log(mixed).mean()

    assert sum(weights) == pytest.approx(1)
    assert loss(weights[0]) <= min(loss(share) for share in np.linspace(0, 1, 201)) + 1e-6
    assert "accuracy" in result.stdout


@pytest.fixture(scope="module")
def submitted(runs):
    """The folder of an ensemble with unequal weights, and the test faces as the challenge's test.csv."""
    root, workdirs = runs
    ensemble.ensemble(workdirs, root / "weighed", weights="fitted", split="validation")
    record = json.loads((root / "weighed" / "ensemble.json").read_text())
    for member, weight in zip(record["members"], (0.8, 0.2), strict=True):
        member["weight"] = weight
    (root / "weighed" / "ensemble.json").write_text(json.dumps(record))
    faces = datasets.load(make_config("flatten").data).test
    lines = [" ".join(map(str, image.ravel())) for image in faces.images]
    (root / "test.csv").write_text("pixels\n" + "".join(f'"{line}"\n' for line in lines))
    return root / "weighed", root / "test.csv"


@pytest.mark.full
def test_the_submission_of_an_ensemble_is_of_its_weighted_mean(runs, submitted):
    folder, table = submitted
    result = commands.run("predict", "--workdir", folder, "--format", "kaggle", "--data_path", table)
    assert result.returncode == 0, result.stderr
    (_, first), (_, second) = map(predictions, runs[1])
    expected = (0.8 * first + 0.2 * second).argmax(axis=1)
    header, *rows = (folder / "submission.csv").read_text().split("\n")[:-1]
    assert header == "emotion"
    assert [int(row) for row in rows] == expected.tolist()
    assert not np.array_equal(expected, ((first + second) / 2).argmax(axis=1))  # the weights count


@pytest.mark.full
@pytest.mark.parametrize(
    ("epoch", "checkpoint", "message"),
    [
        (9, None, r"conv has a checkpoint of epoch \d, but the ensemble in .* with that of epoch 9"),
        (None, "latest", r"scored with the best checkpoints: omit --checkpoint"),
    ],
)
def test_an_ensemble_does_not_predict_with_other_checkpoints_than_it_was_scored_with(
    submitted, tmp_path, epoch, checkpoint, message
):
    folder, table = submitted
    record = json.loads((folder / "ensemble.json").read_text())
    if epoch:
        record["members"][0]["epoch"] = epoch
    (tmp_path / "ensemble.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=message):
        submission.predict_table(tmp_path, table, tmp_path / "out.csv", checkpoint=checkpoint)
    assert not (tmp_path / "out.csv").exists()


def test_weights_are_where_expectation_maximization_ends():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    sharp = rng.dirichlet(np.ones(3), (4, 300)) + 1.5 * np.eye(3)[labels] * rng.random((4, 300, 1))
    probs = sharp / sharp.sum(-1, keepdims=True)
    of_labels = probs[:, range(300), labels]
    weights = np.full(4, 0.25)
    for _ in range(20_000):
        shares = weights[:, None] * of_labels
        weights = (shares / shares.sum(0)).mean(1)
    np.testing.assert_allclose(ensemble.fit_weights(labels, probs), weights, atol=2e-3)


def test_a_member_that_knows_nothing_gets_no_weight():
    labels = np.arange(200) % 4
    good = np.full((200, 4), 0.1) + 0.6 * np.eye(4)[labels]
    weights = ensemble.fit_weights(labels, np.stack([np.full((200, 4), 0.25), good]))
    np.testing.assert_allclose(weights, [0, 1], atol=1e-4)


@pytest.mark.parametrize("failure", ["a member without numbers", "an optimizer that stops"])
def test_weights_that_were_not_fitted_are_refused(failure, monkeypatch):
    labels = np.arange(200) % 4
    good = np.full((200, 4), 0.1) + 0.6 * np.eye(4)[labels]
    other = np.full((200, 4), np.nan if failure == "a member without numbers" else 0.25)
    if failure == "an optimizer that stops":
        stopped = optimize.OptimizeResult(x=np.array([0.9, 0.1]), success=False, message="Iteration limit reached")
        monkeypatch.setattr(optimize, "minimize", lambda *_, **__: stopped)
    with pytest.raises(InputError, match=r"the weights cannot be fitted .* or give --weights equal"):
        ensemble.fit_weights(labels, np.stack([other, good]))


@pytest.mark.full
def test_a_score_on_the_faces_of_the_fit_says_so(runs, tmp_path, caplog):
    _, workdirs = runs
    said = {}
    for weights, split in (("fitted", "validation"), ("fitted", "test"), ("equal", "validation")):
        caplog.clear()
        scores = ensemble.ensemble(workdirs, tmp_path / "out", weights=weights, split=split)
        said[weights, split] = (ensemble.FITTED_ON_THESE in scores["notes"], ensemble.FITTED_ON_THESE in caplog.text)
    assert said == {
        ("fitted", "validation"): (True, True),
        ("fitted", "test"): (False, False),
        ("equal", "validation"): (False, False),
    }


@pytest.mark.full
def test_the_workdir_of_a_run_is_no_place_for_an_ensemble(runs):
    _, workdirs = runs
    before = (workdirs[0] / "evaluation-test.json").read_text()
    with pytest.raises(InputError, match=r"conv is the workdir of a run, .* give another --out"):
        ensemble.ensemble(workdirs, workdirs[0])
    assert (workdirs[0] / "evaluation-test.json").read_text() == before


@pytest.mark.full
def test_a_member_of_another_split_or_none_is_refused_before_the_work(runs, tmp_path, monkeypatch):
    _, workdirs = runs
    other = tmp_path / "other"
    shutil.copytree(workdirs[0], other)
    config = json.loads((other / "config.json").read_text())
    config["data"]["split"] = "random"
    (other / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(inference, "predict", None)  # no member is scored before
    with pytest.raises(
        InputError, match=r"other was trained on another split .* may have seen faces of the test split"
    ):
        ensemble.ensemble([*workdirs, other], tmp_path / "out")
    with pytest.raises(InputError, match=r"gone.*config of a run"):
        ensemble.ensemble([*workdirs, tmp_path / "gone"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.full
def test_a_place_that_cannot_be_written_is_named_before_the_work(runs, monkeypatch):
    _, workdirs = runs
    monkeypatch.setattr(inference, "load", None)  # calling it would be an error of another kind
    with pytest.raises(InputError, match=r"config\.json is not a writable folder.*another --out"):
        ensemble.ensemble(workdirs, workdirs[0] / "config.json" / "out")


@pytest.mark.full
def test_one_member_is_no_ensemble(runs, tmp_path):
    _, workdirs = runs
    with pytest.raises(InputError, match="two or more members"):
        ensemble.ensemble([workdirs[0], workdirs[0]], tmp_path / "out")
