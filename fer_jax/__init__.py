"""Facial emotion recognition in JAX and Flax."""

from fer_jax import faulty_releases

__version__ = "0.1.0"

faulty_releases.guard()
