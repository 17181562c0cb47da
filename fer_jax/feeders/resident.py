"""The feeder that keeps the split on the accelerator: sampling and augmentation run inside the step.

TensorFlow is never imported on this path.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import augment, feeders
from fer_jax.runtime import compile_cache

ACCELERATOR_STEPS = 25


class Feeder:
    """See `fer_jax.feeders.make`."""

    wait_seconds = 0.0  # nothing is waited for: the faces are where the step runs

    def __init__(self, *, faces, order, policy, key, shardings, steps_per_dispatch, jit):
        self._order, self._policy, self._key = order, policy, key
        self._jit = functools.partial(jit, donate_argnums=0, out_shardings=shardings[1])
        self._sharding, self._replicated = shardings
        self._images = feeders.put(faces.images, self._replicated)
        self._labels = feeders.put(faces.labels, self._replicated)
        self._program = None
        # XLA:CPU runs convolutions inside a loop tens of times slower, so there a dispatch is one step.
        by_device = 1 if jax.default_backend() == "cpu" else ACCELERATOR_STEPS
        self._steps_per_dispatch = steps_per_dispatch or by_device
        self._alone = jax.jit(self._batch)

    def _batch(self, images, labels, picked, step):
        picked = jax.lax.with_sharding_constraint(picked, self._sharding)
        chosen = images[picked]
        if self._policy.active:
            uniform = jax.random.uniform(jax.random.fold_in(self._key, step), (picked.shape[0], augment.DRAWS))
            size_px = images.shape[1]
            chosen = augment.apply(self._policy, chosen, augment.parameters(self._policy, uniform, size_px))
        batch = {"image": chosen, "label": labels[picked], "mask": jnp.ones(picked.shape, jnp.float32)}
        return jax.lax.with_sharding_constraint(batch, self._sharding)

    def batches(self, step: int, steps: int):
        """Returns the batches of some steps, on the devices: for tests and for looking at."""
        picked = self._order.faces(step, steps)
        return [self._alone(self._images, self._labels, picked[i], step + i) for i in range(steps)]

    def close(self) -> None:
        """Nothing to let go of but the arrays."""

    def connect(
        self, train_step, watch=lambda dispatch: dispatch, state=None, steps=1, prepare=compile_cache.compile_beside
    ):
        """Returns advance(state, step, steps) -> (state, sums over the steps); see `fer_jax.feeders.make`."""

        def one(carry, given, images, labels):
            state, total = carry
            state, sums = train_step(state, self._batch(images, labels, *given))
            return state, jax.tree.map(jnp.add, total, sums)

        def many(carry, given, images, labels):
            return jax.lax.scan(lambda carry, now: (one(carry, now, images, labels), None), carry, given)[0]

        held, single, several = (self._images, self._labels), self._jit(one), self._jit(many)
        first = min(steps, self._steps_per_dispatch) if state is not None else 0
        if first:
            total = compile_cache.shapes(feeders.zero_sums(self._replicated), self._replicated)
            shape = (self._order.batch_size,) if first == 1 else (first, self._order.batch_size)
            given = (jax.ShapeDtypeStruct(shape, np.int32), jax.ShapeDtypeStruct(shape[:-1], np.int32))
            args = ((state, total), given, *compile_cache.shapes(held, self._replicated))
            self._program = prepare(single if first == 1 else several, args, (state, total))

        @watch
        def dispatch(carry, given):
            count = 1 if given[0].ndim == 1 else len(given[0])
            run = self.compiled() if count == first else single if count == 1 else several
            return run(carry, given, *held)

        def advance(state, step, steps):
            total = feeders.zero_sums(self._replicated)
            picked = self._order.faces(step, steps)
            for start in range(0, steps, self._steps_per_dispatch):
                end = min(start + self._steps_per_dispatch, steps)
                alone = end - start == 1
                numbers = step + (np.int32(start) if alone else np.arange(start, end, dtype=np.int32))
                state, total = dispatch((state, total), (picked[start] if alone else picked[start:end], numbers))
            return state, total

        return advance

    def compiled(self):
        """Returns the program that `connect` has begun to compile, once it is there."""
        return self._program.result()
