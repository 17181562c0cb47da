"""From the bytes of a picture to its record: decoded and searched in a few threads, faces named in batches."""

import asyncio
import base64
import concurrent.futures
import dataclasses
import io
import logging

import numpy as np
from PIL import Image

from fer_jax import pictures, predicting, streams
from fer_jax.serve import batching, metrics, runtimes
from fer_jax.serve.limits import Limits

WAIT_SECONDS = 0.002  # of the first faces of a batch for others
WARM_SHAPE = (480, 640, 3)
logger = logging.getLogger("fer_jax")


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a request; faces: 'detect' or 'given'; see `Recognizer.predict` and `Recognizer.explain`."""

    faces: str = "detect"
    align: bool = True
    threshold: float = 0.5
    explain: bool = False


class Service:
    """A recognizer that answers many requests at once; a context manager that ends its threads.

    recognizer: as returned by `fer_jax.load`. detector: for the faces of pictures. runtime: of `runtimes.NAMES`.
    max_pixels: of a picture. Everything is loaded and compiled here, so that no request waits for it.

    Raises:
      InputError: the detector or the runtime cannot be used.
    """

    def __init__(self, recognizer, *, detector="auto", runtime="auto", max_pixels=Limits.max_pixels):
        self.recognizer, self.metrics, self._max_pixels = recognizer, metrics.Metrics(), max_pixels
        self.in_work = 0
        self._faces = {"detect": detector, "given": "given"}
        blank = np.zeros(WARM_SHAPE, np.uint8)
        recognizer.find_faces([blank], detector)
        self._explain(blank, [None], True)
        self.runtimes = runtimes.Runtimes(recognizer, runtime)
        self._pool = concurrent.futures.ThreadPoolExecutor(streams.WORKERS, "pictures")
        self._batcher = batching.Batcher(
            self.runtimes.probs,
            most=runtimes.SIZES[-1],
            wait_seconds=WAIT_SECONDS,
            on_batch=self.metrics.batch_faces.observe,
        )
        self.metrics.queued.set_function(self._batcher.queued)
        self.metrics.in_work.set_function(lambda: self.in_work)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown()
        self._batcher.close()

    def is_alive(self) -> bool:
        """Whether the service can answer."""
        return self._batcher.is_alive()

    def describe(self) -> dict:
        """Returns the facts of the model, as `schemas.Model`."""
        recognizer, runtime = self.recognizer, self.runtimes
        return {
            "name": recognizer.title,
            **{name: getattr(recognizer, name) for name in ("classes", "image_shape", "views", "temperature")},
            "detector": recognizer.detector(self._faces["detect"]).name,
            "runtime": {"chosen": runtime.chosen, "milliseconds": runtime.milliseconds},
            "figures": recognizer.facts.get("figures", {}),
        }

    async def predict(self, data: bytes, source: str | None, options: Options) -> dict:
        """Returns the record of a picture, see `predicting.record`; with options.explain each face has `explanation`.

        Raises:
          InputError: the picture cannot be read, or is too large (a pictures.TooManyPixels).
        """
        item, found, crops, explanations = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._prepare, data, source, options
        )
        probs = await asyncio.wrap_future(self._batcher.submit(crops)) if found else ()
        faces = [
            self.recognizer.name_face(face, mine, options.threshold) for face, mine in zip(found, probs, strict=True)
        ]
        record = predicting.record(item, faces, None)
        for face, explanation in zip(record["faces"], explanations, strict=options.explain):
            face["explanation"] = explanation
        self.metrics.pictures.labels("read").inc()
        self.metrics.faces.inc(len(faces))
        return record

    def refuse(self, source: str | None, error: Exception) -> dict:
        """Returns the record of a picture that `predict` refused."""
        self.metrics.pictures.labels("refused").inc()
        return predicting.record(streams.Item(0, source, error=str(error)), (), None)

    def _prepare(self, data, source, options):
        picture = pictures.read_reduced(data, streams.LEAST_SIDE_PX, name=source, max_pixels=self._max_pixels)
        (found,) = self.recognizer.find_faces([picture.pixels], self._faces[options.faces])
        crops = self.recognizer.crop([picture.pixels], [found], align=options.align)
        explanations = self._explain(picture.pixels, found, options.align) if options.explain else ()
        # The record needs the shape alone; a request that waits for its batch keeps no pixels.
        item = streams.Item(0, source, pixels=np.broadcast_to(np.uint8(0), picture.pixels.shape), size=picture.size)
        return item, found, self.recognizer.convert(np.stack(crops)) if crops else None, explanations

    def _explain(self, pixels, found, align):
        return [_data_url(face) for face in self.recognizer.explain_faces(pixels, found, align=align)]


def _data_url(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
