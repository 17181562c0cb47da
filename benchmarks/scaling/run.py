"""How do the time and the memory of a train step grow, on one machine and, in a model, on many accelerators?

python benchmarks/scaling/run.py

R1's model 2 on random faces, one setting changed at a time (batch, side of the faces, number of faces, feeder), each
point in its own process; then 1 and 2 processes with a core each, by the train command; and the model of many
accelerators (paper.py). Writes results.json, table.md and scaling.png to this folder. The machine should be idle.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile

import numpy as np
import paper

from fer_jax import augment, command, feeders, freezing, losses, steps
from fer_jax import config as config_lib
from fer_jax import params as params_lib
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import faces as faces_lib
from fer_jax.feeders import sampler
from fer_jax.runtime import dispatch

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE.parents[1] / "configs" / "cnn.py"
FER2013 = 28_709  # training faces
BASE = {"batch": 128, "size_px": 48, "faces": FER2013, "feeder": "resident"}
POINTS = [
    *({**BASE, "batch": batch} for batch in (8, 32, 128, 512)),
    *({**BASE, "size_px": side} for side in (24, 96)),
    {**BASE, "faces": 10 * FER2013},
    *({**BASE, "feeder": "tfdata", "faces": count} for count in (FER2013, 10 * FER2013)),
]
# (processes with a core each, faces in a batch over all of them)
PROCESSES = [(1, 64), (2, 64), (2, 128)]
STEPS, TRIALS, CLASSES = 10, 3, 7


def get_config(batch, size_px):
    """Returns R1's model 2 for a batch and a side of faces."""
    config = config_lib.load(f"{CONFIG}:model_2")
    config.train.batch_size, config.model.size_px = batch, size_px
    return config


