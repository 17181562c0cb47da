"""Datasets: FER-2013, class folders and drawn faces.

`load(config.data)` returns a dataset as arrays. It is prepared once: by TFDS if that is installed, else as a file of
arrays. TensorFlow is never imported.
"""

import dataclasses
import functools
import logging
import pathlib
import re

from fer_jax import fields
from fer_jax.datasets import facts
from fer_jax.datasets.faces import FaceData, Faces
from fer_jax.errors import InputError

__all__ = ["FaceData", "Faces", "load", "resolve_name", "with_vote_targets"]

NAMES = ("drawn_faces", "fer2013", "class_folders")

_LOG = logging.getLogger("fer_jax")


def load(data, *, single_split: str = "") -> FaceData:
    """Loads the dataset that the config's section `data` describes; prepares it if it is new.

    `data.labels` 'fer+' first gives FER-2013 the labels of `fer_plus`. `data.split` 'random' draws the splits from all
    faces before `data.classes` selects, so that every selection is tested on the same faces. single_split: the split
    that gets all faces of class folders without splits; '': all three are drawn from them. Raises InputError on any
    input that cannot be used.
    """
    from fer_jax.datasets import fer_plus, readings, splits

    name, source = _resolve(data)
    faces, classes, fingerprint, notes = _load_prepared(name, source, data)
    notes = [*(readings.source_notes(source) if source else ()), *notes]
    if name == "fer2013":
        notes += splits.unofficial_counts(faces)
    if data.labels == "fer+":
        faces, more = fer_plus.relabel(faces)
        notes += more
        _check_not_empty(faces, tuple(faces), " with a majority of FER+ votes for a class")
        classes, fingerprint = fer_plus.CLASSES, readings.fingerprint(faces, fer_plus.CLASSES)
    unsplit = name == "class_folders" and set(source.tree.splits) == {"train"}
    if single_split and unsplit:
        faces, more = splits.as_single(faces, single_split)
        notes += more
    elif data.split == "random":
        faces = splits.draw(faces, classes, seed=data.split_seed)
        notes.append(f"The splits are drawn at random, stratified 80/10/10, by data.split_seed {data.split_seed}.")
    elif name == "class_folders":
        faces, more = splits.complete(faces, classes, seed=data.split_seed)
        notes += more
    wanted = (single_split,) if single_split and unsplit else facts.SPLITS
    _check_not_empty(faces, wanted, "; --config.data.split=random draws all three from what there is")
    if data.classes:
        faces, classes = splits.select(faces, classes, data.classes)
        _check_not_empty(faces, wanted, " of data.classes")
    if data.drop_shared:
        faces, more = splits.drop_shared(faces)
        notes += more
        _check_not_empty(faces, wanted, " that no other split has: set data.drop_shared=False")
    if data.train_faces:
        faces, more = splits.thin(faces, data.train_faces, seed=data.split_seed)
        notes += more
    notes += splits.shared_pictures(faces)
    for note in notes:
        _LOG.info("%s: %s", name, note)
    return FaceData(
        name=name,
        classes=classes,
        **faces,
        fingerprint=fingerprint,
        notes=tuple(notes),
        synthetic=name == "drawn_faces",
    )


def with_vote_targets(data: FaceData) -> FaceData:
    """Returns the data with the distributions of the FER+ votes as targets of the training faces; see `fer_plus`.

    Raises:
      InputError: the faces have no votes.
    """
    from fer_jax.datasets import fer_plus

    if data.train.votes is None:
        raise InputError(f"loss.targets is votes, but these faces ({data.name}) have none: give data.votes_path.")
    targets, note = fer_plus.make_targets(data.train, data.classes)
    _LOG.info("%s: %s", data.name, note)
    train = dataclasses.replace(data.train, targets=targets)
    return dataclasses.replace(data, train=train, notes=(*data.notes, note))


def resolve_name(data) -> str:
    """Returns the dataset's name; 'auto' is 'drawn_faces' without a path, else what `data.path` contains.

    Raises InputError on unknown values, and if nothing at the path fits.
    """
    return _resolve(data)[0]


