import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from scipy.spatial import distance
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from fer_jax import config as config_lib
from fer_jax import losses
from fer_jax.errors import InputError

K = 7


def batch(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 5, (n, K)).astype(np.float32), rng.integers(0, K, n).astype(np.int32)


def test_cross_entropy_is_scikit_learns_log_loss():
    logits, labels = batch()
    total, count = losses.cross_entropy(jnp.asarray(logits), losses.smooth(labels, K), jnp.ones(40))
    expected = log_loss(labels, special.softmax(logits.astype(float), axis=1), labels=range(K))
    assert count == 40
    np.testing.assert_allclose(total / count, expected, rtol=1e-5)


def test_cross_entropy_of_soft_targets_is_entropy_and_divergence():
    logits, _ = batch()
    targets = np.random.default_rng(1).dirichlet(np.ones(K), 40).astype(np.float32)
    probs = special.softmax(logits.astype(float), axis=1)
    expected = stats.entropy(targets, axis=1) + stats.entropy(targets, probs, axis=1)
    total, _ = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(targets), jnp.ones(40))
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)


def test_cross_entropy_stays_finite_for_large_logits():
    logits = jnp.asarray([[1e4, 0, -1e4]])
    total, _ = losses.cross_entropy(logits, losses.smooth(jnp.asarray([2]), 3), jnp.ones(1))
    assert total == 2e4


def test_padding_counts_for_nothing():
    logits, labels = batch()
    targets, mask = losses.smooth(labels, K), jnp.asarray(np.arange(40) < 29, jnp.float32)
    padded = losses.cross_entropy(jnp.asarray(logits), targets, mask)
    real = losses.cross_entropy(jnp.asarray(logits[:29]), targets[:29], jnp.ones(29))
    np.testing.assert_allclose(padded, real, rtol=1e-6)


def test_sums_of_uneven_batches_merge_to_the_sum_of_all():
    logits, labels = batch()
    targets = losses.smooth(labels, K)
    parts = [
        losses.cross_entropy(jnp.asarray(logits[some]), targets[some], jnp.ones(len(labels[some])))
        for some in (slice(0, 3), slice(3, 31), slice(31, 40))
    ]
    whole = losses.cross_entropy(jnp.asarray(logits), targets, jnp.ones(40))
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_smoothing_is_keras_label_smoothing(keras, share):
    logits, labels = batch()
    reference = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=share, reduction="sum")
    total, _ = losses.cross_entropy(jnp.asarray(logits), losses.smooth(labels, K, share), jnp.ones(40))
    np.testing.assert_allclose(total, reference(np.eye(K)[labels], logits).numpy(), rtol=1e-5)


def test_targets_are_rows_that_sum_to_one():
    targets = losses.smooth(jnp.asarray([0, 3]), 4, 0.2)
    np.testing.assert_allclose(targets, [[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]], rtol=1e-6)


def test_l2_is_keras_regularizer_of_every_kernel_and_of_nothing_else(keras):
    rng = np.random.default_rng(0)
    params = {
        "conv2d": {"kernel": rng.normal(size=(3, 3, 1, 4)), "bias": rng.normal(size=4)},
        "batch_normalization": {"scale": rng.normal(size=4), "bias": rng.normal(size=4)},
        "block": {"dense": {"kernel": rng.normal(size=(4, 2)), "bias": rng.normal(size=2)}},
    }
    params = jax.tree.map(jnp.asarray, params)
    kernels = (params["conv2d"]["kernel"], params["block"]["dense"]["kernel"])
    expected = sum(float(keras.regularizers.L2(1.0)(np.asarray(kernel))) for kernel in kernels)
    np.testing.assert_allclose(losses.l2(params), expected, rtol=1e-6)


def test_balanced_class_weights_are_scikit_learns():
    labels = np.repeat(range(4), (10, 1, 30, 9))
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(losses.balanced_class_weights(np.bincount(labels)), expected, rtol=1e-6)


@pytest.mark.parametrize("choice", ["balanced", "class_balanced"])
def test_a_class_without_faces_weighs_nothing_and_leaves_the_others_alone(choice):
    section = config_lib.get_default().loss
    section.class_weights = choice
    weights = np.asarray(losses.class_weights(section, np.array([10, 0, 30, 9])))
    others = np.asarray(losses.class_weights(section, np.array([10, 30, 9])))
    assert weights[1] == 0
    np.testing.assert_allclose(weights[[0, 2, 3]], others, rtol=1e-6)


def test_focal_is_that_of_keras(keras):
    logits, labels = batch()
    targets = np.eye(K, dtype=np.float32)[labels]
    reference = keras.losses.CategoricalFocalCrossentropy(gamma=2.0, alpha=1.0, from_logits=True, reduction="sum")
    total, count = losses.focal(jnp.asarray(logits), jnp.asarray(targets), jnp.ones(40), gamma=2.0)
    np.testing.assert_allclose(total, float(reference(targets, logits)), rtol=1e-4)
    assert count == 40


