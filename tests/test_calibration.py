"""The temperature is where the likelihood is largest, and keeps every prediction."""

import numpy as np
import pytest
from scipy import optimize, special

from fer_jax import calibration

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4000, 7)) * 2


def labels_of(temperature):
    """Draws labels from the very probabilities that the temperature gives."""
    probs = special.softmax(LOGITS / temperature, axis=1)
    return (probs.cumsum(axis=1) > RNG.random((len(probs), 1))).argmax(axis=1)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_drew_the_labels_is_found(true):
    labels = labels_of(true)
    found = calibration.fit_temperature(labels, special.softmax(LOGITS, axis=1))
    assert found == pytest.approx(true, rel=0.06)

    def loss(temperature):
        return -special.log_softmax(LOGITS / temperature, axis=1)[np.arange(len(labels)), labels].mean()

    assert found == pytest.approx(optimize.minimize(lambda t: loss(t[0]), [1.0], method="Nelder-Mead").x[0], rel=1e-3)


def test_applying_it_keeps_the_order_and_sums_to_one():
    probs = special.softmax(LOGITS, axis=1)
    scaled = calibration.apply(probs, 3.0)
    np.testing.assert_allclose(scaled, special.softmax(LOGITS / 3, axis=1), rtol=1e-4)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probs.argmax(axis=1))
    np.testing.assert_allclose(calibration.apply(probs, 1.0), probs, rtol=1e-5)


def test_probabilities_of_zero_are_no_error():
    probs = np.eye(7, dtype=np.float32)[[0, 1, 2]]
    assert np.isfinite(calibration.apply(probs, 2.0)).all()
    assert calibration.fit_temperature(np.array([0, 1, 3]), probs) > 1


def test_no_faces_or_no_numbers_are_refused():
    for probs in (np.zeros((0, 7)), np.full((2, 7), np.nan)):
        with pytest.raises(ValueError, match="finite probabilities of at least one face"):
            calibration.fit_temperature(np.zeros(len(probs), int), probs)
