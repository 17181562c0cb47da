"""Compares what an exported model computes with what JAX computes."""

import numpy as np

from fer_jax.errors import InputError

TOLERANCE = 1e-4  # of a probability
FACES = 100


def draw_faces(recognizer, count: int = FACES) -> np.ndarray:
    """Returns faces of random pixels, uint8 [count, H, W, C]."""
    return np.random.default_rng(0).integers(0, 256, (count, *recognizer.image_shape), np.uint8)


def compare(what: str, run, recognizer, faces, *, tolerance: float = TOLERANCE) -> float:
    """Returns the largest difference between the probabilities of an exported model and those of its recognizer.

    Args:
      what: the exported model, for the message.
      run: its function, faces -> probabilities [N, K].
      recognizer: what it was made of.
      faces: uint8 [N, H, W, C].
      tolerance: of a probability.

    Raises:
      InputError: they differ by more, or are not finite.
    """
    difference = float(np.abs(np.asarray(run(faces)) - recognizer.probs(faces)).max())
    if not difference <= tolerance:
        raise InputError(
            f"{what}: its probabilities differ from JAX's by {difference:.1e}, more than {tolerance:g}: it is not used"
        )
    return difference
