"""Predicts faces without labels: python -m fer_jax.predict --workdir runs/x --format kaggle --data_path test.csv.

`kaggle` reads the challenge's test.csv (a column `pixels`) and writes its submission: the header `emotion` and, for
each row in its order, the number of the predicted class. `csv` adds a column with the class name and one a class with
its probability. The workdir is that of a run, or the folder of an ensemble, whose members and weights then predict.
"""

import argparse
import pathlib

from fer_jax import command, wording
from fer_jax.errors import InputError

FORMATS = ("kaggle", "csv")


def _parse(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m fer_jax.predict", description="Predicts the emotions of faces without labels, and writes them."
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a run, or --out of fer_jax.ensemble")
    parser.add_argument("--data_path", required=True, metavar="FILE", help="test.csv of the challenge, column `pixels`")
    parser.add_argument("--format", choices=FORMATS, default="kaggle", help="default: %(default)s")
    parser.add_argument("--out", metavar="FILE", help="default: submission.csv or predictions.csv in the workdir")
    parser.add_argument(
        "--checkpoint", choices=("best", "latest"), help="default: best, or those that an ensemble was scored with"
    )
    return parser.parse_args(argv)


def predict(workdir, data_path, out, *, format="kaggle", checkpoint=None) -> list[int]:
    """Writes the predictions of the faces in a table to the file `out`; returns the number of faces of each class.

    workdir: of a run, or the folder of an ensemble. checkpoint: None: the best, or those of the ensemble's record.

    Raises:
      InputError: no such run, table or format, a broken row, a file that cannot be written; a model of other faces
        than 48x48 grey ones; for `kaggle` a model of other classes than the challenge's seven; for an ensemble members
        that were trained on since it was scored.
    """
    import numpy as np

    from fer_jax import members
    from fer_jax import workdir as workdir_lib
    from fer_jax.datasets import Faces, facts, tables

    if format not in FORMATS:
        raise InputError(f"the format is '{format}'; known are {', '.join(FORMATS)}")
    out = pathlib.Path(out)
    workdir_lib.check_folder(out.parent, option="--out")
    if out.is_dir():
        raise InputError(f"{out} is a folder: give --out a file")
    images = tables.read_pixels(data_path)
    models, shares, record = members.load_any(workdir, checkpoint)
    if models[0].image_shape != images.shape[1:]:
        size, _, channels = models[0].image_shape
        raise InputError(
            f"{data_path} holds 48x48 grey faces, and {workdir} was trained on faces with data.size_px {size} and "
            f"data.channels {channels}: a table needs a model of 48x48 grey faces"
        )
    classes = models[0].classes
    names = facts.CLASSES if format == "kaggle" else classes
    if set(names) != set(classes):
        raise InputError(
            f"{workdir} knows {', '.join(classes)}; the challenge's classes are {', '.join(names)}: train on all "
            "seven, or write --format csv"
        )
    faces = Faces(images, np.zeros(len(images), np.int32))
    probs = members.predict(models, faces, record.get("views", "none"))
    probs = np.tensordot(shares, probs, axes=1)[:, [classes.index(name) for name in names]]
    _write(out, probs, names, format)
    return np.bincount(probs.argmax(axis=1), minlength=len(names)).tolist()


def _write(out, probs, names, format):
    import csv

    from fer_jax import files

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


def _main():
    flags = _parse()
    command.begin()
    from fer_jax import inference, members

    record = members.read_record(flags.workdir)
    config = inference.read_config(record["members"][0]["workdir"] if record else flags.workdir)
    command.keep_compiled(config)
    name = "submission.csv" if flags.format == "kaggle" else "predictions.csv"
    out = flags.out or pathlib.Path(flags.workdir) / name
    counts = predict(flags.workdir, flags.data_path, out, format=flags.format, checkpoint=flags.checkpoint)
    print(f"{wording.count(sum(counts), 'face')}; by predicted class: {', '.join(map(str, counts))}")
    print(f"predictions: {out}")


if __name__ == "__main__":
    command.run(_main)
