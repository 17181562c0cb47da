"""What does `train.rematerialize` save, and what does it cost?

python benchmarks/memory/run.py

Trains a few steps of each network with each choice, in separate processes, on random faces, and records the temporary
memory of the step's program, the growth of the process's peak resident set since before the first step, and the median
seconds of a step. Writes results.json and table.md next to this file, or to --out.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import command, freezing, losses, ops, steps
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts
from fer_jax.runtime import remat

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"
CLASSES, TRIALS, MIB = 7, 4, 2**20
CHOICES = ("none", "activations", "segments")
# name -> config, changed fields
NETWORKS = {
    "R1 model 2, 128 faces": ("cnn.py:model_2", {"train.batch_size": 128}),
    "VGG10-BN, 128 faces": ("vgg10_bn.py", {"train.batch_size": 128}),
    "EfficientNetB0 at 96 px, 32 faces": (
        "efficientnet.py:r1",
        {"model.size_px": 96, "model.head": "global_avg_pool, dropout 0.5", "optim.freeze": (), "train.batch_size": 32},
    ),
    "ResNet50 at 96 px, 32 faces": ("resnet50.py:r2", {"optim.freeze_first_layers": 0, "train.batch_size": 32}),
    "VGG16 at 96 px, 32 faces": ("vgg16.py:r2", {"optim.freeze": (), "train.batch_size": 32}),
}


def get_config(network: str):
    """Returns the config of a network, with random weights."""
    name, fields = NETWORKS[network]
    config = config_lib.load(CONFIGS / name)
    config.update_from_flattened_dict({"model.weights": "", **fields})
    return config


def measure(network: str, choice: str) -> dict:
    """Trains a few steps in this process; returns MiB, seconds and the last loss."""
    config = get_config(network)
    config.train.rematerialize = choice
    (phase,) = freezing.make_phases(config, CLASSES, image_shape=facts.IMAGE_SHAPE, steps_per_epoch=100)
    size, rng = config.train.batch_size, np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (size, *facts.IMAGE_SHAPE)), jnp.uint8),
        "label": jnp.asarray(rng.integers(0, CLASSES, size), jnp.int32),
        "mask": jnp.ones(size),
    }
    state = jax.jit(lambda: steps.init_state(phase, jax.random.key(0)))()
    objective = losses.make_objective(config.loss, (1,) * CLASSES)
    step = steps.make_train_step(phase, objective, key=jax.random.key(1))
    compiled = ops.jit(step, donate_argnums=0, options=remat.compiler_options(choice)).lower(state, batch).compile()
    before, stepper = remat.peak_mib(), timing.Stepper(compiled, state, batch)
    seconds = timing.seconds_in_turn({"step": stepper}, TRIALS)["step"]
    after = remat.peak_mib()
    return {
        "temporaries_MiB": compiled.memory_analysis().temp_size_in_bytes / MIB,
        "peak_growth_MiB": None if after is None else after - before,
        "step_seconds": statistics.median(seconds),
        "loss": float(stepper.sums["loss"] / stepper.sums["count"]),
    }


def table(rows: dict) -> str:
    """Returns the rows as Markdown; shares are relative to `none`."""
    lines = ["| network | choice | temporary MiB | share | peak growth MiB | step, s | share |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for network, by_choice in rows.items():
        usual = by_choice["none"]
        for choice, row in by_choice.items():
            shares = [row[name] / usual[name] for name in ("temporaries_MiB", "step_seconds")]
            lines.append(
                f"| {network} | {choice} | {row['temporaries_MiB']:,.0f} | {shares[0]:.2f} | "
                f"{row['peak_growth_MiB']:,.0f} | {row['step_seconds']:.3f} | {shares[1]:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main():
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--network", action="append", choices=NETWORKS, help="default: all; may be repeated")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="default: %(default)s")
    options, rows = parser.parse_args(), {}
    for network in options.network or NETWORKS:
        for choice in CHOICES:
            ran = subprocess.run(
                [sys.executable, __file__, "--measure", network, choice],
                env={**os.environ, "GLIBC_TUNABLES": f"{command.HUGE_PAGES}=1"},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            rows.setdefault(network, {})[choice] = json.loads(ran.stdout.splitlines()[-1])
            print(network, choice, rows[network][choice], flush=True)
    workdir_lib.write_json(options.out / "results.json", {**workdir_lib.facts(), "trials": TRIALS, "rows": rows})
    (options.out / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main()
