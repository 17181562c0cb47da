"""The detector `lbp`: scikit-image's cascade of local binary patterns, which comes with its weights."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fer_jax.faces import suppression, views
from fer_jax.faces.geometry import Face, Framing

SIDE_PX = 480  # the longer side of the searched picture; the time grows with the square
MIN_PX = 24  # the window of the cascade
SCALE_FACTOR = 1.05  # from one window size to the next
NEVER = 2.0  # overlaps are at most 1: turns off scikit-image's merging, which does not report the number of windows
HALF_SURE = 8  # number of windows for a score of 0.5
SAME_FACE = 0.3  # intersection over union


class Cascade:
    """A detector of upright frontal faces, without eyes. The score is n / (n + 8) if n windows agree."""

    name = "lbp"

    def __init__(self, *, framing: Framing, min_score: float):
        """min_score: of reported faces."""
        import skimage.data
        import skimage.feature

        self._cascade = skimage.feature.Cascade(skimage.data.lbp_frontal_face_cascade_filename())
        self._framing, self._min_score = framing, min_score

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        """Finds the faces in uint8 RGB pictures [H, W, 3] of any sizes; best scores first in each list."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture):
        small, scale = views.fit(picture, SIDE_PX)
        if min(small.shape[:2]) < MIN_PX:
            return []
        found = self._cascade.detect_multi_scale(
            np.asarray(Image.fromarray(small).convert("L")),
            scale_factor=SCALE_FACTOR,
            step_ratio=1,
            min_size=(MIN_PX, MIN_PX),
            max_size=small.shape[:2],
            min_neighbor_number=1,
            intersection_score_threshold=NEVER,
        )
        # The cascade's threads report in no fixed order.
        boxes = sorted((box["c"], box["r"], box["c"] + box["width"], box["r"] + box["height"]) for box in found)
        boxes = np.array(boxes, float).reshape(-1, 4) * scale
        agreeing = np.array([np.sum(suppression.overlaps(box, boxes) > SAME_FACE) for box in boxes])
        boxes, agreeing = suppression.merge(boxes, agreeing, SAME_FACE)
        boxes, agreeing = suppression.drop_parts(boxes, agreeing, suppression.PART)
        scores = agreeing / (agreeing + HALF_SURE)
        return [
            Face((left, top, right - left, bottom - top), score, None, self._framing)
            for (left, top, right, bottom), score in zip(boxes.tolist(), scores.tolist(), strict=True)
            if score >= self._min_score
        ]
