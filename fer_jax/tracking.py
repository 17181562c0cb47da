"""Tracks faces from frame to frame by the overlap of their boxes, and smooths their probabilities over time."""

import dataclasses
from collections.abc import Sequence

import numpy as np

MIN_IOU = 0.3
FORGET_SECONDS = 1.0  # a face unseen for longer counts as a new one


@dataclasses.dataclass(frozen=True)
class Track:
    """A tracked face: its number from 1, and its box, time and smoothed probabilities when last seen."""

    number: int
    box: tuple[float, float, float, float]
    seconds: float
    probs: tuple[float, ...]


class Tracker:
    """Numbers the faces of successive frames, and smooths their probabilities exponentially.

    half_life_seconds: the time in which the weight of an observation halves; 0: no smoothing.
    """

    def __init__(self, half_life_seconds: float, *, min_iou: float = MIN_IOU, forget_seconds: float = FORGET_SECONDS):
        self._half_life, self._min_iou, self._forget = half_life_seconds, min_iou, forget_seconds
        self._tracks, self._last_number = [], 0

    def update(self, seconds: float, boxes: Sequence, probs: Sequence) -> list[Track]:
        """Returns the tracks of a frame's faces, in their order.

        seconds: of the frame, not earlier than the last one's; boxes: (x, y, width, height) each; probs: K numbers
        each.
        """
        self._tracks = [track for track in self._tracks if seconds - track.seconds <= self._forget]
        before = dict(_match([track.box for track in self._tracks], boxes, self._min_iou))
        found = []
        for place, (box, new) in enumerate(zip(boxes, probs, strict=True)):
            if place in before:
                track = self._tracks[before[place]]
                number, mixed = track.number, self._mix(track, new, seconds)
            else:
                self._last_number += 1
                number, mixed = self._last_number, new
            found.append(Track(number, tuple(map(float, box)), seconds, tuple(map(float, mixed))))
        seen = set(before.values())
        self._tracks = found + [track for place, track in enumerate(self._tracks) if place not in seen]
        return found

    def _mix(self, track, new, seconds):
        old_share = 0.5 ** ((seconds - track.seconds) / self._half_life) if self._half_life > 0 else 0.0
        return old_share * np.asarray(track.probs) + (1 - old_share) * np.asarray(new, np.float64)

    def state(self) -> dict:
        """Returns the state for `restore`, which JSON stores without loss."""
        return {"last_number": self._last_number, "tracks": [dataclasses.asdict(track) for track in self._tracks]}

    def restore(self, state: dict) -> None:
        """Continues from the state of another tracker."""
        self._last_number = state["last_number"]
        self._tracks = [
            Track(track["number"], tuple(track["box"]), track["seconds"], tuple(track["probs"]))
            for track in state["tracks"]
        ]


def iou(first, second) -> np.ndarray:
    """Returns the overlap of boxes [M, 4] with boxes [N, 4], (x, y, width, height): intersection over union, [M, N]."""
    first = np.asarray(first, np.float64).reshape(-1, 1, 4)
    second = np.asarray(second, np.float64).reshape(1, -1, 4)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = first[..., 2:].prod(axis=-1) + second[..., 2:].prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _match(before, now, min_iou):
    """Yields (index in now, index in before) of the pairs with the largest sum of overlaps."""
    if not len(before) or not len(now):
        return
    from scipy import optimize

    overlap = iou(before, now)
    overlap[overlap < min_iou] = 0  # otherwise rejected pairs could displace valid ones
    for old, new in zip(*optimize.linear_sum_assignment(overlap, maximize=True), strict=True):
        if overlap[old, new]:
            yield int(new), int(old)