def _resolve(data):
    """Checks the options against each other; returns (name, source); source is None for drawn faces."""
    fields.check(data, "data")
    for field, values in (
        ("name", ("auto", *NAMES)),
        ("labels", ("fer2013", "fer+")),
        ("split", ("official", "random")),
        ("on_bad_row", ("stop", "skip")),
        ("drawn_size", ("full", "tiny")),
    ):
        if data[field] not in values:
            raise InputError(f"data.{field} is {data[field]!r}; it should be one of {', '.join(values)}.")
    if data.channels not in (1, 3):
        raise InputError(f"data.channels is {data.channels}: give 1 (grey) or 3 (RGB).")
    if data.name == "drawn_faces" and data.path:
        raise InputError(f"data.name drawn_faces reads no files, but data.path is {data.path!r}: drop one.")
    if data.name in ("fer2013", "class_folders") and not data.path:
        raise InputError(f"data.name {data.name} needs data.path, the file or folder that holds the faces.")
    source = None
    if data.path:
        from fer_jax.datasets import sources

        source = sources.find(data.path, name=data.name)
    name = source.name if source else "drawn_faces"
    _check_votes(data, name)
    if data.detector and name != "class_folders":
        raise InputError(
            f"data.detector finds faces in photographs in class folders, and the faces are {name}: leave it empty."
        )
    if name != "class_folders" and _image_shape(data) != facts.IMAGE_SHAPE:
        tree = source is not None and source.tree is not None
        raise InputError(
            f"data.size_px is {data.size_px} and data.channels {data.channels}, but the faces are {name}, 48x48 grey; "
            "only class folders are read in other sizes and in colour: leave these fields at 48 and 1 (model.size_px "
            "and model.channels choose what a network sees)"
            + (", or set data.name=class_folders to read these folders unchanged." if tree else ".")
        )
    return name, source


def _check_votes(data, name):
    if data.labels == "fer+" and name != "fer2013":
        raise InputError(f"data.labels is fer+: FER+ labels belong to FER-2013, and the faces are {name}.")
    if data.labels == "fer+" and not data.votes_path:
        raise InputError("data.labels is fer+: give data.votes_path, the votes that the labels come from.")
    if data.votes_path and name != "fer2013":
        raise InputError(f"data.votes_path: FER+ votes belong to FER-2013, and the faces are {name}.")
    if data.votes_path and not pathlib.Path(data.votes_path).expanduser().is_file():
        raise InputError(f"data.votes_path: there is no file {data.votes_path}.")


def _image_shape(data):
    return (data.size_px, data.size_px, data.channels)


def _load_prepared(name, source, data):
    from fer_jax.datasets import drawn_faces, readings

    if name == "drawn_faces":
        key, options = data.drawn_size, {}
        read = functools.partial(drawn_faces.read, drawn_faces.SIZES[key])
    else:
        votes_path = str(pathlib.Path(data.votes_path).expanduser()) if data.votes_path else ""
        image_shape = _image_shape(data)
        # Datasets of the default shape keep the names of earlier versions.
        shape = "" if image_shape == facts.IMAGE_SHAPE else f"{'x'.join(map(str, image_shape))}-"
        detector = _detector_name(data.detector)
        found_by = f"aligned_{re.sub('[^a-z0-9]+', '_', detector)}-" if detector else ""
        key = f"{data.on_bad_row}-{shape}{found_by}{source.signature(*filter(None, [votes_path]))}"
        options = {"votes_path": votes_path, "on_bad_row": data.on_bad_row}
        options |= {"image_shape": image_shape, "detector": detector}
        read = functools.partial(readings.read, source, **options)
    if not _has_tfds():
        from fer_jax.datasets import arrays

        return arrays.load(pathlib.Path(data.cache_dir, "arrays", f"{name}-{key}.npz"), read)
    from fer_jax.datasets import builders, prepared

    if name == "drawn_faces":
        return prepared.load(builders.DrawnFaces, data.cache_dir, config=builders.DrawnFaces.builder_configs[key])
    builder_class = {"fer2013": builders.Fer2013, "class_folders": builders.ClassFolders}[name]
    config = builders.FacesConfig(name=key, source=source, **options)
    return prepared.load(builder_class, data.cache_dir, config=config)


def _detector_name(name):
    """Returns the name of the detector that a name chooses; 'auto' depends on which weights are available."""
    if not name:
        return ""
    from fer_jax import faces

    return faces.make_detector(name).name


def _has_tfds():
    """Whether TFDS is installed, with the file format that needs no TensorFlow."""
    try:
        import array_record.python.array_record_module  # noqa: F401
        import tensorflow_datasets  # noqa: F401
    except ImportError:
        return False
    return True


def _check_not_empty(faces, wanted, fix):
    for split in wanted:
        if split not in faces or not len(faces[split]):
            raise InputError(f"The split {split} holds no faces{fix}.")
