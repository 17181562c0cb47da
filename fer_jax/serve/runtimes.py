"""What computes the probabilities of faces, JAX or onnxruntime: the faster one for each size of batch."""

import logging
import statistics
import time

import numpy as np

from fer_jax import recognizer as recognizer_lib
from fer_jax.errors import InputError
from fer_jax.exports import comparison

NAMES = ("auto", "jax", "onnxruntime")
SIZES = recognizer_lib.SIZES[:3]  # of batches
RUNS = 7  # the median of which counts
logger = logging.getLogger("fer_jax")


class Runtimes:
    """Measures the runtimes of a recognizer, which also compiles their programs, and chooses.

    wanted: of NAMES; 'auto': the faster one, and JAX alone if there is no onnxruntime or the model cannot be exported.

    Attributes:
      milliseconds: {runtime: {size of a batch: median}}.
      chosen: {size of a batch: runtime}.

    Raises:
      InputError: onnxruntime is wanted, and not installed or the model cannot be exported.
    """

    def __init__(self, recognizer, wanted: str = "auto"):
        self._fns = _make(recognizer, wanted)
        faces = comparison.draw_faces(recognizer, SIZES[-1])
        self.milliseconds = {
            name: {size: _measure(probs_fn, faces[:size]) for size in SIZES} for name, probs_fn in self._fns.items()
        }
        self.chosen = {size: min(self._fns, key=lambda name: self.milliseconds[name][size]) for size in SIZES}
        single = ", ".join(f"{name} {times[1]:.2f} ms" for name, times in self.milliseconds.items())
        logger.info("runtime for one face: %s (%s)", self.chosen[1], single)

    def probs(self, faces) -> np.ndarray:
        """Returns the probabilities [N, K] float32 of faces uint8 [N, H, W, C] of `image_shape`, N up to SIZES[-1]."""
        size = next(size for size in SIZES if size >= len(faces))
        return self._fns[self.chosen[size]](faces)


def _make(recognizer, wanted):
    fns = {}
    if wanted != "onnxruntime":
        fns["jax"] = recognizer.probs
    if wanted != "jax":
        try:
            fns["onnxruntime"] = _make_onnx(recognizer)
        except InputError as error:
            if wanted != "auto":
                raise
            logger.info("runtime: JAX alone (%s)", error)
    return fns


def _make_onnx(recognizer):
    from fer_jax.exports import onnx_models

    run = onnx_models.runner(onnx_models.classifier(recognizer))
    comparison.compare("onnxruntime", run, recognizer, comparison.draw_faces(recognizer, SIZES[1]))
    return run


def _measure(probs_fn, faces):
    probs_fn(faces)  # compiles
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        probs_fn(faces)
        times.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(times), 3)
