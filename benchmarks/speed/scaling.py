"""Where does the time of a train step stop being proportional to the work?

python benchmarks/speed/scaling.py

Times fer_jax's step with the layers of R1's model 2 against the batch, the size of the faces and the width of the
layers, one changed at a time. Writes scaling.json and scaling.png next to this file.
"""

import argparse
import pathlib
import sys

import in_fer_jax
import numpy as np
import rows as rows_lib

from fer_jax import command
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
BASE = {"batch": 128, "size_px": 48, "width": 1.0}
SWEEPS = {
    "batch": (8, 16, 32, 64, 128, 256, 512),
    "size_px": (24, 48, 96),
    "width": (0.5, 1.0, 2.0),
}
UNITS = {"batch": "faces a batch", "size_px": "side of the faces, px", "width": "times as many filters and units"}
FILTERS, DENSE_UNITS = (32, 64, 128), 256  # of R1's model 2


def describe(*, batch, size_px, width) -> dict:
    """Returns R1's model 2 at another size, as a row for workers."""
    filters = tuple(round(width * n) for n in FILTERS)
    layers = config_lib.load_module(rows_lib.CONFIGS / "cnn.py").layers(
        filters=filters, units=round(width * DENSE_UNITS)
    )
    fields = {"model.layers": layers, "model.size_px": size_px}
    return rows_lib.describe(rows_lib.get_config(rows_lib.Row("cnn.py:model_2", batch, fields)))


def measure(point, *, seconds, trials):
    """Returns the speed of the train step at a point: images/s and GF/s."""
    spec, rng = describe(**point), np.random.default_rng(0)
    count = 2 * point["batch"]
    images = rng.integers(0, 256, (count, 48, 48, 1), dtype=np.uint8)
    labels = rng.integers(0, spec["classes"], count).astype(np.int32)
    batches = timing.Batches(in_fer_jax.System(spec, images, labels), point["batch"])
    measured = [timing.images_per_second(batches.measure("train", seconds)) for _ in range(trials)]
    speeds = timing.spread(measured)
    speed, flops = speeds["median"], in_fer_jax.step_flops(spec) / point["batch"]
    return {
        **point,
        "images_per_second": speed,
        "images_per_second_range": [speeds["min"], speeds["max"]],
        "step_seconds": point["batch"] / speed,
        "image_GF": flops / 1e9,
        "GF_per_second": speed * flops / 1e9,
    }


def figure(sweeps, path):
    """Draws images/s and GF/s against the changed settings."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    shown, all_axes = pyplot.subplots(
        2, len(sweeps), figsize=(12, 6), sharex="col", squeeze=False, layout="constrained"
    )
    for column, (name, points) in enumerate(sweeps.items()):
        for axes, field, label in zip(
            all_axes[:, column], ("images_per_second", "GF_per_second"), ("images/s", "GF/s"), strict=True
        ):
            axes.plot([point[name] for point in points], [point[field] for point in points], "o-")
            axes.set_xscale("log", base=2)
            axes.set_xticks([point[name] for point in points], [f"{point[name]:g}" for point in points])
            axes.set_ylim(0, 1.1 * max(point[field] for point in points))
            axes.set_ylabel(label)
            axes.grid(alpha=0.3)
        all_axes[1, column].set_xlabel(UNITS[name])
    shown.savefig(path, dpi=150)
    pyplot.close(shown)


def main():
    """Measures the sweeps and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of a trial (%(default)s)")
    parser.add_argument("--trials", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--sweeps", type=lambda text: text.split(","), default=list(SWEEPS), help=",".join(SWEEPS))
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "scaling.json", help="default: %(default)s")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sweeps = {}
    for name in options.sweeps:
        sweeps[name] = []
        for value in SWEEPS[name]:
            point = measure({**BASE, name: value}, seconds=options.seconds, trials=options.trials)
            sweeps[name].append(point)
            shown = f"{point['images_per_second']:,.1f} images/s, {point['GF_per_second']:,.1f} GF/s"
            print(f"{name} {value}: {shown}", file=sys.stderr, flush=True)
    setting = {"base": BASE, "seconds": options.seconds, "trials": options.trials, "layers": "configs/cnn.py:model_2"}
    workdir_lib.write_json(options.out, {**workdir_lib.facts(), "setting": setting, "sweeps": sweeps})
    figure(sweeps, options.out.with_suffix(".png"))


if __name__ == "__main__":
    command.run(main)
