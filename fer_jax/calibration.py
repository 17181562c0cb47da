"""Temperature scaling: calibrates probabilities with one number (Guo et al. 2017)."""

import numpy as np

BOUNDS = (0.05, 20.0)


def fit_temperature(labels, probs) -> float:
    """Returns the temperature that maximizes the likelihood of the labels.

    labels [N] integers; probs [N, K], rows sum to 1. A temperature above 1 lowers confidence. The negative
    log-likelihood is convex in its reciprocal, so there is one minimum.

    Raises:
      ValueError: no faces, or probabilities that are not finite.
    """
    from scipy import optimize

    logs = _logs(probs)
    if not len(logs) or not np.isfinite(logs).all():
        raise ValueError(f"a temperature needs finite probabilities of at least one face; they are {np.shape(probs)}")

    def loss(log_temperature):
        scaled = logs / np.exp(log_temperature)
        return (np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(labels)), labels]).mean()

    found = optimize.minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def apply(probs, temperature: float) -> np.ndarray:
    """Returns probabilities [..., K] scaled by a temperature, float32; their order within a face does not change."""
    scaled = _logs(probs) / temperature
    return np.exp(scaled - np.logaddexp.reduce(scaled, axis=-1, keepdims=True)).astype(np.float32)


def _logs(probs):
    return np.log(np.maximum(np.asarray(probs, np.float64), np.finfo(np.float32).tiny))
