"""Distillation: the loss against NumPy, the teacher as a constant of the step, and what is refused."""

import json

import jax
import numpy as np
import pytest
import tiny
from scipy import special

from fer_jax import checkpoint, distillation, inference, losses, train
from fer_jax import run as run_lib
from fer_jax.errors import InputError

RNG = np.random.default_rng(0)
LOGITS, TEACHER = (RNG.normal(size=(6, 7)).astype(np.float32) * 3 for _ in range(2))
MASK = np.float32([1, 1, 1, 1, 0, 1])


def test_the_loss_by_hand():
    total, count = losses.distillation(LOGITS, TEACHER, MASK, temperature=4.0)
    probs = special.softmax(TEACHER.astype(float) / 4, axis=1)
    expected = -(probs * special.log_softmax(LOGITS.astype(float) / 4, axis=1)).sum(1) * 16
    assert float(total) == pytest.approx((expected * MASK).sum(), rel=1e-5) and count == 5


def test_it_is_mixed_in_by_its_weight():
    labels = RNG.integers(0, 7, 6).astype(np.int32)
    batch = {"label": labels, "mask": MASK, "teacher": TEACHER}
    loss = lambda weight: float(  # noqa: E731
        tiny.make_objective(teacher_weight=weight, teacher_temperature=3.0)(LOGITS, batch, {})[0]
    )
    plain = float(tiny.make_objective()(LOGITS, {"label": labels, "mask": MASK}, {})[0])
    taught = float(losses.distillation(LOGITS, TEACHER, MASK, temperature=3.0)[0]) / 5
    assert [loss(0.0), loss(0.25), loss(1.0)] == pytest.approx([plain, 0.75 * plain + 0.25 * taught, taught], rel=1e-5)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    root = tmp_path_factory.mktemp("teachers")
    for seed in (0, 1):
        config = tiny.make_config(root / "cache", **{"seed": seed, "train.epochs": 1, "optim.learning_rate": 0.02})
        train.train(config, root / f"seed_{seed}")
    return root


def make_config(root, **fields):
    teachers = (str(root / "seed_0"), str(root / "seed_1"))
    fields = {"loss.teacher": teachers, "loss.teacher_weight": 1.0, "train.epochs": 1, **fields}
    return tiny.make_config(root / "cache", **fields)


@pytest.mark.full
def test_a_teacher_answers_with_the_mean_of_its_members(teachers):
    run = run_lib.build(make_config(teachers))
    teacher = distillation.load(run.config.loss.teacher, run)
    images = run.data.train.images[:8]
    found = np.asarray(jax.jit(teacher.logits_fn)(teacher.variables, images))
    probs = []
    for workdir in run.config.loss.teacher:
        model = inference.load(workdir)
        probs.append(
            special.softmax(np.asarray(model.model.apply(model.variables, images, train=False), float), axis=1)
        )
    np.testing.assert_allclose(np.exp(found), np.mean(probs, axis=0), rtol=1e-4)


@pytest.mark.full
def test_the_teacher_is_neither_in_the_checkpoint_nor_changed(teachers, tmp_path):
    digest = lambda: inference.load(teachers / "seed_0").variables["params"]  # noqa: E731
    before = jax.device_get(digest())
    train.train(make_config(teachers), tmp_path / "student")
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(digest()))
    plain, student = (
        checkpoint.Checkpoints(folder).restore("latest", None)[0]
        for folder in (teachers / "seed_0", tmp_path / "student")
    )
    shapes = [jax.tree.map(np.shape, tree) for tree in (plain, student)]
    assert shapes[0] == shapes[1]
    record = json.loads((tmp_path / "student/run.json").read_text())["teacher"]
    assert [one["weight"] for one in record] == [0.5, 0.5] and record[0]["digest"] != record[1]["digest"]
    # With nothing but the teacher to learn from, the student still learns the faces' classes.
    assert "validation_accuracy" in json.loads((tmp_path / "student/metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.full
def test_a_changed_teacher_is_refused_on_resume(teachers):
    run = run_lib.build(make_config(teachers))
    with pytest.raises(InputError, match=r"checkpoints of loss\.teacher have changed"):
        distillation.with_teacher(run, {"teacher": [{"digest": "another"}, {"digest": "one"}]})


@pytest.mark.full
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.classes": ("happy", "sad")}, "members of an ensemble need the same classes|knows"),
        ({"data.split": "random"}, "was trained on another split of the faces than this run"),
        ({"loss.teacher": ("nowhere",)}, "nowhere"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teachers, tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        train.train(make_config(teachers, **fields), tmp_path / "run")
    assert not (tmp_path / "run/config.json").exists()
