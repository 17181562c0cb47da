"""Two feeders of the same batches `{image uint8 [B, H, W, C], label int32 [B], mask float32 [B]}`.

If the backbone is frozen, `image` has its features, float32 [B, ...]. If the faces have soft targets, training batches
also have `target` float32 [B, K].

`tfdata` (host.py) prepares batches on the host; `resident` keeps the whole split on the accelerator. Both follow one
sampling plan (`sampler`) and one augmentation policy with the same draws, so a run may change feeders and see the same
faces.
"""

import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from fer_jax.errors import InputError

FEEDERS = {"tfdata": "host", "resident": "resident"}  # name in the config -> module


class Chunk(NamedTuple):
    """The input of one dispatch of train steps.

    step: the number of the run's steps after it; steps: how many it contains. items: the input of `Feeder.batch`, with
    a leading axis if there are several steps.
    """

    step: int
    steps: int
    items: Any


class Feeder(Protocol):
    """A training split as chunks of steps.

    arrays: what every step reads: the resident faces, or nothing. wait_seconds: how long steps have waited for data.
    """

    arrays: dict
    wait_seconds: float

    def chunks(self, start: int, stop: int) -> Iterator[Chunk]:
        """Yields the steps from start to stop, in order."""

    def batch(self, arrays: dict, item) -> dict:
        """Returns the batch of one step; pure, traced into the step."""

    def close(self) -> None:
        """Releases threads and files."""


def make(
    name: str, *, faces, sampler, policy, key, shardings, steps_per_dispatch: int = 0, log_every_steps: int = 25
) -> Feeder:
    """Builds a feeder of a training split.

    Args:
      name: one of FEEDERS.
      faces: `images` uint8 [N, H, W, C], `labels` int32 [N] and, if they have any, `targets` float32 [N, K].
      sampler: the sampling plan, `sampler.Sampler`.
      policy: the augmentation, `augment.Policy`.
      key: draws the augmentation, together with the step.
      shardings: (batch, replicated) shardings of the mesh.
      steps_per_dispatch: steps that run as one program (resident); 0 chooses by the device.
      log_every_steps: no chunk goes past a multiple of this number of steps, counted from where `chunks` starts.

    Raises:
      InputError: an unknown name.
    """
    if name not in FEEDERS:
        raise InputError(f"data.feeder is '{name}'; known are {', '.join(FEEDERS)}")
    module = importlib.import_module(f"fer_jax.feeders.{FEEDERS[name]}")
    return module.Feeder(
        faces=faces,
        sampler=sampler,
        policy=policy,
        key=key,
        shardings=shardings,
        steps_per_dispatch=steps_per_dispatch,
        log_every_steps=log_every_steps,
    )


def annotations(faces) -> dict:
    """Returns the annotations of faces in a batch: `label` [N] and, if they have targets, `target` [N, K]."""
    targets = getattr(faces, "targets", None)
    return {"label": faces.labels} | ({} if targets is None else {"target": targets})


def padded_batches(faces, batch_size: int, sharding):
    """Yields a split once, in order, in equal batches on the devices; `mask` is 0 where the last one is padded."""
    count = len(faces.labels)
    for start in range(0, count, batch_size):
        picked = np.arange(start, min(start + batch_size, count))
        padding = (0, batch_size - len(picked))
        batch = {
            "image": np.pad(faces.images[picked], (padding, *[(0, 0)] * (faces.images.ndim - 1))),
            "label": np.pad(faces.labels[picked], padding),
            "mask": np.pad(np.ones(len(picked), np.float32), padding),
        }
        yield jax.tree.map(lambda host: put(host, sharding), batch)


def put(host, sharding):
    """Puts an array that every process has in full onto the devices of all processes."""
    return jax.make_array_from_callback(host.shape, sharding, lambda index: np.asarray(host)[index])
