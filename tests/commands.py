"""Runs the project's commands as a user does, on small networks and few drawn faces."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS_PER_EPOCH = 11  # ceil(700 faces / 64)
SMALL = (
    "--config=configs/cnn.py:model_2",
    "--config.model.layers=conv 8 relu, batch_norm, max_pool, dropout 0.1, conv 8 relu, avg_pool, flatten, dense 9",
    "--config.model.scaling=unit",
    "--config.data.drawn_size=tiny",
    "--config.train.batch_size=64",
    "--config.log.every_steps=2",
)


def environment():
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def command(module, *flags):
    return [sys.executable, "-m", f"fer_jax.{module}", *map(str, flags)]


def run(module, *flags, cwd=ROOT):
    """Runs a command to its end; returns the subprocess's result with both outputs as text."""
    return subprocess.run(
        command(module, *flags), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )


def start(module, *flags, stderr=subprocess.DEVNULL):
    """Starts a command and returns its process; what it says on stderr is text."""
    return subprocess.Popen(command(module, *flags), cwd=ROOT, env=environment(), stderr=stderr, text=True)
