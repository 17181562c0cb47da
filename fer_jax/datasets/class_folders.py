"""Class folders: finding them in a folder or archive, and reading their pictures as faces of one shape."""

import collections
import dataclasses
import functools
import posixpath
import re

import numpy as np
from PIL import Image

from fer_jax import pictures
from fer_jax.datasets import bars, facts, stores, tables
from fer_jax.errors import InputError

SPLIT_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_USAGE_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_(\d+)\.\w+")


@dataclasses.dataclass(frozen=True)
class Tree:
    """Class folders: splits[split][class] are the picture files, sorted; `folder` is where they begin.

    Without folders for splits everything is in 'train'.
    """

    folder: str
    splits: dict

    def files(self):
        """Returns [(split, class, file)] of every picture."""
        splits = self.splits.items()
        return [(split, name, f) for split, classes in splits for name, files in classes.items() for f in files]

    @property
    def classes(self):
        """The names of the folders, sorted."""
        return tuple(sorted(set().union(*self.splits.values())))

    @property
    def has_fer_classes(self):
        """Whether the folders are FER-2013's seven classes, in any case of letters."""
        return {name.casefold() for name in self.classes} == set(facts.CLASSES)

    @functools.cached_property
    def unnamed(self):
        """The number of pictures whose file name does not contain FER-2013's Usage."""
        return sum(usage_and_number(file) is None for _, _, file in self.files())

    def is_fer2013(self):
        """Whether classes and file names are FER-2013's, so that its official split can be restored."""
        return self.has_fer_classes and self.unnamed == 0

    def why_not_fer2013(self):
        """Returns why these folders are not FER-2013."""
        if not self.has_fer_classes:
            return f"class folders {', '.join(self.classes)}, not FER-2013's {', '.join(facts.CLASSES)}."
        return (
            f"{self.unnamed:,} of {len(self.files()):,} file names are not Training_, PublicTest_ or "
            "PrivateTest_ and a number, so that the official split cannot be restored; "
            "--config.data.name=class_folders reads the folders unchanged."
        )

    def check(self, label):
        """Raises InputError on empty class folders, classes that differ over splits, and no split train."""
        for split, classes in self.splits.items():
            empty = sorted(name for name, files in classes.items() if not files)
            if empty:
                raise InputError(
                    f"{label}: class folder {empty[0]!r} of split {split} holds no pictures: fill or "
                    f"delete it. Pictures are files that end in {', '.join(pictures.PICTURE_SUFFIXES)}."
                )
            missing = sorted(set(self.classes) - set(classes))
            if missing:
                raise InputError(
                    f"{label}: split {split} has no class folder {', '.join(missing)}, other splits have; "
                    "every split needs the same classes."
                )
        if "train" not in self.splits:
            raise InputError(f"{label}: no folder `train` next to {', '.join(self.splits)}.")
        if len(self.classes) < 2:
            raise InputError(f"{label} holds one class, {self.classes[0]!r}; training needs at least two.")


def usage_and_number(file):
    """Returns (Usage, number) from the file name of a FER-2013 picture, else None."""
    match = _USAGE_NAME.fullmatch(posixpath.basename(file))
    return match and (match[1], int(match[2]))


def find(store: stores.Store):
    """Returns the Trees at the top of `store`, or else those one level of folders down."""
    top = _tree(store, "")
    if top is not None:
        return [top]
    trees = (_tree(store, folder) for folder in store.list()[0])
    return [tree for tree in trees if tree is not None]


def lone_class(store: stores.Store) -> str:
    """Returns the folder at the top of `store` that holds pictures, '' if none or several do."""
    filled = [name for name, files in _classes(store, "").items() if files]
    return filled[0] if len(filled) == 1 else ""


def _tree(store, folder):
    folders = store.list(folder)[0]
    splits = {}
    for name in folders:
        split = SPLIT_FOLDERS.get(name.casefold())
        classes = _classes(store, posixpath.join(folder, name)) if split else {}
        if any(classes.values()):
            if split in splits:
                place = f"{store.label}: {folder}" if folder else store.label
                raise InputError(f"{place}: two folders are for the split {split}; keep one.")
            splits[split] = classes
    if splits:
        return Tree(folder, {split: splits[split] for split in facts.SPLITS if split in splits})
    classes = _classes(store, folder)
    classes = {name: files for name, files in classes.items() if name.casefold() not in SPLIT_FOLDERS}
    if sum(map(bool, classes.values())) < 2:
        return None
    return Tree(folder, {"train": classes})


def _classes(store, folder):
    """Returns {class: its pictures}, empty lists included."""
    classes = {}
    for name in store.list(folder)[0]:
        place = posixpath.join(folder, name)
        files = [file for file in store.list(place)[1] if file.lower().endswith(pictures.PICTURE_SUFFIXES)]
        classes[name] = tuple(posixpath.join(place, file) for file in files)
    return classes


