"""What does freezing the first 165 layers of ResNet50 save?

python benchmarks/freezing/run.py

Times a train step of batch 32 at 96 px with and without frozen layers, interleaved, reads the memory of the compiled
step, and checks after 50 steps that the frozen layers have not changed. Writes results.json next to this file.
"""

import pathlib
import sys

import jax
import numpy as np

from fer_jax import config as config_lib
from fer_jax import freezing, losses, params, steps
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
BATCH, SIZE_PX, TRIALS, STEPS = 32, 96, 5, 50
HEAD = "global_avg_pool, dense 128, batch_norm, relu, dropout 0.5, dense 64, batch_norm, relu, dropout 0.5"
OPTIMIZERS = {
    "sgd": {"optim.name": "sgd"},
    "adam": {},
    "adam, weight decay": {"optim.weight_decay": 0.01},
}


def plan(first_layers, **fields):
    """Returns the phase of a run with `first_layers` frozen."""
    config = config_lib.get_default()
    config.model.update({"name": "resnet50", "size_px": SIZE_PX, "head": HEAD})
    config.update_from_flattened_dict({"optim.freeze_first_layers": first_layers, **fields})
    return freezing.make_phases(config, 7, image_shape=facts.IMAGE_SHAPE, steps_per_epoch=100)[0]


def batch(rng, count):
    """Draws faces."""
    return {
        "image": rng.integers(0, 256, (count, *facts.IMAGE_SHAPE), dtype=np.uint8),
        "label": rng.integers(0, 7, count).astype(np.int32),
        "mask": np.ones(count, np.float32),
    }


def begin(phase, faces):
    """Returns (state, compiled step)."""
    init = lambda: steps.init_state(phase, jax.random.key(0))  # noqa: E731
    state = jax.jit(init)()
    objective = losses.make_objective(config_lib.get_default().loss, (1,) * 7)
    step = steps.make_train_step(phase, objective, key=jax.random.key(1))
    return state, jax.jit(step, donate_argnums=0).lower(state, faces).compile()


def measure():
    """Returns a row for each of the two networks."""
    faces, phases = batch(np.random.default_rng(0), BATCH), {}
    for name, first in (("unfrozen", 0), ("first 165 layers frozen", 165)):
        phase = plan(first)
        state, step = begin(phase, faces)
        phases[name] = phase, step, timing.Stepper(step, state, faces)
    seconds = timing.seconds_in_turn({name: stepper for name, (*_, stepper) in phases.items()}, TRIALS)
    rows = []
    for name, (phase, step, _) in phases.items():
        memory = step.memory_analysis()
        times = timing.spread(seconds[name])
        free, frozen = params.split(phase.abstract.params, phase.frozen)
        rows.append(
            {
                "system": name,
                "trained": params.count(free),
                "frozen": params.count(frozen),
                "frozen_layers": len(phase.frozen),
                "optimizer_values": params.count(phase.abstract.opt_state),
                "step_seconds": times["median"],
                "step_seconds_range": [times["min"], times["max"]],
                "temporary_MiB": memory.temp_size_in_bytes / 2**20,
                "state_MiB": memory.argument_size_in_bytes / 2**20,
            }
        )
    return rows


def stay(fields):
    """Returns the number of frozen layers, and how many of them are bit-identical after the steps."""
    phase, rng = plan(165, **fields), np.random.default_rng(1)
    state, step = begin(phase, batch(rng, 4))
    before = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    for _ in range(STEPS):
        state, _ = step(state, batch(rng, 4))
    after = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    same = {}
    for tree in ("params", "batch_stats"):
        old, new = params.layers(before[tree]), params.layers(after[tree])
        for path in phase.frozen & old.keys():
            same[path] = same.get(path, True) and all(np.array_equal(old[path][k], new[path][k]) for k in old[path])
    return {"frozen_layers": len(same), "bit_identical": sum(same.values())}


def main():
    """Measures and writes the results."""
    rows = measure()
    for row in rows:
        print(row, flush=True)
    unchanged = {name: stay(fields) for name, fields in OPTIMIZERS.items()}
    print(unchanged)
    setting = {"batch": BATCH, "size_px": SIZE_PX, "trials": TRIALS, "steps": STEPS, "head": HEAD, "seed": 0}
    found = {**workdir_lib.facts(), "setting": setting, "steps": rows, f"after {STEPS} steps": unchanged}
    workdir_lib.write_json(HERE / "results.json", found)


if __name__ == "__main__":
    main()
