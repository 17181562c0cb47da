"""Faces keep their numbers while they move, and their probabilities follow the exponential mean."""

import itertools
import json

import numpy as np
import pytest

from fer_jax import tracking


def numbers(tracker, seconds, boxes):
    return [track.number for track in tracker.update(seconds, boxes, [[0.5, 0.5]] * len(boxes))]


def test_iou_is_that_of_counted_pixels():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.integers(0, 20, (12, 2)), rng.integers(0, 15, (12, 2))], axis=1)

    def area(x, y, width, height):
        canvas = np.zeros((40, 40), bool)
        canvas[y : y + height, x : x + width] = True
        return canvas

    masks = [area(*box) for box in boxes]
    counted = [[(a & b).sum() / max((a | b).sum(), 1) for b in masks] for a in masks]
    assert tracking.iou(boxes, boxes) == pytest.approx(np.array(counted))


def test_moving_faces_keep_their_numbers_whatever_their_order():
    tracker = tracking.Tracker(0)
    for step in range(20):
        boxes = [(10 + 4 * step, 10, 40, 40), (150 - 4 * step, 60, 40, 40), (60, 150, 30, 30)]
        order = list(itertools.permutations(range(3)))[step % 6]
        found = numbers(tracker, step / 25, [boxes[place] for place in order])
        assert found == [place + 1 for place in order]


def test_the_best_pairs_are_chosen_together():
    # The first new box overlaps both old ones; taking its best partner greedily would leave the other alone.
    tracker = tracking.Tracker(0)
    assert numbers(tracker, 0, [(0, 0, 100, 100), (30, 0, 100, 100)]) == [1, 2]
    assert numbers(tracker, 1 / 25, [(18, 0, 100, 100), (60, 0, 100, 100)]) == [1, 2]


def test_a_pair_that_overlaps_too_little_takes_no_ones_place():
    # Both faint pairs together overlap more (0.28 each) than the one that counts (0.5).
    tracker = tracking.Tracker(0)
    assert numbers(tracker, 0, [(0, 0, 100, 100), (89, 0, 100, 100)]) == [1, 2]
    assert numbers(tracker, 1 / 25, [(33, 0, 100, 100), (-56, 0, 100, 100)]) == [1, 3]


def test_a_face_that_is_away_for_a_moment_is_the_same_and_later_a_new_one():
    tracker = tracking.Tracker(0, forget_seconds=1.0)
    box = (10, 10, 40, 40)
    assert numbers(tracker, 0.0, [box]) == [1]
    assert numbers(tracker, 0.5, []) == []
    assert numbers(tracker, 0.9, [(12, 10, 40, 40)]) == [1]
    assert numbers(tracker, 2.0, [(12, 10, 40, 40)]) == [2]
    assert numbers(tracker, 2.1, [(200, 10, 40, 40)]) == [3]


def test_probabilities_follow_the_exponential_mean_of_uneven_times():
    rng = np.random.default_rng(1)
    times, probs = np.cumsum(rng.uniform(0.01, 0.4, 30)), rng.dirichlet(np.ones(4), 30)
    tracker, mean = tracking.Tracker(0.3), probs[0]
    for step, (seconds, new) in enumerate(zip(times, probs, strict=True)):
        if step:
            weight = np.exp(-np.log(2) * (seconds - times[step - 1]) / 0.3)
            mean = weight * mean + (1 - weight) * new
        (track,) = tracker.update(seconds, [(0, 0, 9, 9)], [new])
        assert track.probs == pytest.approx(mean)
        assert sum(track.probs) == pytest.approx(1)


def test_a_step_of_one_half_life_is_half_way():
    tracker = tracking.Tracker(0.5)
    tracker.update(0.0, [(0, 0, 9, 9)], [[1.0, 0.0]])
    (track,) = tracker.update(0.5, [(0, 0, 9, 9)], [[0.0, 1.0]])
    assert track.probs == pytest.approx([0.5, 0.5])


def test_without_a_half_life_nothing_is_smoothed():
    tracker = tracking.Tracker(0)
    tracker.update(0.0, [(0, 0, 9, 9)], [[1.0, 0.0]])
    (track,) = tracker.update(0.1, [(0, 0, 9, 9)], [[0.2, 0.8]])
    assert track.probs == (0.2, 0.8)


def test_a_restored_tracker_resumes_bit_for_bit():
    rng = np.random.default_rng(2)
    steps = [(step / 25, rng.uniform(0, 100, (5, 2)), rng.dirichlet(np.ones(7), 5)) for step in range(40)]
    whole, halves = tracking.Tracker(0.5), [tracking.Tracker(0.5), tracking.Tracker(0.5)]
    for step, (seconds, corners, probs) in enumerate(steps):
        boxes = np.concatenate([corners, np.full((5, 2), 60.0)], axis=1)[: 1 + step % 5]
        if step == 17:
            halves[1].restore(json.loads(json.dumps(halves[0].state())))
        expected = whole.update(seconds, boxes, probs[: len(boxes)])
        assert halves[step >= 17].update(seconds, boxes, probs[: len(boxes)]) == expected
