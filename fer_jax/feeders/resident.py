"""The feeder that keeps the split on the accelerator: sampling and augmentation run inside the step.

TensorFlow is never imported on this path.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import augment, feeders

ACCELERATOR_STEPS = 25


class Feeder:
    """See `fer_jax.feeders.make`. An item is (indices of faces [B], number of the step [])."""

    wait_seconds = 0.0  # the faces are already where the step runs

    def __init__(self, *, faces, sampler, policy, key, shardings, steps_per_dispatch, log_every_steps):
        self._sampler, self._policy, self._key = sampler, policy, key
        self._sharding, replicated = shardings
        rows = {"image": faces.images, **feeders.annotations(faces)}
        self.arrays = {f"{name}s": feeders.put(array, replicated) for name, array in rows.items()}
        # XLA:CPU runs convolutions inside a loop tens of times slower, so there a dispatch is one step.
        by_device = 1 if jax.default_backend() == "cpu" else ACCELERATOR_STEPS
        self._steps_per_dispatch, self._log_every_steps = steps_per_dispatch or by_device, log_every_steps

    def chunks(self, start, stop):
        """See `fer_jax.feeders.Feeder`."""
        for logged in range(start, stop, self._log_every_steps):
            count = min(self._log_every_steps, stop - logged)
            indices = self._sampler.indices(logged, count)
            for first in range(0, count, self._steps_per_dispatch):
                last = min(first + self._steps_per_dispatch, count)
                numbers = np.arange(logged + first, logged + last, dtype=np.int32)
                one = last - first == 1
                items = (indices[first], numbers[0]) if one else (indices[first:last], numbers)
                yield feeders.Chunk(logged + last, last - first, items)

    def batch(self, arrays, item):
        """See `fer_jax.feeders.Feeder`."""
        picked, step = item
        picked = jax.lax.with_sharding_constraint(picked, self._sharding)
        chosen = arrays["images"][picked]
        if self._policy.active:
            uniform = augment.draw(self._policy, self._key, step, picked, self._sampler.epochs(step))
            size_px = arrays["images"].shape[1]
            chosen = augment.apply(self._policy, chosen, augment.parameters(self._policy, uniform, size_px))
        batch = {"image": chosen, "label": arrays["labels"][picked], "mask": jnp.ones(picked.shape, jnp.float32)}
        if "targets" in arrays:
            batch["target"] = arrays["targets"][picked]
        return jax.lax.with_sharding_constraint(batch, self._sharding)

    def close(self):
        """Nothing to release except the arrays."""
