"""The runtime that computes probabilities: the faster one of those that compute what JAX computes."""

import numpy as np
import pytest

import fer_jax
from fer_jax.errors import InputError
from fer_jax.exports import comparison, onnx_models
from fer_jax.serve import runtimes


@pytest.fixture
def recognizer():
    return fer_jax.load(views="none")


@pytest.mark.parametrize("name", ["jax", "onnxruntime"])
def test_each_runtime_answers_as_the_recognizer(recognizer, name):
    found = runtimes.Runtimes(recognizer, name)
    faces = comparison.draw_faces(recognizer, 5)
    assert set(found.chosen.values()) == {name}
    np.testing.assert_allclose(found.probs(faces), recognizer.probs(faces), atol=1e-5)


def test_a_model_that_onnxruntime_computes_differently_is_left_to_jax(recognizer, monkeypatch):
    monkeypatch.setattr(onnx_models, "runner", lambda _: lambda faces: recognizer.probs(faces) + 0.01)
    assert set(runtimes.Runtimes(recognizer, "auto").chosen.values()) == {"jax"}
    with pytest.raises(InputError, match="onnxruntime: its probabilities differ"):
        runtimes.Runtimes(recognizer, "onnxruntime")
