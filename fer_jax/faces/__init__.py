"""Face detectors, by name, and the square around a face as FER-2013 frames it."""

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fer_jax.errors import InputError
from fer_jax.faces.geometry import Face, Framing, crop, square
from fer_jax.pretrained import fetch, registry

__all__ = ["NAMES", "Detector", "Face", "Framing", "crop", "make_detector", "square"]

YUNET = "yunet:"
BEST = "blazeface"
NAMES = ("auto", *(row.name for row in registry.DETECTOR_ROWS), "lbp", f"{YUNET}<file.onnx>")
# detector -> transform of its box to FER-2013's square; measured by experiments/faces/run.py
FRAMINGS = {
    "blazeface": Framing(1.177, 0.009, -0.087),
    "blazeface:back": Framing(1.139, 0.013, -0.087),
    "blazeface:full": Framing(1.169, 0.008, -0.049),
    "lbp": Framing(1.034, -0.013, -0.014),
}
# The minimum score of a face, and the levels of views (`views.cut`): 3 levels find faces of a twelfth of the longer
# side, 4 levels find faces half as large and take 4 times as long.
MIN_SCORES = {"blazeface": 0.62, "blazeface:back": 0.62, "blazeface:full": 0.62, "lbp": 0.5, "yunet": 0.7}
LEVELS = {"blazeface": 3, "blazeface:back": 2, "blazeface:full": 2}
logger = logging.getLogger("fer_jax")


class Detector(Protocol):
    """The detectors of `make_detector`; `name` is that of the detector chosen by 'auto'."""

    name: str

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        """Finds the faces in uint8 RGB pictures [H, W, 3] of any sizes; best scores first in each list."""


def make_detector(name: str = "auto", *, levels: int | None = None, cache_dir=None) -> Detector:
    """Makes a face detector.

    Args:
      name: one of NAMES; 'auto' is the best one whose weights are on this machine. Nothing is fetched.
      levels: how far a BlazeFace tiles the picture; 1: the whole picture only, as for a camera; 2 to 4: also tiles of
        1/2, 1/4 and 1/8 of the longer side. Default: LEVELS.
      cache_dir: where to look for weights first; default: fetch.CACHE_DIR.

    Raises:
      InputError: an unknown name, missing or wrong weights, or no OpenCV for YuNet.
    """
    if name == "auto":
        return _choose(levels, cache_dir)
    if name.startswith(YUNET):
        from fer_jax.faces import yunet

        return yunet.YuNet(name.removeprefix(YUNET), **_options("yunet"))
    if name == "lbp":
        from fer_jax.faces import cascade

        return cascade.Cascade(**_options(name))
    if name not in NAMES:
        raise InputError(f"unknown detector '{name}'; known are {', '.join(NAMES)}")
    row = registry.find(name)
    path = fetch.find(row, cache_dir=cache_dir)
    if path is None:
        raise InputError(
            f"the weights of {name} are not on this machine: run `{fetch.fetch_command(row)}`, or use 'auto' or 'lbp'"
        )
    fetch.verify(row, path)
    from fer_jax.faces import blazeface

    return blazeface.BlazeFace(name, path, levels=levels or LEVELS[name], **_options(name))


def _choose(levels, cache_dir):
    row = registry.find(BEST)
    if fetch.find(row, cache_dir=cache_dir):
        detector = make_detector(BEST, levels=levels, cache_dir=cache_dir)
        logger.info("faces: detector %s", detector.name)
        return detector
    detector = make_detector("lbp")
    logger.info(
        "faces: detector %s; a better and faster one, BlazeFace, comes with `%s`",
        detector.name,
        fetch.fetch_command(registry.find("blazeface")),
    )
    return detector


def _options(name):
    return {"framing": FRAMINGS.get(name, Framing()), "min_score": MIN_SCORES[name]}
