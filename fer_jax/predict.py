"""Predicts faces without labels: python -m fer_jax.predict --workdir runs/x --format kaggle --data_path test.csv.

`kaggle` reads the challenge's test.csv (a column `pixels`) and writes its submission: the header `emotion` and, for
each row in its order, the number of the predicted class. `csv` adds a column with the class name and one a class with
its probability.
"""

import argparse
import pathlib

from fer_jax import command, programs, startup
from fer_jax.errors import InputError

FORMATS = ("kaggle", "csv")


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.predict", description="Predicts the emotions of faces without labels, and writes them."
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--data_path", required=True, metavar="FILE", help="test.csv of the challenge, column `pixels`")
    parser.add_argument("--format", choices=FORMATS, default="kaggle", help="default: %(default)s")
    parser.add_argument("--out", metavar="FILE", help="default: submission.csv or predictions.csv in the workdir")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    return parser.parse_args(argv)


def predict(workdir, data_path, out, *, format="kaggle", checkpoint="best") -> list[int]:
    """Writes the predictions of the faces in a table to the file `out`; returns the number of faces of each class.

    Raises:
      InputError: no such run, table or format, a broken row, a file that cannot be written; and for `kaggle` a model
        of other classes than the challenge's seven.
    """
    import numpy as np

    from fer_jax import records, trained
    from fer_jax.datasets import Faces, facts, tables

    if format not in FORMATS:
        raise InputError(f"the format is '{format}'; known are {', '.join(FORMATS)}")
    out = pathlib.Path(out)
    records.check_folder(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder: give --out a file")
    images = tables.read_pixels(data_path)
    model = trained.load(workdir, checkpoint)
    names = facts.CLASSES if format == "kaggle" else model.classes
    if set(names) != set(model.classes):
        raise InputError(
            f"{workdir} knows {', '.join(model.classes)}; the challenge's classes are {', '.join(names)}: train on all "
            "seven, or write --format csv"
        )
    _, probs = trained.predict(model, Faces(images, np.zeros(len(images), np.int32)))
    probs = np.asarray(probs)[:, [model.classes.index(name) for name in names]]
    _write(out, probs, names, format)
    return np.bincount(probs.argmax(axis=1), minlength=len(names)).tolist()


def _write(out, probs, names, format):
    import csv
    import os

    numbers = probs.argmax(axis=1).tolist()
    header, rows = ["emotion"], [[number] for number in numbers]
    if format == "csv":
        header += ["name", *names]
        rows = [[number, names[number], *(f"{p:.6f}" for p in row)] for number, row in zip(numbers, probs, strict=True)]
    beside = out.with_name(out.name + ".tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
        os.replace(beside, out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error}): give another --out") from error


def _main():
    flags = _parse()
    command.start_logging()
    startup.collect_rarely()
    from fer_jax import trained

    config = trained.read_config(flags.workdir)
    if config.train.keep_compiled:
        programs.keep_compiled(config.data.cache_dir)
    name = "submission.csv" if flags.format == "kaggle" else "predictions.csv"
    out = flags.out or pathlib.Path(flags.workdir) / name
    counts = predict(flags.workdir, flags.data_path, out, format=flags.format, checkpoint=flags.checkpoint)
    print(f"{sum(counts):,} faces; by predicted class: {', '.join(map(str, counts))}")
    print(f"predictions: {out}")


if __name__ == "__main__":
    command.run(_main)
