"""The feeder on the host: tf.data gathers, augments and prefetches whole batches.

Where nothing changes the faces a batch is a mere gather: NumPy makes it, and TensorFlow is not imported.
The only module that imports TensorFlow, and it hides the GPU from it.
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
from fer_jax.runtime import compile_cache

PLANNED_STEPS = 32  # steps whose faces and draws are planned in one call
AHEAD = 2  # batches that are on their way to the devices while a step runs


class Feeder:
    """See `fer_jax.feeders.make`."""

    def __init__(self, *, faces, order, policy, key, shardings, steps_per_dispatch, jit):
        del steps_per_dispatch  # a step of this feeder is a dispatch: its batch comes from the host
        self._faces, self._order, self._policy, self._key = faces, order, policy, key
        self._sharding, self._replicated = shardings
        self._jit = functools.partial(jit, donate_argnums=0, out_shardings=self._replicated)
        self._size_px = faces.images.shape[1]
        self._uniform = jax.jit(self._draw, static_argnums=1)
        self.wait_seconds, self._stream, self._program = 0.0, None, None

    def _draw(self, step, steps):
        keys = jax.vmap(lambda s: jax.random.fold_in(self._key, s))(step + jnp.arange(steps))
        shape = (self._order.batch_size, augment.DRAWS)
        return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)

    def _plan(self, step):
        """Yields the faces and parameters of the steps from `step` on, a block at a time; this process's rows only."""
        share = self._order.batch_size // jax.process_count()
        rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            while True:
                picked = np.asarray(self._order.faces(step, PLANNED_STEPS))[:, rows]
                block = {"picked": picked}
                if self._policy.active:
                    uniform = np.asarray(self._uniform(step, PLANNED_STEPS))[:, rows]
                    flat = augment.parameters(self._policy, uniform.reshape(-1, augment.DRAWS), self._size_px)
                    block |= {name: value.reshape(*picked.shape, -1) for name, value in flat.items()}
                yield block
                step += PLANNED_STEPS

    def dataset(self, step: int = 0):
        """Returns the endless tf.data.Dataset of batches from a step on."""
        tf = _tensorflow()
        images, labels = tf.constant(self._faces.images), tf.constant(self._faces.labels)
        signature = {"picked": tf.TensorSpec([PLANNED_STEPS, None], tf.int32)}
        if self._policy.active:
            for name, size in (("affine", 6), ("tone", 2), ("box", 5)):
                signature[name] = tf.TensorSpec([PLANNED_STEPS, None, size], tf.float32)

        def batch(plan):
            image = _apply(tf, self._policy, tf.gather(images, plan["picked"]), plan)
            label = tf.gather(labels, plan["picked"])
            return {"image": image, "label": label, "mask": tf.ones(tf.shape(label))}

        plans = tf.data.Dataset.from_generator(functools.partial(self._plan, step), output_signature=signature)
        batches = plans.prefetch(1).unbatch().map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _gathered(self, step):
        """Yields what `dataset` does where nothing changes the faces; the next block of the plan is made meanwhile."""
        plans = self._plan(step)
        with futures.ThreadPoolExecutor(1) as planner:
            ahead = planner.submit(next, plans)
            while True:
                block, ahead = ahead.result(), planner.submit(next, plans)
                for picked in block["picked"]:
                    image, label = self._faces.images[picked], self._faces.labels[picked]
                    yield {"image": image, "label": label, "mask": np.ones(len(picked), np.float32)}

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
        """Lets go of the pipeline and its threads."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def connect(
        self, train_step, watch=lambda dispatch: dispatch, state=None, steps=1, prepare=compile_cache.compile_beside
    ):
        """Returns advance(state, step, steps) -> (state, sums over the steps); see `fer_jax.feeders.make`."""
        del steps  # each is a dispatch

        @self._jit
        def single(state, total, batch):
            state, sums = train_step(state, batch)
            return state, jax.tree.map(jnp.add, total, sums)

        if state is not None:
            total = compile_cache.shapes(feeders.zero_sums(self._replicated), self._replicated)
            self._program = prepare(single, (state, total, self._shapes()), (state, total))

        @watch
        def dispatch(*args):
            return (single if state is None else self.compiled())(*args)

        position = None

        def advance(state, step, steps):
            nonlocal position
            if position != step:
                self.close()
                self._stream = self.stream(step)
            total = feeders.zero_sums(self._replicated)
            for _ in range(steps):
                batch, previous = next(self._stream), total
                state, total = dispatch(state, total, batch)
                jax.block_until_ready(previous)  # one step ahead of the device, so that waiting is seen as waiting
            position = step + steps
            return state, total

        return advance

    def compiled(self):
        """Returns the program that `connect` has begun to compile, once it is there."""
        return self._program.result()

    def _shapes(self):
        """Returns a batch as shapes."""
        images, rows = self._faces.images, (self._order.batch_size,)
        batch = {
            "image": jax.ShapeDtypeStruct((*rows, *images.shape[1:]), images.dtype),
            "label": jax.ShapeDtypeStruct(rows, self._faces.labels.dtype),
            "mask": jax.ShapeDtypeStruct(rows, np.float32),
        }
        return compile_cache.shapes(batch, self._sharding)


@functools.cache
def _tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no convolution runs here, and it announces itself twice
    # With it would come Keras, for `tf.keras`, which nothing here uses and which takes as long again. So TensorFlow is
    # told to take the old Keras, which is not there; who imports Keras itself still gets the new one.
    untold = "TF_USE_LEGACY_KERAS" not in os.environ
    if untold:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf

    if untold:
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
