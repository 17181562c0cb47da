"""Predictions for the faces of a table: the challenge's submission, or a CSV file of probabilities."""

import csv
import pathlib

import numpy as np

from fer_jax import files
from fer_jax import recognizer as recognizer_lib
from fer_jax import workdir as workdir_lib
from fer_jax.datasets import facts, tables
from fer_jax.errors import InputError

FORMATS = ("kaggle", "csv")


def predict_table(model, data_path, out, *, format="kaggle", checkpoint=None, views=None) -> list[int]:
    """Writes the predictions for the faces in a table to the file `out`; returns the number of faces of each class.

    model, checkpoint, views: as in `fer_jax.load`.

    Raises:
      InputError: no such model, table or format, an invalid row, or an unwritable file; a model for faces other than
        48x48 grey; for `kaggle`, a model with classes other than the challenge's seven; for an ensemble, members that
        were trained further after it was scored.
    """
    if format not in FORMATS:
        raise InputError(f"the format is '{format}'; known are {', '.join(FORMATS)}")
    out = pathlib.Path(out)
    workdir_lib.check_folder(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder: give a file as --out")
    images = tables.read_pixels(data_path)
    recognizer = recognizer_lib.load(model, checkpoint=checkpoint, views=views)
    if recognizer.image_shape != images.shape[1:]:
        size, _, channels = recognizer.image_shape
        raise InputError(
            f"{data_path} has 48x48 grey faces, but {recognizer.name} was trained on faces with data.size_px {size} "
            f"and data.channels {channels}: a table needs a model for 48x48 grey faces"
        )
    names = classes_of(recognizer, format)
    probs = recognizer.probs(images, progress="predicting")
    probs = probs[:, [recognizer.classes.index(name) for name in names]]
    _write(out, probs, names, format)
    return np.bincount(probs.argmax(axis=1), minlength=len(names)).tolist()


def _write(out, probs, names, format):
    numbers = probs.argmax(axis=1).tolist()
    header, rows = ["emotion"], [[number] for number in numbers]
    if format == "csv":
        header += ["name", *names]
        rows = [[number, names[number], *(f"{p:.6f}" for p in row)] for number, row in zip(numbers, probs, strict=True)]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(out, newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error}): give another --out") from error


def classes_of(recognizer, format):
    """Returns the order of the class columns and numbers: the recognizer's, or the challenge's."""
    if format != "kaggle":
        return recognizer.classes
    if set(recognizer.classes) != set(facts.CLASSES):
        raise InputError(
            f"{recognizer.name} predicts {', '.join(recognizer.classes)}; the challenge's classes are "
            f"{', '.join(facts.CLASSES)}: train on all seven (data.labels=fer2013), or write --format csv"
        )
    return facts.CLASSES