def read(store: stores.Store, tree: Tree, *, fer2013, image_shape=facts.IMAGE_SHAPE, detector=""):
    """Reads every picture; returns (tables.Rows, the files of its rows, notes).

    With `fer2013` labels are positions in facts.CLASSES, and split and order come from the file names; else
    labels are positions in `tree.classes`, and the order is split, class, file. Rows.positions count in
    that order, unreadable pictures included. All pictures are converted to `image_shape`, (H, W, C): grey if C is
    1, RGB if it is 3 (Pillow, antialiased). detector: of fer_jax.faces, for photographs: the face with the highest
    score is cropped, and photographs without a face are dropped; '': the pictures are faces.
    """
    find_face = _make_finder(detector)
    entries = _fer2013_entries(tree) if fer2013 else _plain_entries(tree)
    place = {file: position for position, (_, _, file) in enumerate(entries)}
    images = np.zeros((len(entries), *image_shape), np.uint8)
    good = np.zeros(len(entries), bool)
    bad, faceless, sizes = {}, [], collections.Counter()
    files = store.in_storage_order(list(place))
    for file in bars.make_bar(files, desc="Reading faces", unit=" pictures"):
        try:
            images[place[file]], size = _face(store, file, image_shape, find_face)
        except InputError as error:
            bad[place[file]] = str(error)
        except _NoFaceError:
            faceless.append(file)
        else:
            good[place[file]] = True
            sizes[size] += 1
    if len(faceless) == len(entries):
        raise InputError(
            f"{store.label}: {detector} finds no face in any of the {len(entries):,} photographs: set data.detector to "
            "another one, or leave it empty if the pictures are faces."
        )
    labels = np.array([label for _, label, _ in entries])
    splits = np.array([split for split, _, _ in entries])
    usages = {split: usage for usage, split in facts.USAGES.items()}
    rows = tables.Rows(
        images if good.all() else images[good],
        labels[good],
        splits[good],
        np.flatnonzero(good),
        [usages[split] for split in splits],
        [bad[position] for position in sorted(bad)],
    )
    notes = _detection_notes(detector, faceless, len(entries)) if detector else _size_notes(sizes, image_shape)
    return rows, [entry[2] for entry, kept in zip(entries, good, strict=True) if kept], notes


def _plain_entries(tree):
    return [(split, tree.classes.index(name), file) for split, name, file in tree.files()]


def _fer2013_entries(tree):
    usages = list(facts.USAGES)
    keyed = []
    for _, name, file in tree.files():
        usage, number = usage_and_number(file)
        entry = (facts.USAGES[usage], facts.CLASSES.index(name.casefold()), file)
        keyed.append(((usages.index(usage), number, file), entry))
    return [entry for _, entry in sorted(keyed)]


class _NoFaceError(Exception):
    """A photograph shows no face."""


def _make_finder(name):
    """Returns a function that crops the face with the highest score; None if pictures are faces."""
    if not name:
        return None
    from fer_jax import faces

    detector = faces.make_detector(name)

    def find_face(picture, side_px):
        pixels = pictures.to_rgb(picture)
        (found,) = detector.detect([pixels])
        if not found:
            raise _NoFaceError
        return Image.fromarray(faces.crop(pixels, found[0], side_px))

    return find_face


def _face(store, file, image_shape, find_face):
    """Returns (face uint8 [H, W, C], its (width, height) before)."""
    height, width, channels = image_shape
    name = f"{store.label}: {file}"
    with stores.reading(name), store.open(file) as stream:
        picture = pictures.load(stream, name=name)
    if find_face:
        picture = find_face(picture, width)
    picture = picture.convert("L" if channels == 1 else "RGB")
    size = picture.size
    if size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture).reshape(image_shape), size


def _detection_notes(detector, faceless, count):
    notes = [f"The faces were found in {count:,} photographs by {detector}."]
    if faceless:
        shown = f"{', '.join(faceless[:3])}{' and others' if len(faceless) > 3 else ''}"
        verbs = ("shows", "was") if len(faceless) == 1 else ("show", "were")
        notes.append(f"{len(faceless):,} of them {verbs[0]} no face that it finds and {verbs[1]} dropped: {shown}.")
    return notes


def _size_notes(sizes, image_shape):
    height, width, _ = image_shape
    resized = {size: count for size, count in sizes.items() if size != (width, height)}
    if not resized:
        return []
    stretched = sum(count for size, count in resized.items() if size[0] != size[1])
    return [
        f"{sum(resized.values()):,} of {sum(sizes.values()):,} pictures were resized to {width}x{height}"
        + (f"; {stretched:,} of them are not square and were stretched." if stretched else ".")
    ]
