"""Batches of parallel requests: one run for many, the answers in place, a failure alone."""

import threading

import numpy as np
import pytest

import fer_jax
from fer_jax.errors import InputError
from fer_jax.serve import batching, runtimes


class Gate:
    """Probabilities that are the faces' own values; waits for `release`, and fails for a face of 255."""

    def __init__(self):
        self.entered, self.release, self.sizes = threading.Event(), threading.Event(), []

    def __call__(self, faces):
        self.entered.set()
        assert self.release.wait(30)
        self.sizes.append(len(faces))
        if (faces == 255).any():
            raise ValueError("255")
        return faces[:, 0, 0].astype(np.float32)


def faces(*values):
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def batcher(gate):
    found = batching.Batcher(gate, most=8, wait_seconds=0.001)
    yield found
    gate.release.set()
    found.close()


def test_what_comes_during_a_batch_is_the_next_one(gate, batcher):
    first = batcher.submit(faces(9))
    assert gate.entered.wait(30)
    later = [batcher.submit(faces(*values)) for values in ((1, 2), (3,), (4, 5, 6))]
    assert batcher.queued() == 3
    gate.release.set()
    assert first.result(30).tolist() == [[9]]
    assert [one.result(30)[:, 0].tolist() for one in later] == [[1, 2], [3], [4, 5, 6]]
    assert gate.sizes == [1, 6]


def test_no_run_has_more_faces_than_the_limit(gate, batcher):
    gate.release.set()
    assert batcher.submit(faces(*range(21))).result(30)[:, 0].tolist() == list(range(21))
    assert gate.sizes == [8, 8, 5]


def test_a_failure_touches_its_own_request_alone(gate, batcher):
    batcher.submit(faces(0))
    assert gate.entered.wait(30)
    good, bad, other = (batcher.submit(faces(*values)) for values in ((1, 2), (3, 255), (4,)))
    gate.release.set()
    assert good.result(30)[:, 0].tolist() == [1, 2] and other.result(30)[:, 0].tolist() == [4]
    with pytest.raises(ValueError, match="255"):
        bad.result(30)
    assert batcher.submit(faces(7)).result(30).tolist() == [[7]]


def test_who_has_left_is_not_computed(gate, batcher):
    batcher.submit(faces(0))
    assert gate.entered.wait(30)
    gone, here = batcher.submit(faces(1)), batcher.submit(faces(2))
    assert gone.cancel()
    gate.release.set()
    assert here.result(30).tolist() == [[2]] and gate.sizes == [1, 1]


def test_closing_answers_what_was_submitted(gate):
    batcher = batching.Batcher(gate, most=8, wait_seconds=0.001)
    coming = [batcher.submit(faces(value)) for value in range(20)]
    gate.release.set()
    batcher.close()
    assert not batcher.is_alive()
    assert [one.result(0)[0, 0] for one in coming] == list(range(20))


class Recognizer:
    image_shape = (2, 2, 1)

    def probs(self, faces):
        return np.zeros((len(faces), 2), np.float32)


def test_each_size_of_a_batch_is_computed_by_the_faster_runtime(monkeypatch):
    calls = []

    def make(name):
        return lambda faces: calls.append((name, len(faces)))

    times = {"jax": {1: 3.0, 8: 4.0, 32: 5.0}, "onnxruntime": {1: 1.0, 8: 4.5, 32: 9.0}}
    monkeypatch.setattr(runtimes, "_make", lambda *_: {name: make(name) for name in times})
    taken = iter([took for sizes in times.values() for took in sizes.values()])
    monkeypatch.setattr(runtimes, "_measure", lambda *_: next(taken))
    found = runtimes.Runtimes(Recognizer())
    assert found.milliseconds == times and found.chosen == {1: "onnxruntime", 8: "jax", 32: "jax"}
    for count in (1, 2, 8, 9, 32):
        found.probs(np.zeros((count, 2, 2, 1), np.uint8))
    assert calls == [("onnxruntime", 1), ("jax", 2), ("jax", 8), ("jax", 9), ("jax", 32)]


def test_a_model_that_cannot_be_exported_is_computed_by_jax(monkeypatch):
    def refuse(_):
        raise InputError("cannot be exported")

    monkeypatch.setattr(runtimes, "_make_onnx", refuse)
    assert runtimes.Runtimes(Recognizer()).chosen[1] == "jax"
    with pytest.raises(InputError, match="cannot be exported"):
        runtimes.Runtimes(Recognizer(), "onnxruntime")


@pytest.mark.full
def test_the_runtimes_of_the_shipped_model_agree():
    recognizer = fer_jax.load(views="flip")
    found = runtimes.Runtimes(recognizer)
    assert set(found.milliseconds) == {"jax", "onnxruntime"}
    some = np.random.default_rng(1).integers(0, 256, (9, *recognizer.image_shape), np.uint8)
    for name in found.milliseconds:
        found.chosen = dict.fromkeys(runtimes.SIZES, name)
        np.testing.assert_allclose(found.probs(some), recognizer.probs(some), atol=1e-5)
