"""How much faster does a head train on cached features, and is the result the same?

pip install 'fer-jax[pretrained]'
python benchmarks/frozen_features/run.py --data_path <folder with fer2013.csv>

Trains the head of a frozen backbone with `train.cache_features` on and off, under runs/frozen_features/, and writes
results.json next to this file.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np

from fer_jax import workdir as workdir_lib

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
HEAD = "--config.model.head=global_avg_pool, dense 128 relu, dropout 0.5"
SYSTEMS = {
    "EfficientNet-Lite0 at 96 px, ImageNet weights": ("--config.model.weights=imagenet", "--config.model.size_px=96"),
    "VGG16 at 48 px, random weights": ("--config.model.name=vgg16", "--config.model.size_px=48"),
}
PATHS = {"plain": "False", "cached": "True"}


def run(flags, workdir, options, cache):
    """Trains, and returns speed, time and scores."""
    shutil.rmtree(workdir, ignore_errors=True)
    words = [
        *("--config", "configs/transfer.py:scratch", *flags, HEAD, "--config.optim.freeze=('backbone',)"),
        f"--config.data.path={options.data_path}",
        f"--config.data.train_faces={options.train_faces}",
        f"--config.data.cache_dir={pathlib.Path(options.runs).resolve() / 'cache'}",
        f"--config.train.epochs={options.epochs}",
        f"--config.train.cache_features={cache}",
        f"--workdir={workdir}",
    ]
    _, seconds = timing.seconds(subprocess.run, [sys.executable, "-m", "fer_jax.main", *words], check=True)
    history = workdir_lib.read_history(workdir)
    run = json.loads((pathlib.Path(workdir) / "run.json").read_text())
    return {
        # The first epoch includes compilation.
        "images_per_second": float(np.median([epoch["images_per_second"] for epoch in history[1:]])),
        "seconds_in_all": seconds,
        "epoch_seconds": [epoch["seconds"] for epoch in history],
        **{name: history[-1][name] for name in ("train_loss", "validation_loss", "validation_accuracy")},
        **{name: run[name] for name in ("commit", "device", "time", "data_fingerprint", "command")},
    }


def main():
    """Trains each system with and without cached features, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", required=True)
    parser.add_argument("--train_faces", type=int, default=2048, help="default: %(default)s; 0: all")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--runs", default="runs/frozen_features", help="default: %(default)s")
    options = parser.parse_args()
    rows = []
    for number, (name, flags) in enumerate(SYSTEMS.items()):
        shutil.rmtree(pathlib.Path(options.runs) / "cache" / "features", ignore_errors=True)
        row = {path: run(flags, f"{options.runs}/{number}-{path}", options, on) for path, on in PATHS.items()}
        ratio = row["cached"]["images_per_second"] / row["plain"]["images_per_second"]
        rows.append({"system": name, "seed": 0, "images_per_second_ratio": ratio, **row})
        settings = {"train_faces": options.train_faces, "epochs": options.epochs}
        workdir_lib.write_json(HERE / "results.json", {"settings": settings, "rows": rows})
    for row in rows:
        print(row["system"], {path: row[path]["images_per_second"] for path in PATHS}, row["images_per_second_ratio"])


if __name__ == "__main__":
    main()
