import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from fer_jax import metrics

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
K = len(CLASSES)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def faces(n=400, seed=0, absent=()):
    rng = np.random.default_rng(seed)
    labels = rng.choice([k for k in range(K) if k not in absent], n)
    logits = 1.5 * rng.normal(size=(n, K)) + 1.2 * np.eye(K)[labels]
    logits[:, list(absent)] = -50.0
    return labels, logits.astype(np.float32)


def sums_of(labels, logits, mask, losses):
    return jax.jit(metrics.batch_sums)(
        jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask), jnp.sum(jnp.asarray(losses * mask))
    )


def test_sums_count_the_real_faces_as_scikit_learn_does():
    labels, logits = faces()
    mask = (np.arange(len(labels)) % 3 != 0).astype(np.float32)
    sums = sums_of(labels, logits, mask, np.ones_like(mask))
    real = mask == 1
    expected = reference.confusion_matrix(labels[real], logits[real].argmax(1), labels=range(K))
    np.testing.assert_array_equal(sums["confusion"], expected)
    assert sums["confusion"].dtype == jnp.int32
    assert int(sums["count"]) == real.sum()


@pytest.mark.parametrize("absent", [(), (1,), (1, 4)])
def test_summary_equals_scikit_learn(absent):
    labels, logits = faces(absent=absent)
    losses = np.linspace(0, 2, len(labels), dtype=np.float32)
    summary = metrics.summarize(sums_of(labels, logits, np.ones(len(labels)), losses))
    predicted = logits.argmax(1)
    f1 = reference.f1_score(labels, predicted, average="macro", zero_division=0, labels=range(K))
    assert summary["macro_f1"] == pytest.approx(f1, abs=1e-12)
    assert summary["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-12)
    assert summary["loss"] == pytest.approx(losses.mean(dtype=np.float64), rel=1e-6)
    assert {type(value) for value in summary.values()} == {float}


def test_sums_of_uneven_padded_batches_merge_to_those_of_the_whole():
    labels, logits = faces(n=101)
    losses = np.arange(101, dtype=np.float32) / 8  # exact in float32, in any order of adding
    whole = sums_of(labels, logits, np.ones(101), losses)
    merged = None
    for start in range(0, 101, 32):
        rows = slice(start, start + 32)
        pad = 32 - len(labels[rows])
        part = sums_of(
            np.pad(labels[rows], (0, pad), constant_values=-1),
            np.pad(logits[rows], ((0, pad), (0, 0)), constant_values=7.0),
            np.pad(np.ones(len(labels[rows])), (0, pad)),
            np.pad(losses[rows], (0, pad)),
        )
        merged = part if merged is None else metrics.add(merged, part)
    assert jax.tree.structure(merged) == jax.tree.structure(whole)
    jax.tree.map(np.testing.assert_array_equal, merged, whole)


@pytest.mark.parametrize("label", [-1, K])
def test_a_real_face_with_a_label_out_of_range_is_refused(label):
    labels, logits = faces(n=8)
    labels[3] = label
    with pytest.raises(ValueError, match=r"8 faces, but 7 .* outside 0\.\.6"):
        metrics.summarize(sums_of(labels, logits, np.ones(8), np.zeros(8)))


def test_no_real_face_is_refused():
    labels, logits = faces(n=4)
    with pytest.raises(ValueError, match="no faces"):
        metrics.summarize(sums_of(labels, logits, np.zeros(4), np.zeros(4)))


@pytest.mark.parametrize(
    ("labels", "mask", "logits"), [((4, 1), (4,), (4, 7)), ((4,), (4, 1), (4, 7)), ((4,), (4,), (4, 7, 1))]
)
def test_batch_sums_refuses_shapes_that_would_broadcast(labels, mask, logits):
    with pytest.raises(ValueError, match=r"batch_sums needs logits \[B, K\]"):
        metrics.batch_sums(jnp.zeros(logits), jnp.zeros(labels, int), jnp.zeros(mask), jnp.zeros(()))


@pytest.mark.parametrize("absent", [(), (1,)])
def test_score_equals_scikit_learn(absent):
    labels, logits = faces(absent=absent)
    probs = softmax(logits.astype(np.float64))
    predicted = probs.argmax(1)
    scores = metrics.score(labels, probs, CLASSES)
    every = range(K)
    f1 = {
        kind: reference.f1_score(labels, predicted, average=kind, zero_division=0, labels=every)
        for kind in ("macro", "weighted")
    }
    brier = reference.brier_score_loss(labels, probs, labels=every, scale_by_half=False)
    expected = {
        "n": 400,
        "accuracy": reference.accuracy_score(labels, predicted),
        "macro_f1": f1["macro"],
        "weighted_f1": f1["weighted"],
        "loss": reference.log_loss(labels, probs, labels=every),
        "mean_squared_error": brier / K,
    }
    assert {key: scores[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    assert scores["confusion"] == reference.confusion_matrix(labels, predicted, labels=every).tolist()
    assert scores["classes"] == list(CLASSES)


def test_tables_equal_scikit_learns_report():
    labels, logits = faces(absent=(1,))
    scores = metrics.score(labels, softmax(logits), CLASSES)
    expected = reference.classification_report(
        labels, logits.argmax(1), labels=range(K), target_names=CLASSES, output_dict=True, zero_division=0
    )
    rows = {row["class"]: row for row in scores["per_class"]}
    assert list(rows) == list(CLASSES)
    rows |= {"macro avg": scores["macro_avg"], "weighted avg": scores["weighted_avg"]}
    for name, row in rows.items():
        assert row["precision"] == pytest.approx(expected[name]["precision"])
        assert row["recall"] == pytest.approx(expected[name]["recall"])
        assert row["f1"] == pytest.approx(expected[name]["f1-score"])
        assert row["support"] == expected[name]["support"]
        assert f"{row['f1']:.4f}" in next(
            line for line in scores["classification_report"].splitlines() if line.strip().startswith(name)
        )


# Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons_as_published(hits, n, low, high):
    labels = np.zeros(n, int)
    probs = np.eye(2)[(np.arange(n) >= hits).astype(int)]
    scores = metrics.score(labels, probs, ("a", "b"))
    assert scores["accuracy"] == hits / n
    assert scores["accuracy_interval_95"] == pytest.approx([low, high], abs=5e-5)


def test_the_calibration_error_equals_a_loop_over_faces():
    labels, logits = faces(n=700, seed=3)
    probs = softmax(2 * logits.astype(np.float64))
    total = 0.0
    for b in range(15):
        low, high = b / 15, (b + 1) / 15
        inside = [
            (row.max(), int(row.argmax()) == label)
            for row, label in zip(probs, labels, strict=True)
            if low < row.max() <= high
        ]
        if inside:
            total += abs(sum(c for c, _ in inside) - sum(h for _, h in inside))
    assert metrics.score(labels, probs, CLASSES)["calibration_error"] == pytest.approx(total / 700, abs=1e-12)


def test_bins_hold_their_upper_edge_and_what_rounding_puts_over_one():
    over_one = np.float32(1) + np.finfo(np.float32).eps
    probs = np.array([[0.2] * 5, [0, 0, 1, 0, 0], [0, 0, over_one, 0, 0]])
    bins = metrics.reliability([0, 2, 0], probs)
    assert bins["count"].tolist() == [0, 0, 1, *[0] * 11, 2]  # 0.2 is 3/15
    assert bins["accuracy"][[2, 14]].tolist() == [1.0, 0.5]
    assert bins["confidence"][[0, 2]].tolist() == [0.0, 0.2]


def test_no_loss_is_not_negative_zero():
    loss = metrics.score(np.array([0, 1]), np.eye(2), ("a", "b"))["loss"]
    assert (loss, math.copysign(1, loss)) == (0.0, 1.0)


def test_certain_and_wrong_costs_a_finite_loss():
    scores = metrics.score(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]], np.float32), ("a", "b"))
    assert scores["loss"] == pytest.approx(126 * math.log(2) / 2)
    assert scores["mean_squared_error"] == 0.5
    assert scores["calibration_error"] == 0.5


