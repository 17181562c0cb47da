"""The feeder on the host: tf.data gathers, augments and prefetches whole batches.

Without augmentation a batch is only a gather: NumPy does it, and TensorFlow is not imported.
This is the only module that imports TensorFlow; it hides the GPU from it.
"""

import collections
import functools
import os
import time
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import augment, feeders

PLANNED_STEPS = 32  # steps whose faces and draws are planned in one call
AHEAD = 2  # batches that are on their way to the devices while a step runs


class Feeder:
    """See `fer_jax.feeders.make`. An item is a batch."""

    def __init__(self, *, faces, sampler, policy, key, shardings, steps_per_dispatch, log_every_steps):
        del steps_per_dispatch, log_every_steps  # a step of this feeder is a dispatch
        self._faces, self._sampler, self._policy, self._key = faces, sampler, policy, key
        self._sharding, _ = shardings
        self.arrays = {}  # the host makes complete batches
        self._size_px = faces.images.shape[1]
        self._uniform = jax.jit(self._draw)
        self.wait_seconds, self._stream, self._position = 0.0, None, None

    def chunks(self, start, stop):
        """See `fer_jax.feeders.Feeder`; what it has prepared past `stop` is kept for the next call."""
        if self._position != start:
            self.close()
            self._stream = self.stream(start)
        for step in range(start, stop):
            batch = next(self._stream)
            self._position = step + 1
            yield feeders.Chunk(step + 1, 1, batch)

    def batch(self, arrays, item):
        """See `fer_jax.feeders.Feeder`; an item is a batch."""
        del arrays
        return item

    def _draw(self, step, picked):
        numbers = step + jnp.arange(len(picked))
        return jax.vmap(lambda s, faces: augment.draw(self._policy, self._key, s, faces, self._sampler.epochs(s)))(
            numbers, picked
        )

    def _plan(self, step):
        """Yields the faces and parameters of the steps from `step` on, a block at a time; this process's rows only."""
        share = self._sampler.batch_size // jax.process_count()
        rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            while True:
                indices = self._sampler.indices(step, PLANNED_STEPS)
                picked = np.asarray(indices)[:, rows]
                block = {"picked": picked}
                if self._policy.active:
                    uniform = np.asarray(self._uniform(step, indices))[:, rows]
                    flat = augment.parameters(self._policy, uniform.reshape(-1, augment.DRAWS), self._size_px)
                    block |= {name: value.reshape(*picked.shape, -1) for name, value in flat.items()}
                yield block
                step += PLANNED_STEPS

    def dataset(self, step: int = 0):
        """Returns the endless tf.data.Dataset of batches from a step on."""
        tf = _tensorflow()
        images = tf.constant(self._faces.images)
        annotations = {name: tf.constant(rows) for name, rows in feeders.annotations(self._faces).items()}
        signature = {"picked": tf.TensorSpec([PLANNED_STEPS, None], tf.int32)}
        if self._policy.active:
            for name, size in (("affine", 6), ("tone", 2), ("box", 5)):
                signature[name] = tf.TensorSpec([PLANNED_STEPS, None, size], tf.float32)

        def batch(plan):
            image = _apply(tf, self._policy, tf.gather(images, plan["picked"]), plan)
            found = {name: tf.gather(rows, plan["picked"]) for name, rows in annotations.items()}
            return {"image": image, **found, "mask": tf.ones(tf.shape(plan["picked"]))}

        plans = tf.data.Dataset.from_generator(functools.partial(self._plan, step), output_signature=signature)
        batches = plans.prefetch(1).unbatch().map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _gathered(self, step):
        """Yields the batches of `dataset` without augmentation; the next block of the plan is made meanwhile."""
        plans, annotations = self._plan(step), feeders.annotations(self._faces)
        with futures.ThreadPoolExecutor(1) as planner:
            ahead = planner.submit(next, plans)
            while True:
                block, ahead = ahead.result(), planner.submit(next, plans)
                for picked in block["picked"]:
                    found = {name: rows[picked] for name, rows in annotations.items()}
                    yield {"image": self._faces.images[picked], **found, "mask": np.ones(len(picked), np.float32)}

    def stream(self, step: int = 0):
        """Yields the batches from a step on, on the devices, a few ahead; counts `wait_seconds`."""
        changing = self._policy.active
        source = self.dataset(step).as_numpy_iterator() if changing else self._gathered(step)
        waiting = collections.deque()
        while True:
            while len(waiting) < AHEAD:
                started = time.perf_counter()
                batch = next(source)
                self.wait_seconds += time.perf_counter() - started
                waiting.append(
                    jax.tree.map(lambda rows: jax.make_array_from_process_local_data(self._sharding, rows), batch)
                )
            yield waiting.popleft()

    def close(self) -> None:
        """Releases the pipeline and its threads."""
        if self._stream is not None:
            self._stream.close()
            self._stream = self._position = None


@functools.cache
def _tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no convolution runs here, and it announces itself twice
    # TensorFlow would also import Keras, for `tf.keras`, which is not used and takes as long again. With the flag it
    # looks for legacy Keras, which is not installed; `import keras` still gets the new one.
    is_unset = "TF_USE_LEGACY_KERAS" not in os.environ
    if is_unset:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf

    if is_unset:
        del os.environ["TF_USE_LEGACY_KERAS"]
    tf.config.set_visible_devices([], "GPU")
    return tf


def _apply(tf, policy, images, chosen):
    """`augment.apply` in TensorFlow: the same parameters, one fused projective transform a batch."""
    if not policy.active:
        return images
    x = tf.cast(images, tf.float32)
    if policy.moves:
        x = tf.raw_ops.ImageProjectiveTransformV3(
            images=x,
            transforms=tf.pad(chosen["affine"], [[0, 0], [0, 2]]),
            output_shape=tf.shape(x)[1:3],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST" if policy.fill == "edge" else "CONSTANT",
        )
    if policy.tones:
        mean = tf.reduce_mean(tf.reduce_mean(x, axis=[1, 2], keepdims=True), axis=3, keepdims=True)
        tone = chosen["tone"][:, None, None, :]
        x = (x - mean) * tone[..., :1] + mean + tone[..., 1:]
    if policy.erase:
        top, left, bottom, right, grey = (chosen["box"][:, i, None, None, None] for i in range(5))
        row = tf.range(tf.shape(x)[1], dtype=tf.float32)[None, :, None, None]
        column = tf.range(tf.shape(x)[2], dtype=tf.float32)[None, None, :, None]
        x = tf.where((row >= top) & (row < bottom) & (column >= left) & (column < right), grey, x)
    return tf.cast(tf.clip_by_value(tf.round(x), 0, 255), tf.uint8)
