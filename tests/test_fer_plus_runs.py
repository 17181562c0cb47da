"""Runs on FER+ labels and vote targets, from the table to the scores, on noise with random votes."""

import csv
import dataclasses
import io
import shutil

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import fer_jax
from fer_jax import augment, datasets, ensemble, export, scoring, submission, train, wiring
from fer_jax import run as run_lib
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts, fer_plus
from fer_jax.errors import InputError

COUNTS = {"Training": 120, "PublicTest": 40, "PrivateTest": 40}
NETWORK = {
    "model.name": "cnn",
    "model.layers": "conv 4 relu, max_pool, global_avg_pool",
    "model.head": "",
    "model.size_px": 0,
    "train.batch_size": 20,
    "train.epochs": 1,
}


def write_set(folder, seed=0):
    """Writes a small fer2013.csv of noise, and votes by `seed` in which every split has every category."""
    pixels, votes_rng, row = np.random.default_rng(7), np.random.default_rng(seed), 0
    table, votes = io.StringIO(), io.StringIO()
    table.write("emotion,pixels,Usage\n")
    votes.write(f"Usage,Image name,{','.join(facts.VOTES)}\n")
    for usage, count in COUNTS.items():
        for number in range(count):
            image = pixels.integers(0, 256, 48 * 48)
            counts = np.bincount(votes_rng.integers(0, 10, 3), minlength=10)
            counts[(number + seed) % 10] += 4 + number % 4
            table.write(f"{number % 7},{' '.join(map(str, image))},{usage}\n")
            votes.write(f"{usage},fer{row:07d}.png,{','.join(map(str, counts))}\n")
            row += 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fer2013.csv").write_text(table.getvalue())
    (folder / "votes.csv").write_text(votes.getvalue())
    return {"data.name": "fer2013", "data.path": str(folder), "data.votes_path": str(folder / "votes.csv")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("fer_plus")


@pytest.fixture(scope="module")
def fields(root):
    return {**write_set(root / "set"), "loss.targets": "votes"}


@pytest.fixture(scope="module")
def workdir(root, fields):
    """A short run on eight classes with vote targets."""
    train.train(tiny.make_config(root / "cache", **NETWORK, **fields, **{"data.labels": "fer+"}), root / "run")
    return root / "run"


def targets_by_picture(faces, classes):
    return dict(zip([image.tobytes() for image in faces.images], fer_plus.make_targets(faces, classes)[0], strict=True))


@pytest.mark.full
@pytest.mark.parametrize("feeder", ["resident", "tfdata"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data.min_class_share": 0.14, "data.split": "random"},
        {"augment.fixed_views": 2, "augment.flip_horizontal": 0.5},
        {"data.classes": ("sad", "happy", "fear")},
    ],
    ids=["plain", "oversampled", "fixed views", "subset"],
)
def test_every_face_is_trained_on_with_its_own_target(root, fields, feeder, changes):
    run = run_lib.build(tiny.make_config(root / "cache", **NETWORK | fields | changes | {"data.feeder": feeder}))
    unchanged = {name: value for name, value in changes.items() if name.startswith("data")}
    faces = datasets.load(tiny.make_config(root / "cache", **NETWORK | fields | unchanged).data).train
    expected = targets_by_picture(faces, run.data.classes)
    mirrored = dataclasses.replace(faces, images=faces.images[:, :, ::-1])
    expected |= targets_by_picture(mirrored, run.data.classes) if "augment.fixed_views" in changes else {}
    made, seen = wiring.make_feeder(run, run.data.train), set()
    for chunk in made.chunks(0, run.steps_per_epoch):
        batch = jax.device_get(jax.jit(made.batch)(made.arrays, chunk.items))
        for image, target in zip(batch["image"], batch["target"], strict=True):
            np.testing.assert_array_equal(target, expected[image.tobytes()])
            seen.add(image.tobytes())
    made.close()
    assert len(seen) > 0.9 * len(faces)


@pytest.mark.full
def test_the_loss_of_a_step_is_that_against_the_votes(root, fields):
    """Against the labels it would be another one, and so without targets."""
    losses = {}
    for targets in ("votes", "labels"):
        run = run_lib.build(tiny.make_config(root / "cache", **NETWORK | fields | {"loss.targets": targets}))
        (phase,) = run.phases
        feeder, state = wiring.make_feeder(run, run.data.train), wiring.init_state(run, phase)
        logits = phase.model.apply(jax.device_get(state.variables), run.data.train.images, train=False)
        nats = -np.asarray(jax.nn.log_softmax(logits))
        picked = np.asarray(run.sampler.indices(0, 1))[0]
        target = np.eye(7)[run.data.train.labels]
        if targets == "votes":
            target = fer_plus.make_targets(run.data.train, run.data.classes)[0]
        expected = (target * nats).sum(axis=1)[picked].mean()
        train_steps = wiring.make_train_steps(run, phase, feeder, None)
        _, sums = train_steps(state, wiring.make_constants(run, feeder), next(feeder.chunks(0, 1)))
        losses[targets] = float(sums["loss"]) / 20
        np.testing.assert_allclose(losses[targets], expected, rtol=1e-4)
    assert losses["votes"] != losses["labels"]


def test_features_of_a_frozen_backbone_keep_the_targets(root, fields):
    frozen = {"optim.freeze": ("backbone",), "train.batch_size": 20, "train.epochs": 1}
    run = run_lib.build(tiny.make_config(root / "cache", **fields | frozen))
    inputs, forward = wiring.make_inputs(run, run.phases[0], wiring.init_state(run, run.phases[0]))
    assert forward is not None
    np.testing.assert_array_equal(inputs["train"].targets, run.data.train.targets)
    assert inputs["validation"].targets is None


@pytest.mark.full
def test_a_run_on_eight_classes_is_scored(workdir):
    scores = scoring.evaluate(workdir, split="validation")
    assert tuple(scores["classes"]) == fer_plus.CLASSES
    assert scores["n"] == np.sum(scores["confusion"]) == len(scoring_labels(workdir)) < 40
    assert any("majorities of the FER+ votes" in note for note in scores["notes"])
    (epoch,) = workdir_lib.read_history(workdir)
    assert epoch["validation_accuracy"] == pytest.approx(scores["accuracy"])
    assert "contempt" in (workdir / "evaluation-validation.html").read_text()


def scoring_labels(workdir):
    with np.load(workdir / "evaluation-validation.npz") as found:
        assert tuple(found["classes"]) == fer_plus.CLASSES and found["probs"].shape[1] == 8
        return found["labels"]


@pytest.mark.full
def test_its_faces_at_another_path_have_the_same_labels_and_others_are_matched_by_name(workdir, root, tmp_path):
    here = scoring.evaluate(workdir, split="validation")
    shutil.copytree(root / "set", tmp_path / "moved")
    there = scoring.evaluate(workdir, split="validation", data_path=str(tmp_path / "moved" / "fer2013.csv"))
    assert (there["faces_digest"], there["accuracy"]) == (here["faces_digest"], here["accuracy"])
    for kinds in (("contempt", "neutral"), ("happy", "neutral", "sad")):
        for kind in kinds:
            (tmp_path / kinds[0] / "test" / kind).mkdir(parents=True)
            Image.new("L", (48, 48), 90).save(tmp_path / kinds[0] / "test" / kind / "a.png")
        for split in ("train", "validation"):
            shutil.copytree(tmp_path / kinds[0] / "test", tmp_path / kinds[0] / split)
    assert scoring.evaluate(workdir, split="validation", data_path=str(tmp_path / "contempt"))["n"] == 2
    with pytest.raises(InputError, match=r"the model has no happy, sad; its classes are neutral, happiness, .*rename"):
        scoring.evaluate(workdir, split="validation", data_path=str(tmp_path / "happy"))


@pytest.mark.full
def test_an_ensemble_and_a_model_file_have_eight_classes(workdir, root, fields, tmp_path):
    shutil.copytree(workdir, tmp_path / "other")
    scores = ensemble.ensemble([workdir, tmp_path / "other"], tmp_path / "both", split="validation")
    assert tuple(scores["classes"]) == fer_plus.CLASSES
    export.export(workdir, tmp_path / "model")
    model = fer_jax.load(tmp_path / "model.safetensors")
    assert model.classes == fer_plus.CLASSES
    assert "contempt" in (tmp_path / "model.md").read_text()
    seven = tiny.make_config(root / "cache", **NETWORK, **fields)
    train.train(seven, tmp_path / "seven")
    with pytest.raises(InputError, match="need the same classes"):
        ensemble.ensemble([workdir, tmp_path / "seven"], tmp_path / "mixed", split="validation")


def test_the_challenge_has_seven_classes(workdir, root, tmp_path):
    table = root / "set" / "fer2013.csv"
    with pytest.raises(InputError, match=r"predicts neutral, .*contempt; the challenge's classes are angry, .*seven"):
        submission.predict_table(workdir, table, tmp_path / "submission.csv")
    assert not (tmp_path / "submission.csv").exists()
    submission.predict_table(workdir, table, tmp_path / "all.csv", format="csv")
    with open(tmp_path / "all.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200 and set(fer_plus.CLASSES) <= set(rows[0])


@pytest.mark.parametrize(
    ("labels", "difference"), [("fer+", r"the data: sha256"), ("fer2013", r"the training targets: sha256:\w+, now sha")]
)
def test_a_run_is_not_resumed_with_other_votes(root, fields, tmp_path, labels, difference):
    config = tiny.make_config(root / "cache", **NETWORK | fields | {"data.labels": labels})
    train.train(config, tmp_path / "run")
    assert train.train(config, tmp_path / "run")["epoch"] == 1  # complete
    config.data.votes_path = write_set(tmp_path / "others", seed=1)["data.votes_path"]
    with pytest.raises(InputError, match=difference):
        train.train(config, tmp_path / "run")


def test_votes_as_targets_are_asked_for_before_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda _: pytest.fail("loaded"))
    for value, message in (("votes", r"loss\.targets is votes: give data\.votes_path"), ("soft", "known are labels")):
        with pytest.raises(InputError, match=message):
            run_lib.build(tiny.make_config(tmp_path, **{"loss.targets": value}))


def test_without_votes_nothing_has_targets(root, fields):
    run = run_lib.build(tiny.make_config(root / "cache", **NETWORK | fields | {"loss.targets": "labels"}))
    assert run.data.train.targets is None and run.data.targets_digest is None
    assert augment.Policy() == run.policy
    feeder = wiring.make_feeder(run, run.data.train)
    assert feeder.arrays.keys() == {"images", "labels"}
