"""Do the CPU kernels change what is learned?

python benchmarks/cpu_ops/training.py --data_path <folder with fer2013.csv> --config configs/cnn.py:model_2

Trains with FER_JAX_CPU_PATH on and off, from the same seeds, and writes the scores of each epoch, their differences,
and the differences between the gradients of the first batch by layer. Interrupted runs are resumed. Adds the config to
training.json next to this file. Scores are of the validation split.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import config as config_lib
from fer_jax import datasets, freezing, losses, ops, steps
from fer_jax import workdir as workdir_lib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCORES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_macro_f1")


def train(options, seed, cpu_path):
    """Trains one run to its end; returns (workdir, scores of each epoch)."""
    workdir = pathlib.Path(options.runs) / f"{pathlib.Path(options.config.replace(':', '-')).stem}-{seed}-{cpu_path}"
    command = [sys.executable, "-m", "fer_jax.main", "--config", options.config, f"--workdir={workdir}"]
    command += [f"--config.data.path={options.data_path}", f"--config.train.epochs={options.epochs}"]
    command += [f"--config.seed={seed}", "--config.data.feeder=resident"]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {ops.SWITCH: cpu_path})
    return workdir, [{name: epoch[name] for name in SCORES} for epoch in workdir_lib.read_history(workdir)]


def gradient_differences(workdir):
    """Returns {layer: largest difference of its gradients relative to their largest value}, for the first batch."""
    config = config_lib.from_dict(json.loads((workdir / "config.json").read_text()))
    faces = datasets.load(config.data).train
    size = config.train.batch_size
    batch = {
        "image": jnp.asarray(faces.images[:size]),
        "label": jnp.asarray(faces.labels[:size]),
        "mask": jnp.ones(size),
    }

    def gradients(cpu_path):
        os.environ[ops.SWITCH] = cpu_path
        # One step of plain gradient descent at rate 1 subtracts the gradient from the parameters.
        config.optim.update({"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "schedule": "constant"})
        image_shape = faces.images.shape[1:]
        (phase,) = freezing.make_phases(config, len(datasets.facts.CLASSES), image_shape=image_shape, steps_per_epoch=1)
        state = jax.jit(lambda: steps.init_state(phase, jax.random.key(0)))()
        objective = losses.make_objective(config.loss, (1,) * len(datasets.facts.CLASSES))
        step = steps.make_train_step(phase, objective, key=jax.random.key(1))
        after, _ = ops.jit(step)(state, batch)
        return jax.tree.map(lambda old, new: np.asarray(old - new, np.float64), state.params, after.params)

    with_it, without = gradients("on"), gradients("off")
    # By layer: the gradient of a bias before a batch normalization is 0 up to rounding.
    return {layer: _difference(with_it[layer], part) for layer, part in without.items()}


def _difference(ours, theirs):
    largest = max(np.abs(values).max() for values in theirs.values())
    return float(max(np.abs(ours[name] - values).max() for name, values in theirs.items()) / largest)


def main():
    """Trains and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", required=True, help="as data.path")
    parser.add_argument("--config", default="configs/cnn.py:model_2", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--runs", default=str(ROOT / "runs" / "cpu_ops"), help="default: %(default)s")
    options, rows = parser.parse_args(), []
    for seed in options.seeds:
        (workdir, on), (_, off) = (train(options, seed, cpu_path) for cpu_path in ops.CHOICES)
        rows.append({"seed": seed, "with": on, "without": off})
        print(json.dumps({"seed": seed, "with": on[-1], "without": off[-1]}), flush=True)
    last = [[row[which][-1]["validation_accuracy"] for row in rows] for which in ("with", "without")]
    found = {
        **workdir_lib.facts(),
        "epochs": options.epochs,
        "gradient_differences": gradient_differences(workdir),
        "runs": rows,
        "last_validation_accuracy": {"with": last[0], "without": last[1]},
    }
    path = HERE / "training.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    workdir_lib.write_json(path, {**kept, options.config: found})


if __name__ == "__main__":
    main()
