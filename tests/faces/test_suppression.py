"""Weighted non-maximum suppression against a plain loop over pairs."""

import numpy as np
import pytest

from fer_jax.faces import suppression


def iou(a, b):
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0


def by_brute_force(numbers, scores, threshold):
    left = sorted(range(len(scores)), key=lambda i: -scores[i])
    found = []
    while left:
        best = left[0]
        same = [i for i in left if i == best or iou(numbers[best], numbers[i]) > threshold]
        weight = sum(scores[i] for i in same)
        mean = [sum(scores[i] * numbers[i][d] for i in same) / weight for d in range(len(numbers[0]))]
        found.append((mean, scores[best]))
        left = [i for i in left if i not in same]
    return found


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_merging_is_that_of_a_plain_loop(threshold):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (80, 2))
    numbers = np.concatenate([corners, corners + rng.uniform(5, 40, (80, 2)), rng.normal(size=(80, 12))], 1)
    scores = rng.uniform(0.5, 1, 80)
    merged, best = suppression.merge(numbers, scores, threshold)
    expected = by_brute_force(numbers.tolist(), scores.tolist(), threshold)
    assert 1 < len(merged) < 80
    np.testing.assert_allclose(merged, [mean for mean, _ in expected])
    np.testing.assert_allclose(best, [score for _, score in expected])


def test_no_boxes_and_boxes_without_an_area():
    merged, best = suppression.merge(np.zeros((0, 16)), np.zeros(0), 0.3)
    assert merged.shape == (0, 16) and best.shape == (0,)
    merged, best = suppression.merge(np.zeros((2, 4)), np.array([0.6, 0.7]), 0.3)
    assert merged.shape == (2, 4) and best.tolist() == [0.7, 0.6]


def test_a_box_within_a_better_one_is_dropped():
    boxes = np.array([[0, 0, 10, 10], [2, 2, 5, 5], [8, 8, 12, 12], [20, 0, 30, 10]], float)
    kept, scores = suppression.drop_parts(boxes, np.array([0.9, 0.8, 0.7, 0.6]), 0.7)
    assert kept.tolist() == boxes[[0, 2, 3]].tolist() and scores.tolist() == [0.9, 0.7, 0.6]
