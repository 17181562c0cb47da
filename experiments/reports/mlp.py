"""R3's baseline as R3 ran it: scikit-learn's MLPClassifier with 128 and 64 hidden units, on grey values of 0 to 1.

python experiments/reports/mlp.py --data_path <folder with fer2013.csv> --workdir runs/mlp

Writes evaluation-<split>.json, .md, .html and .npz as `fer_jax.evaluate` does, for validation and test, with two mean
squared errors: `mean_squared_error` of the probabilities, and `mean_squared_error_hard` of the predicted classes in
one-hot form, which is what R3's 0.1439 can be: of probabilities it would be worse than that of a guess by class sizes.
"""

import argparse
import pathlib
import time
import warnings

import numpy as np

from fer_jax import command, datasets, scoring
from fer_jax import config as config_lib

HIDDEN = (128, 64)


def hard_mean_squared_error(labels, predicted, classes: int) -> float:
    """Returns the mean squared error of one-hot predictions [N, K] against one-hot labels."""
    return float(np.square(np.eye(classes)[predicted] - np.eye(classes)[labels]).mean())


def fit(faces, seed: int, epochs: int):
    """Returns the classifier, trained on the faces of a split."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(HIDDEN, activation="relu", solver="adam", max_iter=epochs, random_state=seed, verbose=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is recorded
        return model.fit(_values(faces), faces.labels)


def _values(faces):
    return faces.images.reshape(len(faces), -1).astype(np.float32) / 255


def main():
    """Trains and writes the scores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", required=True, help="as data.path")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=200, help="at most; default: %(default)s, scikit-learn's")
    parser.add_argument("--train_faces", type=int, default=0, help="as data.train_faces; default: all")
    options = parser.parse_args()
    config = config_lib.get_default()
    config.data.update({"path": options.data_path, "split": "random", "train_faces": options.train_faces})
    data = datasets.load(config.data)
    started = time.perf_counter()
    model = fit(data.train, options.seed, options.epochs)
    seconds = time.perf_counter() - started
    options.workdir.mkdir(parents=True, exist_ok=True)
    judged = scoring.Judged(data, {split: data.split(split) for split in datasets.facts.SPLITS}, data.classes)
    for split in ("validation", "test"):
        faces = data.split(split)
        probs = np.zeros((len(faces), len(data.classes)))
        probs[:, model.classes_] = model.predict_proba(_values(faces))
        facts_of_run = {
            "mean_squared_error_hard": hard_mean_squared_error(faces.labels, probs.argmax(1), len(data.classes)),
            "epoch": model.n_iter_,
            "parameters": sum(part.size for part in (*model.coefs_, *model.intercepts_)),
            "seconds_of_training": seconds,
            "seed": options.seed,
            "workdir": str(options.workdir),
            "config": config_lib.to_dict(config),
        }
        found = scoring.write(scoring.target(options.workdir, split), judged, split, probs, facts_of_run)
        print(f"{split}: accuracy {found['accuracy']:.4f}, mean squared error {found['mean_squared_error']:.4f}")


if __name__ == "__main__":
    command.run(main)
