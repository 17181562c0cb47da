"""Facial emotion recognition in JAX and Flax."""

from fer_jax import faulty_releases

__version__ = "0.1.0"

faulty_releases.guard()


def load(name_or_path=None, *, checkpoint: str | None = None, views: str | None = None):
    """Returns a `recognizer.Recognizer`: of a shipped model, a .safetensors file, a run's workdir or an ensemble.

    The arguments and errors are those of `recognizer.load`.
    """
    from fer_jax import recognizer

    return recognizer.load(name_or_path, checkpoint=checkpoint, views=views)
