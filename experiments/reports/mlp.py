"""R3's baseline as run by R3: scikit-learn's MLPClassifier with 128 and 64 hidden units, on grey values of 0 to 1.

python experiments/reports/mlp.py --data_path <folder with fer2013.csv> --workdir runs/mlp

Writes evaluation-<split>.json, .md, .html and .npz like `fer_jax.evaluate`, for validation and, if the run is not
shortened, test, with two mean squared errors: `mean_squared_error` of the probabilities, and `mean_squared_error_hard`
of the decisions, 0 or 1 for each class. R3 does not say which of them its 0.1439 is. With `--targets one_hot`, labels
of 0 or 1 for each class, scikit-learn decides each class separately, and always deciding 0 gives 1/7 = 0.1429.
"""

import argparse
import pathlib
import time
import warnings

import numpy as np

from fer_jax import command, datasets, scoring
from fer_jax import config as config_lib

HIDDEN = (128, 64)
EPOCHS = 200  # scikit-learn's default


def hard_mean_squared_error(labels, decided) -> float:
    """Returns the mean squared error of decisions [N, K], 0 or 1 for each class, against labels [N]."""
    return float(np.square(decided - np.eye(decided.shape[1])[labels]).mean())


def decide(model, images, classes: int):
    """Returns (probabilities [N, K] that sum to 1, decisions [N, K]) of a classifier with either kind of targets."""
    probs, decided = np.zeros((2, len(images), classes))
    probs[:, model.classes_] = model.predict_proba(images).clip(np.finfo(np.float32).tiny)
    found = model.predict(images)
    decided[:] = found if found.ndim > 1 else np.eye(classes)[found]
    return probs / probs.sum(axis=1, keepdims=True), decided


def fit(faces, targets, seed: int, epochs: int):
    """Returns the classifier, trained on the faces of a split; targets [N] or [N, K]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(HIDDEN, activation="relu", solver="adam", max_iter=epochs, random_state=seed, verbose=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is recorded
        return model.fit(_values(faces), targets)


def _values(faces):
    return faces.images.reshape(len(faces), -1).astype(np.float32) / 255


def main():
    """Trains and writes the scores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data_path", required=True, help="as data.path")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--targets", choices=("classes", "one_hot"), default="classes", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at most; default: %(default)s")
    parser.add_argument("--train_faces", type=int, default=0, help="as data.train_faces; default: all")
    options = parser.parse_args()
    config = config_lib.get_default()
    config.data.update({"path": options.data_path, "split": "random", "train_faces": options.train_faces})
    data = datasets.load(config.data)
    started = time.perf_counter()
    targets, classes = data.train.labels, len(data.classes)
    targets = np.eye(classes)[targets] if options.targets == "one_hot" else targets
    model = fit(data.train, targets, options.seed, options.epochs)
    seconds = time.perf_counter() - started
    options.workdir.mkdir(parents=True, exist_ok=True)
    eval_data = scoring.EvalData(data, {split: data.split(split) for split in datasets.facts.SPLITS}, data.classes)
    whole = options.epochs == EPOCHS and not options.train_faces
    for split in ("validation", "test") if whole else ("validation",):
        faces = data.split(split)
        probs, decided = decide(model, _values(faces), classes)
        facts_of_run = {
            "mean_squared_error_hard": hard_mean_squared_error(faces.labels, decided),
            "epoch": model.n_iter_,
            "parameters": sum(part.size for part in (*model.coefs_, *model.intercepts_)),
            "seconds_of_training": seconds,
            "seed": options.seed,
            "workdir": str(options.workdir),
            "config": config_lib.to_dict(config),
        }
        found = scoring.write(scoring.target(options.workdir, split), eval_data, split, probs, facts_of_run)
        print(f"{split}: accuracy {found['accuracy']:.4f}, mean squared error {found['mean_squared_error']:.4f}")


if __name__ == "__main__":
    command.run(main)
