"""The detector BlazeFace: views of pictures in, faces with key points out."""

import itertools
from collections.abc import Sequence

import jax
import numpy as np
from scipy.special import expit, logit

from fer_jax import ops
from fer_jax.faces import geometry, suppression, tflite_file, views
from fer_jax.faces.geometry import Face, Framing, square
from fer_jax.faces.networks import NUMBERS, SPECS, Spec

BATCHES = (1, 8, 32)
BATCHES_ON_CPU = (1,)  # its cache does not hold the maps of more, and each size takes seconds to compile
CANDIDATE = 0.4  # the least score of a first look
SECOND_SIDE = 2.4  # of the square of a second look, in sizes of the box
SAME_FACE = 0.3  # intersection over union


def anchors(spec: Spec) -> np.ndarray:
    """Returns the middles (x, y) [A, 2] of the anchors in px of the input: cells row by row, map after map."""
    found = []
    for cells, count in spec.grids:
        middles = (np.arange(cells) + 0.5) * spec.size_px / cells
        y, x = np.meshgrid(middles, middles, indexing="ij")
        found.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), count, 0))
    return np.concatenate(found)


def decode(regressors: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Raw numbers [N, 16] of anchors with these middles [N, 2] -> [N, 16]: left, top, right, bottom, 6 times x, y."""
    centre, size, points = np.split(regressors.astype(np.float64), (2, 4), 1)
    centre = centre + middles
    return np.concatenate([centre - size / 2, centre + size / 2, points + np.tile(middles, NUMBERS // 2 - 2)], 1)


class BlazeFace:
    """A detector; `name` is what it was made by.

    traces: how often the network was traced, once for each size of a batch that was used.
    """

    def __init__(self, name: str, path, *, framing: Framing, levels: int, min_score: float):
        """Reads the weights from a verified .tflite file.

        levels: of views, see `views.cut`; min_score: of faces that are reported.
        """
        self.name, self.spec, self.traces = name, SPECS[name], 0
        self._framing, self._levels, self._min_score = framing, levels, min_score
        self._anchors = anchors(self.spec)
        self._params = jax.device_put(tflite_file.read(path))
        network = self.spec.network()

        def run(params, images):
            self.traces += 1
            return network.apply({"params": params}, images)

        self._run = ops.jit(run)
        self._sizes = BATCHES_ON_CPU if ops.on_cpu() else BATCHES

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the raw outputs of uint8 pictures [N, S, S, 3]: regressors [N, A, 16] and logits [N, A]."""
        found, done = [], 0
        while done < len(images):
            size = next((size for size in self._sizes if size >= len(images) - done), self._sizes[-1])
            batch = images[done : done + size]
            padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))
            found.append([np.asarray(part)[: len(batch)] for part in self._run(self._params, padded)])
            done += len(batch)
        return tuple(map(np.concatenate, zip(*found, strict=True)))

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        """Finds the faces of uint8 RGB pictures [H, W, 3] of any sizes; of each, the best score first.

        Where a view shows something like a face, a second look is taken at it in its best size, with its eyes level;
        the score is that of the mean logit.
        """
        first = [[np.zeros((0, NUMBERS + 1))] for _ in pictures]
        views_of_all = (
            (number, view)
            for number, picture in enumerate(pictures)
            for view in views.cut(picture, self.spec.size_px, self._levels)
        )
        for batch in _batches(views_of_all):
            regressors, logits = self.outputs(np.stack([view.pixels for _, view in batch]))
            for (number, view), *raw in zip(batch, regressors, logits, strict=True):
                first[number].append(self._believe(view, *raw))
        second = [[np.zeros((0, NUMBERS + 1))] for _ in pictures]
        candidates = (
            (number, *place, score)
            for number, rows in enumerate(first)
            for *place, score in map(_second_place, *_merge(np.concatenate(rows)))
        )
        for batch in _batches(candidates):
            squares = [geometry.cut(pictures[number], *place, self.spec.size_px) for number, *place, _ in batch]
            for (number, *place, score), *raw in zip(batch, *self.outputs(np.stack(squares)), strict=True):
                second[number].append(self._look_again(place, score, *raw))
        return [self._faces(np.concatenate(rows)) for rows in second]

    def _believe(self, view, regressors, logits):
        """Returns the boxes and points of a view, in px of the picture, and their scores: [n, 17]."""
        likely = np.flatnonzero(logits > logit(CANDIDATE))
        numbers = decode(regressors[likely], self._anchors[likely])
        numbers = numbers * np.tile(view.step, NUMBERS // 2) + np.tile(view.origin, NUMBERS // 2)
        left, top, right, bottom = view.bounds
        inside = (numbers[:, :2] >= (left, top)).all(1) & (numbers[:, 2:4] <= (right, bottom)).all(1)
        scores = expit(logits[likely].astype(np.float64))
        return np.concatenate([numbers, scores[:, None]], 1)[inside]

    def _look_again(self, place, score, regressors, logits):
        """Returns [1, 17] of the face in the middle of a square, upright in the picture as its box is; or [0, 17]."""
        size_px = self.spec.size_px
        numbers = decode(regressors, self._anchors)
        half = size_px / SECOND_SIDE / 2
        middle = np.array([-half, -half, half, half]) + size_px / 2
        same = suppression.overlaps(middle, numbers[:, :4]) > SAME_FACE
        mean = (logits.max(initial=-np.inf, where=same) + logit(score)) / 2
        if mean < logit(self._min_score):
            return np.zeros((0, NUMBERS + 1))
        (best, *_), _ = suppression.merge(numbers[same], expit(logits[same].astype(np.float64)), SAME_FACE)
        box, points = best[:4], best[4:].reshape(-1, 2)
        size = (box[2:] - box[:2]) * place[0][2] / size_px
        centre, *points = geometry.locate(np.stack([(box[:2] + box[2:]) / 2, *points]), *place, size_px)
        return np.concatenate([centre - size / 2, centre + size / 2, *points, [expit(mean)]])[None]

    def _faces(self, rows):
        return [
            Face((left, top, right - left, bottom - top), score, (tuple(eyes[:2]), tuple(eyes[2:4])), self._framing)
            for (left, top, right, bottom, *eyes), score in zip(*map(np.ndarray.tolist, _merge(rows)), strict=True)
        ]


def _batches(items):
    """Yields lists of as many items as the largest batch has; the last one is shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, BATCHES[-1])):
        yield batch


def _merge(rows):
    """[n, 17] -> (numbers [m, 16], scores [m]) of faces that are not parts of others."""
    return suppression.drop_parts(*suppression.merge(rows[:, :NUMBERS], rows[:, NUMBERS], SAME_FACE), suppression.PART)


def _second_place(numbers, score):
    """Returns what to look at again: the square (x, y, side), its tilt, and the score of the first look."""
    left, top, right, bottom, *points = numbers.tolist()
    box = (left, top, right - left, bottom - top)
    face = Face(box, score, (tuple(points[:2]), tuple(points[2:4])), Framing(SECOND_SIDE))
    return square(face), face.tilt, score
