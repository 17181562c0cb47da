"""Predicts streams of pictures, frames or a camera: batches them, tracks faces, writes and draws the results."""

import collections
import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Sequence

from fer_jax import annotate, outputs, streams, tracking, videos
from fer_jax import drawings as drawings_lib
from fer_jax.runtime import timing

LATENCIES = 1000  # number of latest ones for the percentiles
logger = logging.getLogger("fer_jax")


@dataclasses.dataclass(frozen=True)
class Options:
    """How pictures are predicted: `faces`, `align` and `threshold` are those of Recognizer.predict.

    every: only every so many frames of a video are read. smooth_seconds: half-life for smoothing the probabilities of a
    tracked face in a video; 0: none. annotate: the folder for annotated pictures and videos, or the file of the
    annotated video; None: nothing is drawn.
    """

    faces: str = "auto"
    align: bool = True
    threshold: float = 0.5
    every: int = 1
    smooth_seconds: float = 0.5
    annotate: str | None = None


class _Predictor:
    """Predicts items, and tracks the faces of videos."""

    def __init__(self, recognizer, options):
        self._recognizer, self._options = recognizer, options
        self._tracker = self._index = None

    def predict(self, items):
        """Returns [(record, faces, tracks)] of items."""
        good = [item.pixels for item in items if item.error is None]
        options = self._options
        found = iter(
            self._recognizer.predict(good, faces=options.faces, align=options.align, threshold=options.threshold)
            if good
            else ()
        )
        return [self._finish(item, () if item.error else next(found).faces) for item in items]

    def _finish(self, item, faces):
        tracks = None
        if item.frame is not None and not item.error:
            if self._index != item.index:
                self._index, self._tracker = item.index, tracking.Tracker(self._options.smooth_seconds)
            faces, tracks = self._follow(item, faces)
        return record(item, faces, tracks), faces, tracks

    def _follow(self, item, faces):
        height, width, _ = item.pixels.shape
        boxes = [face.box or (0, 0, width, height) for face in faces]
        found = self._tracker.update(item.seconds, boxes, [list(face.probs.values()) for face in faces])
        smoothed = []
        for face, track in zip(faces, found, strict=True):
            probs = dict(zip(face.probs, track.probs, strict=True))
            top = tuple(sorted(probs.items(), key=lambda named: -named[1])[:2])
            uncertain = top[0][1] < self._options.threshold
            smoothed.append(dataclasses.replace(face, probs=probs, top=top, uncertain=uncertain))
        return smoothed, [track.number for track in found]

    def state(self):
        return None if self._tracker is None else {"index": self._index, **self._tracker.state()}

    def restore(self, state):
        if state:
            self._index, self._tracker = state["index"], tracking.Tracker(self._options.smooth_seconds)
            self._tracker.restore(state)


def record(item: streams.Item, faces: Sequence, tracks: Sequence[int] | None) -> dict:
    """Returns the output record of a picture or frame; boxes are in pixels of the original picture.

    Its keys are always source, frame, seconds, size, faces and error; those of a face are box, score, track, label,
    top, probs and uncertain. Missing values are None: frame and seconds of a picture, size of an unreadable file.
    """
    scale = (1.0, 1.0)
    if item.pixels is not None:
        scale = item.size[0] / item.pixels.shape[1], item.size[1] / item.pixels.shape[0]
    return {
        "source": item.source,
        "frame": item.frame,
        "seconds": item.seconds,
        "size": None if item.size is None else list(item.size),
        "faces": [
            {
                "box": None
                if face.box is None
                else [round(v * s, 2) for v, s in zip(face.box, scale * 2, strict=True)],
                "score": None if face.score is None else round(face.score, 4),
                "track": None if tracks is None else tracks[place],
                "label": face.top[0][0],
                "top": [[name, round(prob, 6)] for name, prob in face.top],
                "probs": {name: round(prob, 6) for name, prob in face.probs.items()},
                "uncertain": bool(face.uncertain),
            }
            for place, face in enumerate(faces)
        ],
        "error": item.error,
    }


