"""Two feeders of the same batches `{image uint8 [B, H, W, C], label int32 [B], mask float32 [B]}`.

Where the backbone is frozen, `image` holds its features, float32 [B, ...].

`tfdata` prepares batches on the host; `resident` keeps the whole split on the accelerator. Both follow one sampling
plan (`order`) and one augmentation policy with the same draws, so a run may change feeders and see the same faces.
"""

import importlib

import jax
import numpy as np

from fer_jax import ops
from fer_jax.errors import InputError

FEEDERS = {"tfdata": "host", "resident": "resident"}  # name in the config -> module
SUMS = ("loss", "count", "correct")


def make(name: str, *, faces, order, policy, key, shardings, steps_per_dispatch: int, jit=ops.jit):
    """Builds a feeder of a training split.

    Args:
      name: one of FEEDERS.
      faces: `images` uint8 [N, H, W, C] and `labels` int32 [N].
      order: the sampling plan, `order.Order`.
      policy: the augmentation, `augment.Policy`.
      key: draws the augmentation, together with the step.
      shardings: (batch, replicated) shardings of the mesh.
      steps_per_dispatch: steps that run as one program (resident); 0 chooses by the device.
      jit: the `ops.jit` of a step, with its own compiler options.

    Returns:
      A feeder with `wait_seconds`, the time that steps have waited for data so far, and
      `connect(train_step, watch, state, steps, prepare) -> advance(state, step, steps) -> (state, sums)`. watch: wraps
      the functions that `advance` calls. state: the training state as shapes; where it is given, the program of
      `advance`'s first dispatch, if that advances by `steps`, is compiled on a thread from then on by `prepare`, and
      `feeder.compiled()` waits for it and returns it as `jax.stages.Compiled`.

    Raises:
      InputError: an unknown name.
    """
    if name not in FEEDERS:
        raise InputError(f"data.feeder is '{name}'; known are {', '.join(FEEDERS)}")
    module = importlib.import_module(f"fer_jax.feeders.{FEEDERS[name]}")
    return module.Feeder(
        faces=faces,
        order=order,
        policy=policy,
        key=key,
        shardings=shardings,
        steps_per_dispatch=steps_per_dispatch,
        jit=jit,
    )


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
    """Puts an array that every process holds whole onto the devices of all processes."""
    return jax.make_array_from_callback(host.shape, sharding, lambda index: np.asarray(host)[index])


def zero_sums(sharding) -> dict:
    """Returns the sums of no steps, where those of a step will be: elsewhere they would need a program of their own."""
    return {name: put(np.zeros([], np.float32), sharding) for name in SUMS}