def test_scores_are_plain_json():
    labels, logits = faces(n=50, absent=(1,))
    scores = metrics.score(labels, softmax(logits), np.array(CLASSES))
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert {type(name) for name in scores["classes"]} == {str}


GOOD = (np.array([0, 1, 2]), np.full((3, 3), 1 / 3), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, np.zeros((3, 1), int), "labels must be integers"),
        (0, np.zeros(3), "labels must be integers"),
        (0, np.array([], int), "no faces to score"),
        (0, np.array([0, 1, 3]), "label 3 at row 2"),
        (0, np.array([0, -1, 2]), "label -1 at row 1"),
        (1, np.full((3, 2), 0.5), r"probs must be \[3, 3\]"),
        (1, np.full(3, 1 / 3), r"probs must be \[3, 3\]"),
        (1, np.array([[1, 0, 0], [2.0, -1.0, 0.0], [0, 0, 1]]), "row 1 of probs"),
        (1, np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.6, 0.7]]), "row 2 of probs"),
        (1, np.array([[np.nan, 0, 1], [0, 1, 0], [0, 0, 1]]), "row 0 of probs"),
        (2, ("a", "b", "a"), "different names"),
        (2, ("a", "b"), r"probs must be \[3, 2\]"),
    ],
)
def test_wrong_input_is_named(position, value, message):
    metrics.score(*GOOD)
    arguments = list(GOOD)
    arguments[position] = value
    with pytest.raises(ValueError, match=message):
        metrics.score(*arguments)
