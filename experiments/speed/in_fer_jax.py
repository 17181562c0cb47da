"""A row in fer_jax, made of the parts that `fer_jax.train` and `fer_jax.evaluate` are made of."""

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from unittest import mock

import jax
import numpy as np

from fer_jax import augment, feature_cache, feeders, metrics, ops, phases, steps
from fer_jax import config as config_lib
from fer_jax import params as params_lib
from fer_jax.datasets import faces, facts
from fer_jax.feeders import sampler
from fer_jax.runtime import remat


def versions() -> dict:
    """Returns the versions of what computes."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}


class System:
    """The state, the resident feeder's training step and the evaluation step of a row.

    feeder: of input.FEEDERS; cache_dir: where the features of a frozen backbone are kept, to train on them; '': none.
    """

    def __init__(self, spec, images, labels, *, feeder="resident", cache_dir=""):
        config = config_lib.from_dict(spec["config"])
        self._every = config.log.every_steps
        self._rematerialize = remat.settle(config.train.rematerialize, config.model.name)
        self._jit = functools.partial(ops.jit, options=remat.compiler_options(self._rematerialize))
        self._shardings = steps.make_shardings()
        self._keys = dict(zip(("init", "order", "dropout"), jax.random.split(jax.random.key(0), 3), strict=True))
        self._classes, self._batch = spec["classes"], spec["batch"]
        shape, count = images.shape[1:], len(labels) // self._batch
        (phase,) = phases.make(config, self._classes, image_shape=shape, steps_per_epoch=count)
        self.phase = phase
        init = functools.partial(steps.init_state, phase.model, phase.tx, self._keys["init"], shape, phase.frozen)
        self.state = jax.block_until_ready(jax.jit(init, out_shardings=self._shardings[1])())
        self._spec, self._faces, self._forward, self._step = spec, faces.Faces(images, labels), None, 0
        self._features_seconds = None
        if cache_dir:
            self._cache_features(cache_dir)
        self._connect(feeder)

    def _cache_features(self, cache_dir):
        started = time.perf_counter()
        self._faces = feature_cache.cached(
            self.phase.model,
            self.state.variables,
            self._faces,
            batch_size=self._batch,
            shardings=self._shardings,
            cache_dir=cache_dir,
        )
        self._forward, self._features_seconds = feature_cache.FORWARD, time.perf_counter() - started

    def _connect(self, feeder):
        order = sampler.Order(
            self._faces.labels, classes=self._classes, batch_size=self._batch, key=self._keys["order"]
        )
        _ = order.faces(0, self._every)[0]  # compiled before anything is timed
        feeder = feeders.make(
            feeder,
            faces=self._faces,
            order=order,
            policy=augment.Policy(),
            key=self._keys["dropout"],
            shardings=self._shardings,
            steps_per_dispatch=0,
            jit=self._jit,
        )
        self._advance = feeder.connect(self._train_step())
        self._eval_step = ops.jit(steps.make_eval_step(self.phase.model, classes=self._classes, forward=self._forward))
        self._resident = list(feeders.padded_batches(self._faces, self._batch, self._shardings[0]))

    def _train_step(self):
        phase = self.phase
        return steps.make_train_step(
            phase.model,
            phase.tx,
            classes=self._classes,
            key=self._keys["dropout"],
            frozen=phase.frozen,
            forward=self._forward,
            rematerialize=self._rematerialize,
        )

    def parameters(self) -> dict:
        """Returns the numbers of parameters, statistics included, and of trained ones."""
        trained = params_lib.count(params_lib.split(self.state.params, self.phase.frozen)[0])
        return {"total": params_lib.count(self.state.variables), "trained": trained}

    def train(self, batches: int) -> None:
        """Takes steps, and fetches their sums as often as a training does."""
        whole, rest = divmod(batches, self._every)
        for count in [self._every] * whole + [1] * rest:  # other counts would compile anew
            self.state, sums = self._advance(self.state, self._step, count)
            self._step += count
            if count == self._every:
                _ = {name: float(value) for name, value in sums.items()}
        jax.block_until_ready((self.state, sums))

    def evaluate(self, batches: int) -> None:
        """Judges batches that lie on the device; fetches the sums."""
        total = None
        for number in range(batches):
            sums, _ = self._eval_step(self.state.variables, self._resident[number % len(self._resident)])
            total = sums if total is None else metrics.add(total, sums)
        metrics.summarize(jax.device_get(total))

    def predict(self, batches: int) -> None:
        """Brings the probabilities of batches to the host."""
        for number in range(batches):
            _, probs = self._eval_step(self.state.variables, self._resident[number % len(self._resident)])
            np.asarray(probs)

    def describe(self) -> dict:
        """Returns the temporary memory of the compiled step, its work, and what the features took once."""
        step = self._jit(self._train_step(), donate_argnums=0)
        needs = step.lower(self.state, self._resident[0]).compile().memory_analysis()
        return {
            "temporary_MiB": needs.temp_size_in_bytes / 2**20 if needs else None,
            "step_flops": step_flops(self._spec),
            "features_seconds": self._features_seconds,
        }


def step_flops(spec, kind: str = "train") -> float:
    """Returns the floating-point operations of a step of 'train' or 'evaluate', as XLA counts them before it optimizes.

    They are those of XLA's own convolutions, whichever way they are then computed. Plugins for accelerators do not
    count, so there a process on the CPU does.
    """
    if jax.default_backend() != "cpu":
        counted = subprocess.run(
            [sys.executable, __file__, kind],
            input=json.dumps(spec),
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return float(counted.stdout)
    config = config_lib.from_dict(spec["config"])
    (phase,) = phases.make(config, spec["classes"], image_shape=facts.IMAGE_SHAPE, steps_per_epoch=1)
    shape = (spec["batch"],)
    batch = {
        "image": jax.ShapeDtypeStruct((*shape, *facts.IMAGE_SHAPE), np.uint8),
        "label": jax.ShapeDtypeStruct(shape, np.int32),
        "mask": jax.ShapeDtypeStruct(shape, np.float32),
    }
    if kind == "train":
        step = steps.make_train_step(
            phase.model, phase.tx, classes=spec["classes"], key=jax.random.key(0), frozen=phase.frozen
        )
    else:
        step = steps.make_eval_step(phase.model, classes=spec["classes"])
    given = phase.abstract if kind == "train" else phase.abstract.variables
    with mock.patch.dict(os.environ, {ops.SWITCH: "off"}):
        return jax.jit(step).lower(given, batch).cost_analysis()["flops"]


if __name__ == "__main__":
    print(step_flops(json.load(sys.stdin), sys.argv[1]))
