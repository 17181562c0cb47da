"""How uncertain is an accuracy on 128 faces? R4 scored models on 32 faces of each of its four emotions.

python experiments/reports/few_faces.py --workdir runs/pixel_range/lite --split validation

Draws that many of the faces that a run was scored on, 10,000 times without replacement, and writes the spread of the
accuracies to few_faces.json next to this file.
"""

import argparse
import pathlib

import numpy as np

from fer_jax import command, scoring
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

HERE = pathlib.Path(__file__).resolve().parent
DRAWS = 10_000


def draw(right, labels, per_class: int, seed: int = 0):
    """Returns accuracies [DRAWS], each on `per_class` faces per class; right [N]: whether the model is right."""
    rng, hits = np.random.default_rng(seed), 0
    classes, sizes = np.unique(labels, return_counts=True)
    for number, size in zip(classes, sizes, strict=True):
        good = int(right[labels == number].sum())
        hits = hits + rng.hypergeometric(good, size - good, per_class, size=DRAWS)
    return hits / (per_class * len(classes))


def main():
    """Draws, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of a run that was evaluated")
    parser.add_argument("--split", default="validation", help="default: %(default)s")
    parser.add_argument("--per_class", type=int, default=32, help="faces of each class; default: %(default)s, as R4")
    options = parser.parse_args()
    path = scoring.target(options.workdir, options.split)
    remedy = "run fer_jax.evaluate on this workdir and split"
    scores = workdir_lib.read_json(f"{path}.json", what="evaluation", fix=remedy)
    if not pathlib.Path(f"{path}.npz").exists():
        raise InputError(f"{path}.npz: no predictions here; {remedy}")
    with np.load(f"{path}.npz") as found:
        labels, right = found["labels"], found["probs"].argmax(axis=1) == found["labels"]
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    if not 0 < options.per_class <= fewest:
        raise InputError(f"--per_class is {options.per_class}: give 1 to {fewest}, the faces of the smallest class")
    drawn = draw(right, labels, options.per_class)
    record = {
        "faces": options.per_class * len(np.unique(labels)),
        "draws": DRAWS,
        "accuracy_of_all_faces": float(right.mean()),
        "mean": float(drawn.mean()),
        "std": float(drawn.std()),
        "interval_95": np.quantile(drawn, [0.025, 0.975]).tolist(),
        **{name: scores[name] for name in ("split", "n", "seed", "device", "data_fingerprint")},
        "model": scores["config"]["model"]["name"],
        **workdir_lib.facts(),
    }
    workdir_lib.write_json(HERE / "few_faces.json", record)
    low, high = record["interval_95"]
    print(f"{record['faces']} faces: {record['mean']:.4f}, 95% of draws between {low:.4f} and {high:.4f}")


if __name__ == "__main__":
    command.run(main)