def predict_files(recognizer, sources: Sequence[str], output, format: str, *, options: Options, classes=None) -> dict:
    """Predicts files and writes them to an entered outputs.Output or Stdout; resumes an interrupted job.

    classes: the order of the class columns and numbers; None: the recognizer's.

    Returns:
      The numbers of `items`, `faces` and `failed` files, over all attempts.
    """
    state = output.state or {"index": 0, "frame": 0, "items": 0, "faces": 0, "failed": 0, "tracker": None}
    predictor = _Predictor(recognizer, options)
    predictor.restore(state["tracker"])
    progress = timing.Progress(
        "predicting",
        steps=streams.count(sources, every=options.every),
        batch_size=1,
        steps_before=state["items"],
        line_every_seconds=timing.PREDICTION_LINE_SECONDS,
    )
    items = streams.read(sources, every=options.every, start=(state["index"], state["frame"]))
    with (
        contextlib.closing(progress),
        contextlib.closing(streams.ahead(streams.chunks(items))) as chunks,
        drawings_lib.Drawings(sources, options.annotate) as drawings,
    ):
        for chunk in chunks:
            text = []
            for item, (found, faces, tracks) in zip(chunk, predictor.predict(chunk), strict=True):
                if item.error:
                    logger.warning("%s", item.error)
                text.append(outputs.lines(format, found, classes or recognizer.classes))
                drawings.add(item, faces, tracks)
                state = _after(item, faces, state)
            state["tracker"] = predictor.state()
            # Drawing a video must restart from its first frame, so its lines must too.
            output.write("".join(text), None if drawings.writes_video else state)
            progress.update(state["items"])
    output.write("", state)
    return {name: state[name] for name in ("items", "faces", "failed")}


def _after(item, faces, state):
    """Returns the state with the next item to read, and the counts."""
    is_frame = item.frame is not None and not item.error
    return {
        **state,
        "index": item.index if is_frame else item.index + 1,
        "frame": item.frame + 1 if is_frame else 0,
        "items": state["items"] + 1,
        "faces": state["faces"] + len(faces),
        "failed": state["failed"] + bool(item.error),
    }


def watch(recognizer, frames: Iterable, name: str, output, format: str, *, options: Options, show_fn=None):
    """Predicts the frames of a camera, one at a time and always the latest, until it ends.

    frames: videos.Frames. output: an entered outputs.Output or Stdout, or None. show_fn(pixels, record, latencies):
    shows an annotated frame; returns False once the viewer quits. options.annotate: a video file, or None.

    Returns:
      (for each of the last frames, the seconds from its arrival until it was written and shown; the KeyboardInterrupt
      that ended it, or None). The output is complete up to then.
    """
    predictor, latencies = _Predictor(recognizer, options), collections.deque(maxlen=LATENCIES)
    with contextlib.ExitStack() as stack:
        film = stack.enter_context(drawings_lib.Film(options.annotate)) if options.annotate else None
        newest = stack.enter_context(contextlib.closing(videos.newest(frames)))
        try:
            for frame, came in newest:
                if frame.number % options.every:
                    continue
                height, width, _ = frame.pixels.shape
                item = streams.Item(0, name, frame.number, frame.seconds, None, frame.pixels, (width, height))
                ((found, faces, tracks),) = predictor.predict([item])
                if output is not None:
                    output.write(outputs.lines(format, found, recognizer.classes), None)
                drawn = annotate.draw(frame.pixels, faces, tracks=tracks) if film or show_fn else None
                if film:
                    film.write(drawn, frame.seconds)
                if show_fn and show_fn(drawn, found, latencies) is False:
                    break
                latencies.append(time.perf_counter() - came)
        except KeyboardInterrupt as interrupt:
            return latencies, interrupt
    return latencies, None
