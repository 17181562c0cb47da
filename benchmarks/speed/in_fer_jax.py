"""A row in fer_jax, built from the same parts as `fer_jax.train` and `fer_jax.evaluate`."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import jax
import numpy as np

from fer_jax import augment, feature_cache, feeders, freezing, losses, metrics, ops, steps
from fer_jax import config as config_lib
from fer_jax import params as params_lib
from fer_jax.datasets import faces, facts
from fer_jax.feeders import sampler
from fer_jax.runtime import dispatch, remat

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing


def versions() -> dict:
    """Returns the versions of the libraries."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}


class System:
    """The state, the resident feeder's train step and the eval step of a row.

    feeder: of input.FEEDERS; cache_dir: where to cache the features of a frozen backbone, to train on them; '': none.
    """

    def __init__(self, spec, images, labels, *, feeder="resident", cache_dir=""):
        config = config_lib.from_dict(spec["config"])
        self._every = config.log.every_steps
        self._shardings = steps.make_shardings()
        self._keys = dict(zip(("init", "order", "dropout"), jax.random.split(jax.random.key(0), 3), strict=True))
        self._classes, self._batch = spec["classes"], spec["batch"]
        shape, count = images.shape[1:], len(labels) // self._batch
        (phase,) = freezing.make_phases(config, self._classes, image_shape=shape, steps_per_epoch=count)
        self.phase = phase
        init = jax.jit(lambda: steps.init_state(phase, self._keys["init"]), out_shardings=self._shardings[1])
        self.state = jax.block_until_ready(init())
        self._spec, self._faces, self._forward, self._step = spec, faces.Faces(images, labels), None, 0
        self._features_seconds = None
        if cache_dir:
            self._cache_features(cache_dir)
        self._connect(feeder)

    def _cache_features(self, cache_dir):
        self._forward = feature_cache.FORWARD
        self._faces, self._features_seconds = timing.seconds(
            feature_cache.cached,
            self.phase.model,
            self.state.variables,
            self._faces,
            batch_size=self._batch,
            shardings=self._shardings,
            cache_dir=cache_dir,
        )

    def _connect(self, feeder):
        plan = sampler.Sampler(
            self._faces.labels, classes=self._classes, batch_size=self._batch, key=self._keys["order"]
        )
        _ = plan.indices(0, self._every)[0]  # compiled before anything is timed
        self._feeder = feeders.make(
            feeder,
            faces=self._faces,
            sampler=plan,
            policy=augment.Policy(),
            key=self._keys["dropout"],
            shardings=self._shardings,
            log_every_steps=self._every,
        )
        config = self.phase.config
        objective = losses.make_objective(config.loss, (1,) * self._classes)
        train_step = steps.make_train_step(self.phase, objective, key=self._keys["dropout"], forward=self._forward)
        options = remat.compiler_options(remat.choose(config))
        self._train_steps = dispatch.jit_steps(
            train_step, self._feeder, shardings=(self._shardings[1],) * 2, options=options
        )
        self._eval_step = ops.jit(steps.make_eval_step(self.phase.model, classes=self._classes, forward=self._forward))
        self._resident = list(feeders.padded_batches(self._faces, self._batch, self._shardings[0]))

    def parameters(self) -> dict:
        """Returns the numbers of parameters, statistics included, and of trained ones."""
        trained = params_lib.count(params_lib.split(self.state.params, self.phase.frozen)[0])
        return {"total": params_lib.count(self.state.variables), "trained": trained}

    def train(self, batches: int) -> None:
        """Runs steps, and fetches their sums as in training: while the next step runs."""
        whole, rest = divmod(batches, self._every)
        pending = {}
        for count in [self._every] * whole + [1] * rest:  # other counts would recompile the sampler
            for chunk in self._feeder.chunks(self._step, self._step + count):
                self.state, sums = self._train_steps(self.state, {"feeder": self._feeder.arrays}, chunk)
                _, pending = jax.device_get(pending), sums
            self._step += count
        jax.block_until_ready((self.state, pending))

    def evaluate(self, batches: int) -> None:
        """Evaluates batches that are on the device; fetches the sums."""
        total = None
        for number in range(batches):
            sums, _ = self._eval_step(self.state.variables, self._resident[number % len(self._resident)])
            total = sums if total is None else metrics.add(total, sums)
        metrics.summarize(jax.device_get(total))

    def predict(self, batches: int) -> None:
        """Predicts batches and copies the probabilities to the host."""
        for number in range(batches):
            _, probs = self._eval_step(self.state.variables, self._resident[number % len(self._resident)])
            np.asarray(probs)

    def describe(self) -> dict:
        """Returns the temporary memory of the compiled step, its operations, and the one-off time of the features.

        Call it after `train`, which compiles the step.
        """
        needs = self._train_steps.program.memory_analysis()
        return {
            "temporary_MiB": needs.temp_size_in_bytes / 2**20 if needs else None,
            "step_flops": step_flops(self._spec),
            "features_seconds": self._features_seconds,
        }


def step_flops(spec, kind: str = "train") -> float:
    """Returns the floating-point operations of a step of 'train' or 'evaluate', as XLA counts them before optimization.

    They are those of XLA's own convolutions, however they are computed later. Plugins for accelerators do not count
    operations, so there a process on the CPU does.
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
    (phase,) = freezing.make_phases(config, spec["classes"], image_shape=facts.IMAGE_SHAPE, steps_per_epoch=1)
    shape = (spec["batch"],)
    batch = {
        "image": jax.ShapeDtypeStruct((*shape, *facts.IMAGE_SHAPE), np.uint8),
        "label": jax.ShapeDtypeStruct(shape, np.int32),
        "mask": jax.ShapeDtypeStruct(shape, np.float32),
    }
    if kind == "train":
        objective = losses.make_objective(config.loss, (1,) * spec["classes"])
        step = steps.make_train_step(phase, objective, key=jax.random.key(0))
    else:
        step = steps.make_eval_step(phase.model, classes=spec["classes"])
    given = phase.abstract if kind == "train" else phase.abstract.variables
    with mock.patch.dict(os.environ, {ops.SWITCH: "off"}):
        return jax.jit(step).lower(given, batch).cost_analysis()["flops"]


if __name__ == "__main__":
    print(step_flops(json.load(sys.stdin), sys.argv[1]))
