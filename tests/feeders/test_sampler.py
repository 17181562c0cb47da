import jax
import numpy as np
import pytest

from fer_jax import config as config_lib
from fer_jax.errors import InputError
from fer_jax.feeders import sampler

LABELS = np.repeat(range(4), (20, 5, 3, 12))  # 40 faces
START = np.array([0, 20, 25, 28])
FER2013_TRAINING = (3995, 436, 4097, 7215, 4830, 3171, 4965)  # faces of each class, angry to neutral


def make(seed=0, batch_size=7, labels=LABELS, **shares):
    return sampler.Sampler(labels, classes=4, batch_size=batch_size, key=jax.random.key(seed), **shares)


def epochs(order, count):
    """Returns the faces of the first epochs, [count, epoch_faces]."""
    steps = -(-count * order.epoch_faces // order.batch_size)
    return np.asarray(order.indices(0, steps)).reshape(-1)[: count * order.epoch_faces].reshape(count, -1)


def test_each_epoch_shows_every_face_once_and_in_an_order_of_its_own():
    order = make()
    assert (order.epoch_faces, order.steps_per_epoch) == (40, 6)
    shown = epochs(order, 8)
    assert (np.sort(shown, axis=1) == np.arange(40)).all()
    assert len({tuple(row) for row in shown}) == 8
    assert np.abs(np.corrcoef(shown) - np.eye(8)).max() < 0.6  # orders, not rotations of one


def test_a_step_reads_the_same_places_however_it_is_asked_for():
    order = make()
    row = np.asarray(order.indices(0, 24))
    assert row.shape == (24, 7) and row.dtype == np.int32
    one_by_one = [order.indices(step, 1)[0] for step in range(24)]
    np.testing.assert_array_equal(one_by_one, row)  # over four epochs' borders
    for step in (1, 4, 5, 6, 11, 17):
        np.testing.assert_array_equal(order.indices(step, 7), row[step : step + 7])


def test_a_batch_may_be_larger_than_the_set():
    order = make(batch_size=100)
    assert order.steps_per_epoch == 1
    shown = np.asarray(order.indices(0, 4)).reshape(10, 40)
    assert (np.sort(shown, axis=1) == np.arange(40)).all()
    np.testing.assert_array_equal(order.indices(3, 1)[0], np.asarray(order.indices(0, 4))[3])


def test_the_key_decides():
    first, same, other = (epochs(make(seed), 1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_oversampling_shows_each_face_of_a_class_about_as_often():
    order = make(min_class_share=0.25)
    assert order.epoch_faces == 80
    shown = epochs(order, 3)
    for row in shown:
        seen = np.bincount(row, minlength=40)
        np.testing.assert_array_equal(np.bincount(LABELS[row]), [20, 20, 20, 20])
        for label in range(4):
            of_class = seen[label == LABELS]
            assert of_class.max() - of_class.min() <= 1
    assert (shown[0] != shown[1]).any()
    # which faces of a class come once more changes: 20 = 3 x 6 + 2
    assert len({tuple(np.bincount(row, minlength=40)[25:28]) for row in epochs(order, 12)}) > 1


def test_undersampling_shows_no_face_twice_and_others_in_the_next_epoch():
    order = make(max_class_share=0.4)
    shown = epochs(order, 12)
    for row in shown:
        assert len(set(row)) == len(row) == order.epoch_faces
        counts = np.bincount(LABELS[row])
        np.testing.assert_array_equal(counts[1:], [5, 3, 12])
        assert counts[0] == 13  # 0.4 of 33
    majority = [set(row[row < 20]) for row in shown]
    assert majority[0] != majority[1]
    assert set().union(*majority) == set(range(20))


@pytest.mark.parametrize(
    ("counts", "min_share", "max_share", "expected"),
    [
        ([90, 10], 0.0, 1.0, [90, 10]),
        ([90, 10], 0.5, 1.0, [90, 90]),
        ([90, 10], 0.0, 0.5, [10, 10]),
        ([80, 10, 10], 0.2, 1.0, [80, 27, 27]),  # 80 is 0.6 of 133
        ([60, 30, 10], 0.0, 0.5, [40, 30, 10]),
        ([60, 30, 10], 0.0, 0.4, [20, 20, 10]),
        ([60, 30, 10], 0.25, 0.5, [40, 30, 23]),  # 70 is 0.75 of 93
        ([7215, 436, 4965], 1 / 3, 1.0, [7215, 7215, 7215]),
        ([7215, 436, 4965], 0.0, 1 / 3, [436, 436, 436]),
    ],
)
def test_rebalanced_counts_by_hand(counts, min_share, max_share, expected):
    found = sampler.rebalanced_counts(counts, min_class_share=min_share, max_class_share=max_share)
    np.testing.assert_array_equal(found, expected)


def test_rebalanced_counts_reach_the_shares_and_touch_no_other_class():
    rng = np.random.default_rng(0)
    for _ in range(300):
        classes = int(rng.integers(2, 8))
        counts = rng.integers(50, 5000, classes)
        min_share, max_share = rng.uniform(0, 1 / classes), rng.uniform(1 / classes, 1)
        raised = sampler.rebalanced_counts(counts, min_class_share=min_share, max_class_share=1.0)
        cut = sampler.rebalanced_counts(counts, min_class_share=0.0, max_class_share=max_share)
        both = sampler.rebalanced_counts(counts, min_class_share=min_share, max_class_share=max_share)
        slack = 1 + classes / 2  # of rounding to whole faces
        for result in (raised, both):
            assert (result >= min_share * result.sum() - slack).all()
        for result in (cut, both):
            assert (result <= max_share * result.sum() + slack).all()
        assert (raised >= counts).all() and (cut <= counts).all()
        # a class is moved to the bound, and no further than it
        assert (np.abs(raised - min_share * raised.sum())[raised > counts] <= slack).all()
        assert (np.abs(cut - max_share * cut.sum())[cut < counts] <= slack).all()


def test_r2s_epoch_has_fewer_happy_and_more_disgusted_faces_and_every_other_one_once():
    shares = {
        name: config_lib.load("resnet50:r2_balanced").data[name] for name in ("min_class_share", "max_class_share")
    }
    labels = np.repeat(range(7), FER2013_TRAINING)
    order = sampler.Sampler(labels, classes=7, batch_size=32, key=jax.random.key(0), **shares)
    shown = epochs(order, 1)[0]
    np.testing.assert_array_equal(np.bincount(labels[shown]), [3995, 3171, 4097, 4967, 4830, 3171, 4965])
    seen = np.bincount(shown, minlength=len(labels))
    happy, disgust = labels == 3, labels == 1
    assert set(seen[happy]) == {0, 1} and set(seen[disgust]) == {7, 8}
    assert set(seen[~happy & ~disgust]) == {1}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"min_class_share": 0.26}, "data.min_class_share is 0.26: with 4 classes give 0 to 0.2500"),
        ({"min_class_share": -0.1}, "data.min_class_share is -0.1"),
        ({"max_class_share": 0.2}, "data.max_class_share is 0.2: with 4 classes give 0.2500 to 1"),
        ({"max_class_share": 1.5, "min_class_share": 0.1}, "data.max_class_share is 1.5"),
        ({"min_class_share": 0.1, "labels": np.array([0, 1, 1, 3])}, "class 2 has none in the training split"),
        ({"max_class_share": 0.5, "labels": np.array([0, 1, 1, 3])}, "class 2 has none in the training split"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares, message):
    with pytest.raises(InputError) as caught:
        make(**shares)
    assert message in str(caught.value)
