"""Merges overlapping boxes of a face by weighted non-maximum suppression (Bazarevsky et al. 2019, section 4)."""

import numpy as np

PART = 0.7  # a box with at least this fraction inside a better one is a part of that face


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of one box [4] with others [N, 4]: (left, top, right, bottom)."""
    shared = _shared(box, boxes)
    union = _area(box) + _area(boxes) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def merge(numbers: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Merges boxes: the best one absorbs all that overlap it, then the best of the rest, and so on.

    Args:
      numbers: [N, D], float; the first four are (left, top, right, bottom), the others are averaged too.
      scores: [N], positive.
      threshold: intersection over union above which two boxes are of one face.

    Returns:
      (numbers [M, D], means weighted by score; scores [M], the largest of each face), best first.
    """
    order = np.argsort(-scores, kind="stable")
    numbers, scores = numbers[order], scores[order]
    merged, best = [], []
    while len(scores):
        same = overlaps(numbers[0, :4], numbers[:, :4]) > threshold
        same[0] = True  # a box without an area overlaps nothing
        merged.append(np.average(numbers[same], 0, scores[same]))
        best.append(scores[0])
        numbers, scores = numbers[~same], scores[~same]
    return np.array(merged).reshape(-1, numbers.shape[1]), np.array(best)


def drop_parts(numbers: np.ndarray, scores: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Drops boxes with at least `share` of their area inside a better one: parts of a face mistaken for a face."""
    keep = np.ones(len(scores), bool)
    for number in range(1, len(scores)):
        box, better = numbers[number, :4], numbers[:number, :4][keep[:number]]
        smaller = np.minimum(_area(better), _area(box))
        keep[number] = not np.any(_shared(box, better) > share * smaller)
    return numbers[keep], scores[keep]


def _shared(box, boxes):
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return np.prod(np.maximum(sides, 0), -1)


def _area(boxes):
    return np.prod(np.maximum(boxes[..., 2:4] - boxes[..., :2], 0), -1)
