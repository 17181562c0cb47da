"""How fast does the head of a frozen VGG16 train on cached features, compared with Keras without a cache?

python benchmarks/speed/cached_features.py --data_path <folder with fer2013.csv>

Ours trains on the features, as with `train.cache_features`; Keras fits the model with the frozen backbone in it. The
one-off cost of the features is recorded too. Writes cached_features.json next to this file.
"""

import argparse
import contextlib
import functools
import pathlib
import statistics
import sys
import tempfile

import processes
import rows as rows_lib
import run
import summary

from fer_jax import command, datasets
from fer_jax import config as config_lib
from fer_jax import workdir as workdir_lib

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import timing

HERE = pathlib.Path(__file__).resolve().parent
ROW = "vgg16_frozen_96"


def measure(spec, faces, options):
    """Returns (facts of the workers, rounds of training)."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        build = {"spec": spec, "data": run.write_data(faces, spec["batch"], folder)}
        crews = {}
        for framework, choices in (
            ("fer_jax", ({"cache_dir": folder},)),
            ("keras", processes.CHOICES["cpu"]["keras"]),
        ):
            crew = processes.Crew(framework, build, choices=choices, seconds=options.seconds, kinds=("train",))
            crews[framework] = stack.enter_context(crew)
        run.same_counts({framework: crew.parameters for framework, crew in crews.items()})
        works = {framework: functools.partial(crew.work, "train", options.seconds) for framework, crew in crews.items()}
        rounds = []
        for done in timing.take_turns(works, options.rounds):
            rounds.append(done)
            run.say(f"round {len(rounds)} of {options.rounds}: {summary.ratio(rounds)['median']:,.1f}")
        return {framework: crew.finish() for framework, crew in crews.items()}, rounds


def main():
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", default="", help="as data.path; default: drawn faces")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8.0, help="of training in a round (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "cached_features.json", help="default: %(default)s")
    options = parser.parse_args()
    config = config_lib.get_default()
    config.data.path = options.data_path
    data = datasets.load(config.data)
    spec = rows_lib.describe(rows_lib.get_config(rows_lib.ROWS[ROW]))
    workers, rounds = measure(spec, data.train, options)
    computed = run.DATA_BATCHES * spec["batch"]
    seconds = summary.trainer(workers["fer_jax"])["features_seconds"]
    found = {
        **workdir_lib.facts(),
        "setting": {"row": ROW, "rounds": options.rounds, "seconds": options.seconds, "seed": 0},
        "data_fingerprint": data.fingerprint,
        "images_per_second": summary.rates(rounds),
        "ratio": summary.ratio(rounds),
        "features": {
            "faces": computed,
            "seconds": seconds,
            "seconds_for_train_split": seconds / computed * len(data.train),
            "keras_epoch_seconds": len(data.train)
            / statistics.median(timing.images_per_second(one["keras"]) for one in rounds),
        },
        "rounds": rounds,
        "workers": workers,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    workdir_lib.write_json(options.out, found)
    print({name: found[name] for name in ("images_per_second", "features")}, f"{found['ratio']['median']:,.1f} times")


if __name__ == "__main__":
    command.run(main)