def measure(*, batch, size_px, faces, feeder) -> dict:
    """Returns the seconds of a step, XLA's planned memory and the process's peak; runs in its own process."""
    import jax

    config, rng = get_config(batch, size_px), np.random.default_rng(0)
    keys, shardings = jax.random.split(jax.random.key(0), 3), steps.make_shardings()
    images = rng.integers(0, 256, (faces, 48, 48, 1), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, faces).astype(np.int32)
    (phase,) = freezing.make_phases(config, CLASSES, image_shape=images.shape[1:], steps_per_epoch=faces // batch)
    state = jax.jit(lambda: steps.init_state(phase, keys[0]), out_shardings=phase.shardings)()
    source = feeders.make(
        feeder,
        faces=faces_lib.Faces(images, labels),
        sampler=sampler.Sampler(labels, classes=CLASSES, batch_size=batch, key=keys[1]),
        policy=augment.Policy(),
        key=keys[1],
        shardings=shardings,
    )
    del images
    objective = losses.make_objective(config.loss, (1,) * CLASSES)
    train_step = steps.make_train_step(phase, objective, key=keys[2])
    train_steps = dispatch.jit_steps(train_step, source, shardings=(phase.shardings, shardings[1]))
    chunks = source.chunks(0, faces // batch)

    def take(count):
        nonlocal state
        done = 0
        while done < count:
            chunk = next(chunks)
            state, sums = train_steps(state, {"feeder": source.arrays}, chunk)
            done += chunk.steps
        jax.block_until_ready((state, sums))

    count = max(STEPS, 640 // batch)
    take(count)
    waited = source.wait_seconds
    seconds = [timing.seconds(take, count)[1] / count for _ in range(TRIALS)]
    plan = train_steps.program.memory_analysis()
    return {
        "step_seconds": timing.spread(seconds),
        "waiting_share": (source.wait_seconds - waited) / (sum(seconds) * count),
        "planned_MiB": plan.temp_size_in_bytes / 2**20,
        "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "parameters": params_lib.count(state.params),
    }


def measure_apart(point) -> dict:
    """Runs `measure` for a point in a separate process; returns the point with the results."""
    ran = subprocess.run(
        [sys.executable, __file__, "--point", json.dumps(point)], stdout=subprocess.PIPE, text=True, check=True
    )
    return point | json.loads(ran.stdout.splitlines()[-1])


def measure_processes(count, batch, folder) -> dict:
    """Trains two epochs of drawn faces in `count` processes, each on a core; returns the speed of the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workdir = folder / f"{count}-{batch}"
    line = [sys.executable, "-m", "fer_jax.main", f"--config={CONFIG}:model_2", f"--workdir={workdir}"]
    line += [f"--config.train.batch_size={batch}", "--config.train.epochs=2", "--config.data.feeder=resident"]
    line += ["--config.data.name=drawn_faces"]
    many = ["--multi_process", f"--coordinator_address=127.0.0.1:{port}", f"--num_processes={count}"]
    processes = [
        subprocess.Popen(
            ["taskset", "-c", str(number), *line, *([*many, f"--process_id={number}"] if count > 1 else [])],
            stdout=subprocess.DEVNULL,
        )
        for number in range(count)
    ]
    if any([process.wait() for process in processes]):
        raise SystemExit(f"{count} processes with a batch of {batch} failed")
    last = workdir_lib.read_history(workdir)[-1]
    return {
        "processes": count,
        "batch": batch,
        "step_seconds": 1 / last["steps_per_second"],
        "images_per_second": last["images_per_second"],
        "peak_MiB_of_process_0": last["peak_memory_mib"],
    }


def table(results) -> str:
    """Returns the results in Markdown."""
    lines = [
        "| batch | side, px | faces | feeder | step, ms | waiting for faces | planned MiB | peak MiB of the process |"
    ]
    lines += ["| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row['batch']} | {row['size_px']} | {row['faces']:,} | {row['feeder']} | "
        f"{1e3 * row['step_seconds']['median']:.0f} | {row['waiting_share']:.1%} | {row['planned_MiB']:,.0f} | "
        f"{row['peak_MiB']:,.0f} |"
        for row in results["points"]
    ]
    lines += ["", "| processes, a core each | batch over all | step, ms | images/s |", "| ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row['processes']} | {row['batch']} | {1e3 * row['step_seconds']:.0f} | {row['images_per_second']:.0f} |"
        for row in results["processes"]
    ]
    return "\n".join([*lines, "", *paper.table(results["paper"])]) + "\n"


def figure(results, path) -> None:
    """Draws the time and memory of a step, and the model of many accelerators."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    shown, axes = pyplot.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    resident = [row for row in results["points"] if row["feeder"] == "resident"]
    for place, (field, label) in zip(
        axes, (("batch", "faces a batch"), ("size_px", "side, px"), ("faces", "faces")), strict=False
    ):
        others = [name for name in BASE if name != field]
        rows = sorted(
            (row for row in resident if all(row[name] == BASE[name] for name in others)), key=lambda row: row[field]
        )
        x = [row[field] for row in rows]
        place.plot(x, [1e3 * row["step_seconds"]["median"] for row in rows], "o-", label="step, ms")
        place.plot(x, [row["peak_MiB"] for row in rows], "s--", label="peak MiB")
        place.set(xscale="log", yscale="log", xlabel=label, xticks=x, xticklabels=x)
        place.minorticks_off()
        place.legend()
    paper.draw(axes[3], results["paper"])
    shown.savefig(path, dpi=120)
    pyplot.close(shown)


def main():
    """Measures and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--point", help="JSON of one point, in this process")
    parser.add_argument("--paper", action="store_true", help="compute only the model of many accelerators again")
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(**json.loads(options.point))))
        return
    command.start_logging()
    os.environ["JAX_PLATFORMS"] = "cpu"
    path = HERE / "results.json"
    if options.paper:
        results = json.loads(path.read_text())
    else:
        results = {**workdir_lib.facts(), "load": round(os.getloadavg()[0], 1), "points": [], "processes": []}
        for point in POINTS:
            results["points"].append(measure_apart(point))
            print(results["points"][-1], flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            for count, batch in PROCESSES:
                results["processes"].append(measure_processes(count, batch, pathlib.Path(temporary)))
                print(results["processes"][-1], flush=True)
                shutil.rmtree(pathlib.Path(temporary) / f"{count}-{batch}")
    results["paper"] = paper.scaling()
    workdir_lib.write_json(path, results)
    (HERE / "table.md").write_text(table(results))
    figure(results, HERE / "scaling.png")


if __name__ == "__main__":
    command.run(main)
