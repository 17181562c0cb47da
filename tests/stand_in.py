"""A recognizer that needs no training: a face is a red square, its green tells the class, its blue how sure it is.

`python stand_in.py WORDS` is `python -m fer_jax.predict WORDS` with it; STAND_IN_SECONDS slows every call down.
"""

import dataclasses
import os
import sys
import time

import numpy as np
from scipy import ndimage

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@dataclasses.dataclass(frozen=True)
class FacePrediction:
    box: tuple | None
    score: float | None
    probs: dict
    top: tuple
    uncertain: bool


@dataclasses.dataclass(frozen=True)
class PicturePrediction:
    source: str | None
    size: tuple
    faces: tuple
    error: str | None = None


def colour(name, sure):
    """Returns the colour of a face that shows `name` with a probability of about `sure`."""
    return 255, 30 * CLASSES.index(name) + 15, round(200 * sure)


def picture(*faces, size=(160, 120)):
    """Returns a grey picture with faces ((x, y, side), name, sure)."""
    pixels = np.full((size[1], size[0], 3), 60, np.uint8)
    for (x, y, side), name, sure in faces:
        pixels[y : y + side, x : x + side] = colour(name, sure)
    return pixels


class Recognizer:
    name, classes, image_shape = "stand-in", CLASSES, (48, 48, 1)

    def __init__(self):
        self.calls = []

    def predict(self, images, faces="detect", align=True, threshold=0.5):
        self.calls.append(len(images))
        time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
        return [self._one(pixels, faces, threshold) for pixels in images]

    def _one(self, pixels, faces, threshold):
        assert pixels.dtype == np.uint8 and pixels.ndim == 3
        if faces == "given":
            parts = [(None, pixels)]
        else:
            labels, _ = ndimage.label(pixels[..., 0] > 180)
            parts = [
                ((x.start, y.start, x.stop - x.start, y.stop - y.start), pixels[y, x])
                for y, x in ndimage.find_objects(labels)
                if y.stop - y.start > 4
            ]
        size = pixels.shape[1], pixels.shape[0]
        return PicturePrediction(None, size, tuple(self._face(box, part, threshold) for box, part in parts))

    def _face(self, box, pixels, threshold):
        height, width, _ = pixels.shape
        inside = pixels[height // 4 : -(height // 4), width // 4 : -(width // 4)].reshape(-1, 3)
        _, green, blue = np.median(inside, axis=0)
        place, sure = min(int(green // 30), 6), blue / 200
        probs = {name: (1 - sure) / 6 for name in CLASSES} | {CLASSES[place]: float(sure)}
        top = tuple(sorted(probs.items(), key=lambda item: -item[1])[:2])
        return FacePrediction(box, None if box is None else 0.9, probs, top, top[0][1] < threshold)


if __name__ == "__main__":
    import fer_jax
    from fer_jax import command, predict

    fer_jax.load = lambda *_, **__: Recognizer()
    main = predict._main
    sys.argv[0] = "predict"
    command.run(main)
