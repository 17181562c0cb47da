"""Trains a run: python -m fer_jax.main --config configs/cnn.py:model_2 [--config.section.field=value ...].

`--seeds 5` trains it with five seeds, one after another, and prints the spread of their scores.
`python -m fer_jax.main --fields` prints every field of the config, with its default, unit and range.
"""

import logging
import os
import pathlib

from absl import app, flags
from ml_collections import config_flags

from fer_jax import command
from fer_jax import config as config_lib
from fer_jax.errors import InputError
from fer_jax.runtime import processes, timing

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config: NAME or FILE.py, and perhaps :VARIANT.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The folder of the run; by default runs/<config>-<digest of its fields>."
)
_SEEDS = flags.DEFINE_integer(
    "seeds", None, "Train with so many seeds, from config.seed on, each in <workdir>/seed_<n>; print mean and spread."
)
flags.DEFINE_bool("fields", False, "Print every field of the config, with its default, unit and range.")
_MULTI_PROCESS = flags.DEFINE_bool(
    "multi_process", False, "Join the other processes; the cluster's environment tells how, or the next three flags."
)
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", processes.HEARTBEAT_SECONDS, "How long a process may be silent before it counts as lost."
)
_JOIN = flags.DEFINE_integer("join_seconds", processes.JOIN_SECONDS, "How long to wait for the others at the start.")


def _workdir(config) -> str:
    """Names the run by its config file, its variant and its fields, so that the same command finds it again."""
    stem, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    parts = (pathlib.Path(stem).stem, variant, config_lib.digest(config))
    return os.path.join("runs", "-".join(part for part in parts if part))


def _main(argv):
    if len(argv) > 1:
        raise InputError(f"cannot read {' '.join(argv[1:])!r}: flags look like --config.train.epochs=12")
    command.begin()
    if _CONFIG.value is None:
        raise InputError(f"give a config, for instance --config {command.EXAMPLE}")
    if _SEEDS.value is not None and _MULTI_PROCESS.value:
        raise InputError("--seeds runs in one process: leave --multi_process out, or train seed by seed")
    clock = timing.Clock(timing.command_started())
    if _MULTI_PROCESS.value:
        processes.join(
            *(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value),
            heartbeat_seconds=_HEARTBEAT.value,
            join_seconds=_JOIN.value,
        )
    with processes.leaving():
        _train(clock)


def _train(clock):
    from fer_jax import datasets, seeds, train

    clock.mark("imports")
    config = _CONFIG.value
    config.data.name = datasets.resolve_name(config.data)
    workdir = _WORKDIR.value or _workdir(config)
    logging.getLogger("fer_jax").info("run: %s", workdir)
    command.keep_compiled(config)
    if _SEEDS.value is None:
        train.train(config, workdir, clock=clock)
        return
    summary = seeds.train_seeds(config, workdir, _SEEDS.value, clock=clock)
    print(seeds.table(summary))
    print(f"all figures: {os.path.join(workdir, seeds.SUMMARY)}")
    if summary["diverged"]:
        reasons = "\n  ".join(f"seed {seed}: {reason}" for seed, reason in summary["diverged"].items())
        raise InputError(f"{len(summary['diverged'])} of {_SEEDS.value} seeds diverged:\n  {reasons}")


if __name__ == "__main__":
    command.run(lambda: app.run(_main, flags_parser=lambda argv: command.parse_flags(argv, _CONFIG)))
