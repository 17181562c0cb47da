"""The BlazeFace detector: finds faces and key points in views of pictures."""

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
BATCHES_ON_CPU = (1,)  # the maps of more do not fit its cache, and each size takes seconds to compile
CANDIDATE = 0.4  # the minimum score of a first look
SECOND_SIDE = 2.4  # side of the square of a second look, in sizes of the box
SAME_FACE = 0.3  # intersection over union


def anchors(spec: Spec) -> np.ndarray:
    """Returns the centres (x, y) [A, 2] of the anchors in px of the input: cells row by row, map after map."""
    found = []
    for cells, count in spec.grids:
        middles = (np.arange(cells) + 0.5) * spec.size_px / cells
        y, x = np.meshgrid(middles, middles, indexing="ij")
        found.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), count, 0))
    return np.concatenate(found)


def decode(regressors: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Raw numbers [N, 16] of anchors with these centres [N, 2] -> [N, 16]: left, top, right, bottom, 6 times x, y."""
    centre, size, points = np.split(regressors.astype(np.float64), (2, 4), 1)
    centre = centre + middles
    return np.concatenate([centre - size / 2, centre + size / 2, points + np.tile(middles, NUMBERS // 2 - 2)], 1)


class BlazeFace:
    """A detector; `name` is its name in `make_detector`.

    network, params: the linen module and its parameters. traces: how often it was traced, once per batch size.
    """

    def __init__(self, name: str, path, *, framing: Framing, levels: int, min_score: float):
        """Reads the weights from a verified .tflite file.

        levels: of views, see `views.cut`; min_score: of reported faces.
        """
        self.name, self.spec, self.traces = name, SPECS[name], 0
        self._framing, self._levels, self._min_score = framing, levels, min_score
        self._anchors = anchors(self.spec)
        self.network, self.params = self.spec.network(), jax.device_put(tflite_file.read(path))

        def run(params, images):
            self.traces += 1
            return self.network.apply({"params": params}, images)

        self._run = ops.jit(run)
        self._sizes = BATCHES_ON_CPU if ops.on_cpu() else BATCHES

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the raw outputs of uint8 pictures [N, S, S, 3]: regressors [N, A, 16] and logits [N, A]."""
        found, done = [], 0
        while done < len(images):
            size = next((size for size in self._sizes if size >= len(images) - done), self._sizes[-1])
            batch = images[done : done + size]
            padded = np.pad(batch, ((0, size - len(batch)), (0, 0), (0, 0), (0, 0)))
            found.append([np.asarray(part)[: len(batch)] for part in self._run(self.params, padded)])
            done += len(batch)
        return tuple(map(np.concatenate, zip(*found, strict=True)))

    def detect(self, pictures: Sequence[np.ndarray]) -> list[list[Face]]:
        """Finds the faces in uint8 RGB pictures [H, W, 3] of any sizes; best scores first in each list.

        Each candidate in a view gets a second look, at the best size and with the eyes level; the score is that of the
        mean logit of both.
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
        """Returns the candidates of a view, boxes and points in px of the picture, and their scores: [n, 17]."""
        likely = np.flatnonzero(logits > logit(CANDIDATE))
        numbers = decode(regressors[likely], self._anchors[likely])
        numbers = numbers * np.tile(view.step, NUMBERS // 2) + np.tile(view.origin, NUMBERS // 2)
        left, top, right, bottom = view.bounds
        inside = (numbers[:, :2] >= (left, top)).all(1) & (numbers[:, 2:4] <= (right, bottom)).all(1)
        scores = expit(logits[likely].astype(np.float64))
        return np.concatenate([numbers, scores[:, None]], 1)[inside]

    def _look_again(self, place, score, regressors, logits):
        """Returns [1, 17] for the face in the centre of a square, its box upright in the picture; or [0, 17]."""
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
    """Yields lists of the size of the largest batch; the last one may be shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, BATCHES[-1])):
        yield batch


def _merge(rows):
    """[n, 17] -> (numbers [m, 16], scores [m]) of the faces, merged and without parts of faces."""
    return suppression.drop_parts(*suppression.merge(rows[:, :NUMBERS], rows[:, NUMBERS], SAME_FACE), suppression.PART)


def _second_place(numbers, score):
    """Returns the arguments of the second look: the square (x, y, side), its tilt, and the score of the first."""
    left, top, right, bottom, *points = numbers.tolist()
    box = (left, top, right - left, bottom - top)
    face = Face(box, score, (tuple(points[:2]), tuple(points[2:4])), Framing(SECOND_SIDE))
    return square(face), face.tilt, score
