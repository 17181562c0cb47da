"""Prepares a TFDS dataset once, and reads it back verified, without TensorFlow."""

import contextlib
import dataclasses
import io
import json
import logging
import pathlib
import sys
import time
import zipfile

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from fer_jax import files
from fer_jax.datasets import facts, readings
from fer_jax.datasets.faces import Faces
from fer_jax.errors import InputError

ARRAYS = "faces.npz"
FIELDS = tuple(field.name for field in dataclasses.fields(Faces))
_LOG = logging.getLogger("fer_jax")


def load(builder_class, cache_dir, *, config):
    """Prepares the dataset if needed; returns ({split: Faces}, classes, fingerprint, notes).

    builder_class: a TFDS builder whose features are those of builders.make_features; config: its
    BuilderConfig; cache_dir: where prepared datasets are kept. One appears
    there only when it is complete. Raises InputError, with the folder to delete, if it is corrupt.
    """
    cache_dir = pathlib.Path(cache_dir).expanduser().absolute()
    folder = cache_dir / builder_class.name / config.name / str(builder_class.VERSION)
    make = {"data_dir": str(cache_dir), "config": config, "file_format": "array_record"}
    if not folder.exists():
        _prepare(builder_class, make, folder)
    try:
        with _quiet():
            builder = builder_class(**make)
        faces = _read_all(builder, folder)
        classes = tuple(builder.info.features["label"].names)
        keeps_metadata = getattr(builder_class, "KEEPS_METADATA", False)
        sealed = dict(builder.info.metadata) if keeps_metadata else _seal(folder, faces, classes)
        is_intact = sealed["content"] == readings.fingerprint(faces, classes, votes=True)
    except Exception as error:
        raise InputError(_corrupt(folder, str(error) or type(error).__name__)) from error
    if not is_intact:
        raise InputError(_corrupt(folder, "its faces are not those that were prepared"))
    return faces, classes, sealed["fingerprint"], tuple(sealed["notes"])


def _corrupt(folder, reason):
    return f"The prepared dataset in {folder} is corrupt ({reason}). Delete this folder to prepare it again."


def _prepare(builder_class, make, folder):
    start = time.monotonic()
    _LOG.info("Preparing %s in %s", builder_class.name, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _quiet():
            builder_class(**make).download_and_prepare()
    except OSError as error:
        # Another process may have finished the same dataset first.
        if not folder.exists():
            raise InputError(f"{folder} cannot be written ({error}); see data.cache_dir.") from error
    _LOG.info("Prepared %s in %.0f s", builder_class.name, time.monotonic() - start)


@contextlib.contextmanager
def _quiet():
    """Keeps TFDS off stdout, and its progress bars and warnings about custom configurations off logs."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(True)
        absl.setLevel(level)


def _read_all(builder, folder):
    """Reads {split: Faces}, from arrays cached next to the records, which take several times as long to read."""
    splits = [split for split in facts.SPLITS if split in builder.info.splits]
    stats = [(path.name, path.stat()) for path in sorted(folder.glob("*array_record*"))]
    records = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    with contextlib.suppress(EOFError, OSError, ValueError, zipfile.BadZipFile), np.load(folder / ARRAYS) as kept:
        if kept["records"] == records:
            return {split: Faces(*(kept.get(f"{split}_{name}") for name in FIELDS)) for split in splits}
    faces = {split: _read(builder, split) for split in splits}
    arrays = {f"{split}_{name}": getattr(part, name) for split, part in faces.items() for name in FIELDS}
    # If they cannot be written, the records are read next time too.
    with contextlib.suppress(OSError), files.atomic_write(folder / ARRAYS, "wb") as file:
        np.savez(file, records=records, **{name: array for name, array in arrays.items() if array is not None})
    return faces


def _read(builder, split) -> Faces:
    """Reads a split in the order of the source."""
    source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    # The protocol buffers are read here: TFDS's own decoding takes four times as long.
    records = source.__getitems__(list(range(len(source))))
    image_shape = builder.info.features["image"].shape
    images = np.empty((len(records), *image_shape), np.uint8)
    labels = np.empty(len(records), np.int32)
    rows = np.empty(len(records), np.int64)
    has_votes = "votes" in builder.info.features
    votes = np.empty((len(records), len(facts.VOTES)), np.uint8) if has_votes else None
    for position, record in enumerate(records):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        image = np.frombuffer(feature["image"].bytes_list.value[0], np.uint8)
        images[position] = image.reshape(image_shape)
        labels[position] = feature["label"].int64_list.value[0]
        rows[position] = feature["row"].int64_list.value[0]
        if has_votes:
            votes[position] = feature["votes"].int64_list.value
    order = np.argsort(rows, kind="stable")
    if (np.diff(order) == 1).all():
        return Faces(images, labels, votes)
    return Faces(images, labels, votes).take(order)


def _seal(folder, faces, classes):
    """Returns the content of fer_jax.json in `folder`; writes it for builders without metadata."""
    path = folder / "fer_jax.json"
    if not path.exists():
        if not faces:
            raise ValueError("it holds no faces")
        seal = {
            "content": readings.fingerprint(faces, classes, votes=True),
            "fingerprint": readings.fingerprint(faces, classes),
            "notes": [],
        }
        with files.atomic_write(path) as file:
            file.write(json.dumps(seal))
    return json.loads(path.read_text())