def test_focal_without_gamma_is_cross_entropy():
    logits, labels = batch()
    targets = losses.smooth(labels, K, 0.1)
    args = jnp.asarray(logits), targets, jnp.ones(40)
    np.testing.assert_allclose(losses.focal(*args, gamma=0.0), losses.cross_entropy(*args), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_a_face_is_certain(gamma):
    logits = jnp.asarray([[40.0, 0.0, 0.0]])
    grad = jax.grad(lambda x: losses.focal(x, losses.smooth(jnp.asarray([0]), 3), jnp.ones(1), gamma=gamma)[0])(logits)
    assert np.isfinite(grad).all()


def test_dice_is_one_minus_the_overlap_by_hand():
    logits, labels = batch(8)
    probs, targets = special.softmax(logits.astype(float), axis=1), np.eye(K)[labels]
    expected = [1 - 2 * p @ t / (p @ p + t @ t) for p, t in zip(probs, targets, strict=True)]
    mask = np.r_[np.ones(5), np.zeros(3)].astype(np.float32)
    total, count = losses.dice(jnp.asarray(logits), jnp.asarray(targets, jnp.float32), jnp.asarray(mask))
    np.testing.assert_allclose(total, np.sum(expected[:5]), rtol=1e-5)
    assert count == 5
    certain = np.where(targets, 60.0, -60.0).astype(np.float32)
    assert losses.dice(jnp.asarray(certain), jnp.asarray(targets, jnp.float32), jnp.ones(8))[0] == pytest.approx(0)


def test_dice_of_hard_predictions_is_scipys_dice_distance():
    labels, predicted = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])
    sure = np.where(np.eye(3)[predicted], 90.0, -90.0).astype(np.float32)
    total, _ = losses.dice(jnp.asarray(sure), losses.smooth(labels, 3), jnp.ones(4))
    expected = sum(distance.dice(a, b) for a, b in zip(np.eye(3)[predicted] > 0, np.eye(3)[labels] > 0, strict=True))
    assert total == pytest.approx(expected)


def test_class_balanced_weights_are_inverse_effective_numbers():
    counts, beta = np.array([7215, 436, 4097]), 0.999
    effective = [sum(beta**k for k in range(n)) for n in counts]
    weights = np.asarray(losses.class_balanced_weights(counts, beta))
    np.testing.assert_allclose(weights * effective, (weights * effective)[0], rtol=1e-4)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(losses.class_balanced_weights(counts, 0.0), 1)
    nearly = losses.class_balanced_weights(counts, 1 - 1e-9)
    ratio = compute_class_weight("balanced", classes=np.arange(3), y=np.repeat(np.arange(3), counts)) / nearly
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def make_objective(counts=(30, 1, 20, 9, 40, 5, 7), **fields):
    section = config_lib.get_default().loss
    section.update(fields)
    return losses.make_objective(section, np.array(counts))


OBJECTIVES = [
    {},
    {"label_smoothing": 0.2},
    {"class_weights": "balanced"},
    {"name": "focal", "class_weights": "class_balanced", "label_smoothing": 0.1, "l2": 0.01},
    {"name": "dice"},
]


@pytest.mark.parametrize("fields", OBJECTIVES)
def test_one_hot_targets_are_minimised_as_labels_are(fields):
    logits, labels = batch()
    mask = jnp.asarray(np.arange(40) < 31, jnp.float32)
    params = {"dense": {"kernel": jnp.arange(4.0)}}
    given = {"label": jnp.asarray(labels), "mask": mask}
    objective = make_objective(**fields)
    hard = objective(jnp.asarray(logits), given, params)
    one_hot = jnp.asarray(np.eye(K, dtype=np.float32)[labels])
    # The label says nothing where there is a target.
    soft = objective(jnp.asarray(logits), {**given, "label": given["label"] * 0, "target": one_hot}, params)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-6), soft, hard)


def test_targets_are_smoothed_and_weighted_as_by_hand():
    logits, labels = batch()
    counts, share = np.array([30, 1, 20, 9, 40, 5, 7]), 0.2
    target = np.random.default_rng(1).dirichlet(np.ones(K), 40)
    weights = counts.sum() / (K * counts)
    mask = np.arange(40) < 31
    smoothed = (1 - share) * target + share / K
    nats = -(smoothed * special.log_softmax(logits.astype(float), axis=1)).sum(axis=1)
    expected = (nats * (target * weights).sum(axis=1))[mask].sum() / 31
    given = {
        "label": jnp.asarray(labels),
        "mask": jnp.asarray(mask, jnp.float32),
        "target": jnp.asarray(target, jnp.float32),
    }
    objective = make_objective(counts, class_weights="balanced", label_smoothing=share)
    loss, sums = objective(jnp.asarray(logits), given, {})
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert sums["count"] == 31
    assert sums["accuracy"] == (logits.argmax(axis=1) == target.argmax(axis=1))[mask].sum()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "hinge"}, "loss.name is 'hinge'; known are cross_entropy, focal, dice"),
        ({"focal_gamma": -1.0}, "loss.focal_gamma is -1.0"),
        ({"class_weights": "none", "class_balanced_beta": 1.0}, "loss.class_balanced_beta is 1.0"),
        ({"class_weights": "some"}, "known are none, balanced, class_balanced"),
    ],
)
def test_unknown_losses_are_refused(fields, message):
    section = config_lib.get_default().loss
    section.update(fields)
    with pytest.raises(InputError, match=re.escape(message)):
        losses.make(section)
        losses.class_weights(section, [1, 2])
