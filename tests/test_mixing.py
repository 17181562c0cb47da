"""Mixup and CutMix against NumPy on the same draws, and what a mixed batch means to the loss."""

import jax
import numpy as np
import pytest
from scipy import stats

from fer_jax import config as config_lib
from fer_jax import mixing

RNG = np.random.default_rng(0)
B, SIDE, K = 64, 12, 5
BATCH = {
    "image": RNG.integers(0, 256, (B, SIDE, SIDE, 2), dtype=np.uint8),
    "label": RNG.integers(0, K, B).astype(np.int32),
    "mask": np.ones(B, np.float32),
}
ONE_HOT = np.eye(K, dtype=np.float32)[BATCH["label"]]


def make(**fields):
    section = config_lib.get_default().augment
    section.update(fields)
    return mixing.make(section, K)


def test_nothing_is_mixed_by_default():
    assert make() is None


@pytest.mark.full
def test_mixup_blends_faces_and_targets_by_the_same_share():
    mix = make(mixup_alpha=1.0)
    found = jax.device_get(mix(BATCH, jax.random.key(3)))
    partner = np.asarray(jax.random.permutation(jax.random.split(jax.random.key(3), 4)[0], B))
    # The share of a face, from its target where the two classes differ.
    differ = BATCH["label"] != BATCH["label"][partner]
    share = found["target"][np.arange(B), BATCH["label"]]
    assert differ.sum() > 30 and 0.1 < share[differ].mean() < 0.9
    expected = share[:, None] * ONE_HOT + (1 - share)[:, None] * ONE_HOT[partner]
    np.testing.assert_allclose(found["target"][differ], expected[differ], atol=1e-6)
    weight = share[:, None, None, None].astype(np.float64)
    image = weight * BATCH["image"] + (1 - weight) * BATCH["image"][partner]
    assert found["image"].dtype == np.uint8
    assert abs(found["image"][differ] - image[differ]).max() < 0.501
    assert found["mask"] is BATCH["mask"] or (found["mask"] == BATCH["mask"]).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_of_mixup_are_beta_distributed(alpha):
    _, share = mixing.mixup(np.zeros((4000, 1, 1, 1), np.uint8), np.zeros((4000, 1, 1, 1), np.uint8), KEY, alpha)
    assert stats.kstest(np.asarray(share), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


KEY = jax.random.key(7)


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    black, white = np.zeros((B, SIDE, SIDE, 1), np.uint8), np.full((B, SIDE, SIDE, 1), 255, np.uint8)
    image, share = jax.device_get(mixing.cutmix(black, white, KEY, 1.0))
    pasted = image[..., 0] == 255
    np.testing.assert_allclose(share, 1 - pasted.mean((1, 2)), atol=1e-6)
    assert share.min() < 0.3 and share.max() > 0.9
    for one in pasted:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        if len(rows):
            assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert one.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)


def test_a_face_gets_one_of_the_two():
    mix = make(mixup_alpha=1.0, cutmix_alpha=1.0)
    image = np.where(np.arange(B)[:, None, None, None] % 2 == 0, np.uint8(0), np.uint8(200)) * np.ones(
        (B, SIDE, SIDE, 1), np.uint8
    )
    found = np.asarray(mix({**BATCH, "image": image}, KEY)["image"]).reshape(B, -1)
    blended = [len(set(row)) == 1 and row[0] not in (0, 200) for row in found]
    cut = [set(row) == {0, 200} for row in found]
    assert sum(blended) > 5 and sum(cut) > 5


def test_soft_targets_of_a_batch_are_mixed_too():
    soft = RNG.dirichlet(np.ones(K), B).astype(np.float32)
    found = np.asarray(make(mixup_alpha=1.0)({**BATCH, "target": soft}, KEY)["target"])
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    # A blend of rows lies between the smallest and the largest probability of each class.
    assert (found <= soft.max(0) + 1e-6).all() and (found >= soft.min(0) - 1e-6).all()
    assert not np.allclose(found, soft)
