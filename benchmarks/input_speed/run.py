"""Measures how many augmented images per second the host feeder delivers alone.

python benchmarks/input_speed/run.py
"""

import argparse
import json
import os
import pathlib
import statistics
import sys

import jax

from fer_jax import augment, datasets, feeders, steps
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib
from fer_jax.feeders import sampler

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
WARM_UP_BATCHES = 20
POLICIES = {
    "none": {},
    "flip, rotate, shift, zoom": {"flip_horizontal": 0.5, "rotate_degrees": 15.0, "shift": 0.1, "zoom": 0.2},
    "everything": {
        "flip_horizontal": 0.5,
        "flip_vertical": 0.1,
        "rotate_degrees": 15.0,
        "shift": 0.1,
        "zoom": 0.2,
        "shear_degrees": 10.0,
        "crop_px": 44,
        "brightness": 0.1,
        "contrast": 0.2,
        "erase": 0.5,
    },
}


def measure(faces, classes, policy, batch_size, *, trials, seconds):
    """Returns images/s [trials] of the tf.data pipeline alone."""
    plan = sampler.Sampler(faces.labels, classes=classes, batch_size=batch_size, key=jax.random.key(0))
    feeder = feeders.make(
        "tfdata",
        faces=faces,
        sampler=plan,
        policy=policy,
        key=jax.random.key(1),
        shardings=steps.make_shardings(),
    )
    batches = iter(feeder.dataset())
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    return [batch_size * timing.calls_per_second(batches.__next__, seconds) for _ in range(trials)]


def main():
    """Measures every policy and writes results.json and the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a trial; default: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results.json", help="default: %(default)s")
    options, config = parser.parse_args(), config_lib.get_default()
    data = datasets.load(config.data)
    rows = []
    for name, fields in POLICIES.items():
        config.augment.update({**config_lib.get_default().augment.to_dict(), **fields})
        policy = augment.make(config.augment, data.train.images.shape[1])
        setting = {"trials": options.trials, "seconds": options.seconds}
        rates = measure(data.train, len(data.classes), policy, config.train.batch_size, **setting)
        median = statistics.median(rates)
        rows.append({"augmentation": name, "images_per_second": rates, "median": median})
        print(f"{name:<28}{median:>10,.0f} images/s ({min(rates):,.0f} to {max(rates):,.0f})", flush=True)
    result = {
        **workdir_lib.facts(),
        "load_average": os.getloadavg()[0],
        "batch_size": config.train.batch_size,
        "rows": rows,
    }
    workdir_lib.write_json(options.out, result)
    print(json.dumps({key: result[key] for key in ("commit", "device", "time")}), file=sys.stderr)


if __name__ == "__main__":
    main()
