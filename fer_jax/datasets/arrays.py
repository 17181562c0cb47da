"""A dataset cached as one file of arrays, for use without TFDS."""

import contextlib
import json
import pathlib
import zipfile

import numpy as np

from fer_jax import files
from fer_jax.datasets import facts, readings
from fer_jax.datasets.faces import Faces
from fer_jax.errors import InputError


def load(path, read):
    """Returns ({split: Faces}, classes, fingerprint, notes) from a file, which is written if missing or corrupt.

    read() returns the dataset as a readings.Reading. Raises InputError if the file cannot be written, and as `read`.
    """
    path = pathlib.Path(path).expanduser()
    with contextlib.suppress(EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile):
        return _open(path)
    reading = read()
    facts_of_set = {
        "classes": list(reading.classes),
        "notes": list(reading.notes),
        "fingerprint": readings.fingerprint(reading.faces, reading.classes),
        "content": readings.fingerprint(reading.faces, reading.classes, votes=True),
    }
    contents = {"facts": json.dumps(facts_of_set)}
    for split, faces in reading.faces.items():
        contents |= {f"{split}/{name}": array for name, array in vars(faces).items() if array is not None}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(path, "wb") as file:
            np.savez(file, **contents)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}); see data.cache_dir.") from error
    return _open(path)


def _open(path):
    """Reads a file that `load` has written. Raises ValueError if its faces have changed since."""
    with path.open("rb") as file, np.load(file) as kept:
        found = json.loads(str(kept["facts"]))
        splits = [split for split in facts.SPLITS if f"{split}/labels" in kept]
        faces = {
            split: Faces(kept[f"{split}/images"], kept[f"{split}/labels"], kept.get(f"{split}/votes"))
            for split in splits
        }
    if readings.fingerprint(faces, found["classes"], votes=True) != found["content"]:
        raise ValueError("these are not the faces that were written")
    return faces, tuple(found["classes"]), found["fingerprint"], tuple(found["notes"])
