"""Intervals and tests against scipy's and scikit-learn's, and against counting by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from fer_jax import significance


def faces(n=400, seed=0):
    """Returns labels and the predictions of two models, of which the second errs more often."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    first = np.where(rng.random(n) < 0.7, labels, rng.integers(0, 4, n))
    second = np.where(rng.random(n) < 0.5, labels, rng.integers(0, 4, n))
    return labels, first, second


def test_the_bootstrap_is_that_of_scipy():
    labels, first, _ = faces()
    found = significance.bootstrap_intervals(metrics.confusion_matrix(labels, first))
    options = {"n_resamples": 4000, "method": "percentile", "rng": np.random.default_rng(1)}
    of_hits = stats.bootstrap(((first == labels).astype(float),), np.mean, **options).confidence_interval
    np.testing.assert_allclose(found["accuracy"], of_hits, atol=0.006)

    def macro_f1(rows):
        return metrics.f1_score(labels[rows], first[rows], average="macro")

    rng = np.random.default_rng(2)
    drawn = [macro_f1(rng.integers(0, len(labels), len(labels))) for _ in range(1000)]
    np.testing.assert_allclose(found["macro_f1"], np.quantile(drawn, [0.025, 0.975]), atol=0.008)


def test_the_interval_of_an_accuracy_is_about_a_binomials():
    found = significance.bootstrap_intervals([[1615, 984], [0, 990]])["accuracy"]
    wilson = stats.binomtest(2605, 3589).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(found, [wilson.low, wilson.high], atol=0.002)
    assert (found[1] - found[0]) / 2 == pytest.approx(0.0145, abs=0.001)


def test_the_draws_follow_from_the_seed():
    confusion = [[5, 2], [1, 9]]
    assert significance.bootstrap_intervals(confusion) == significance.bootstrap_intervals(confusion)


def test_mcnemar_counts_the_faces_that_one_model_alone_gets_right():
    labels, first, second = faces()
    found = significance.mcnemar(labels, first, second)
    alone = [(a, b) for a, b in zip(first == labels, second == labels, strict=True) if a != b]
    assert found["only_first"] == sum(a for a, _ in alone)
    assert found["only_second"] == sum(b for _, b in alone)
    accuracies = [metrics.accuracy_score(labels, predicted) for predicted in (first, second)]
    assert found["difference"] == pytest.approx(accuracies[0] - accuracies[1])
    assert found["p_value"] < 1e-3
    swapped = significance.mcnemar(labels, second, first)
    assert (swapped["only_first"], swapped["p_value"]) == (found["only_second"], pytest.approx(found["p_value"]))


def test_mcnemar_is_the_published_example():
    """10 and 20 discordant pairs: two-sided exact p is 0.0987 (statsmodels and R's exact2x2 give it)."""
    labels = np.zeros(100, int)
    first, second = np.zeros(100, int), np.zeros(100, int)
    second[:10], first[10:30] = 1, 1
    found = significance.mcnemar(labels, first, second)
    assert (found["only_first"], found["only_second"]) == (10, 20)
    assert found["p_value"] == pytest.approx(2 * stats.binom.cdf(10, 30, 0.5))
    assert found["p_value"] == pytest.approx(0.0987, abs=5e-4)


def test_equal_models_do_not_differ():
    labels, first, _ = faces()
    assert significance.mcnemar(labels, first, first)["p_value"] == 1.0


def test_other_faces_are_refused():
    with pytest.raises(ValueError, match="same faces"):
        significance.mcnemar([0, 1], [0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="no faces"):
        significance.bootstrap_intervals(np.zeros((3, 3)))


def test_spread_is_that_of_a_sample():
    values = [0.61, 0.64, 0.62]
    found = significance.spread(values)
    assert (found["n"], found["mean"]) == (3, pytest.approx(np.mean(values)))
    assert found["std"] == pytest.approx(stats.tstd(values))
    assert significance.spread([0.5])["std"] is None


def test_the_digest_is_of_pixels_class_names_and_order():
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)
    labels, classes = np.array([0, 1, 1]), ("happy", "sad")
    changed = images.copy()
    changed[2, 1, 1, 0] += 1
    digests = [
        significance.digest_faces(images, labels, classes),
        significance.digest_faces(changed, labels, classes),
        significance.digest_faces(images, labels[::-1], classes),
        significance.digest_faces(images[[0, 2, 1]], labels, classes),
        significance.digest_faces(images.reshape(3, 1, 4, 1), labels, classes),
        significance.digest_faces(images, labels, ("happy", "fear")),
    ]
    assert len(set(digests)) == len(digests)
    renumbered = significance.digest_faces(images, 1 - labels, ("sad", "happy"))
    assert renumbered == digests[0]  # the same faces of the same classes


def test_a_digest_decides_and_without_one_equal_facts_leave_it_open():
    first = {"faces_digest": "blake2b:1", "data_fingerprint": "a", "n": 9}
    assert significance.compare_faces(first, first | {"data_fingerprint": "b"}) == "same"
    assert significance.compare_faces(first, first | {"faces_digest": "blake2b:2"}) == "other"
    older = {"data_fingerprint": "a", "n": 9, "split": "test"}
    assert significance.compare_faces(first, older) == "unknown"
    assert significance.compare_faces(first, older | {"n": 8}) == "other"
