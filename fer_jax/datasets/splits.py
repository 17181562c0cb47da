"""Splitting, completing and checking sets of faces by split."""

import dataclasses
import itertools

import numpy as np

from fer_jax import wording
from fer_jax.datasets import facts
from fer_jax.datasets.faces import concatenate
from fer_jax.errors import InputError

_SHARE = 0.1  # of the faces, for a split that is carved out


def draw(faces, classes, *, seed) -> dict:
    """Returns {split: Faces} redrawn from all faces, stratified 80/10/10: test first, then validation.

    The sizes on FER-2013 are 29,068, 3,230 and 3,589. Faces keep their order. InputError where a class has
    too few.
    """
    everything = concatenate([faces[split] for split in facts.SPLITS if split in faces])
    return complete({"train": everything}, classes, seed=seed)[0]


def complete(faces, classes, *, seed):
    """Carves test and validation out of train where they are missing; returns ({split: Faces}, notes).

    Each missing split takes a stratified tenth of the remaining training faces, test before validation.
    """
    faces, notes = dict(faces), []
    for split in ("test", "validation"):
        if split not in faces:
            faces["train"], faces[split] = _carve(faces["train"], classes, split, seed)
            taken = wording.count(len(faces[split]), "face") + (" were" if len(faces[split]) > 1 else " was")
            notes.append(
                f"There is no {split} split: {taken} taken out of train for it, "
                f"stratified, with data.split_seed {seed}."
            )
    return faces, notes


def as_single(faces, split):
    """Returns ({split: Faces}, notes) with all faces in one split, and none in the others."""
    everything = faces["train"]
    nothing = everything.take(np.zeros(0, np.int64))
    all_faces = f"all {len(everything):,} faces are" if len(everything) > 1 else "the only face is"
    notes = [f"There are no splits: {all_faces} taken as the split {split}."]
    return {name: everything if name == split else nothing for name in facts.SPLITS}, notes


def _carve(train, classes, split, seed):
    from sklearn import model_selection  # takes longer to import than official splits take to load

    counts = np.bincount(train.labels, minlength=len(classes))
    try:
        rest, carved = model_selection.train_test_split(
            np.arange(len(train)), test_size=_SHARE, stratify=train.labels, random_state=seed
        )
    except ValueError as error:
        listing = ", ".join(f"{name} {count}" for name, count in zip(classes, counts, strict=True))
        raise InputError(
            f"The faces are too few to take a stratified tenth for {split} out of them ({listing}): {error} "
            "Add faces, or give the split its own folder."
        ) from error
    return train.take(np.sort(rest)), train.take(np.sort(carved))


def thin(faces, count, *, seed):
    """Keeps `count` of the training faces, stratified; returns ({split: Faces}, notes).

    Raises InputError where there are fewer, or if a class would keep none.
    """
    train = faces["train"]
    if not 0 < count <= len(train):
        raise InputError(f"data.train_faces is {count}: give 1 to {len(train):,}, or 0 for all")
    if count == len(train):
        return faces, []
    from sklearn import model_selection

    try:
        kept, _ = model_selection.train_test_split(
            np.arange(len(train)), train_size=count, stratify=train.labels, random_state=seed
        )
    except ValueError as error:
        raise InputError(f"data.train_faces is {count}, too few to keep every class: {error}") from error
    note = f"Only {count:,} of {len(train):,} training faces are used, stratified, with data.split_seed {seed}."
    return {**faces, "train": train.take(np.sort(kept))}, [note]


def select(faces, classes, wanted):
    """Keeps the classes `wanted` and renumbers the labels in that order; returns ({split: Faces}, names)."""
    wanted = tuple(wanted)
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        raise InputError(
            f"data.classes: no class {', '.join(map(repr, unknown))}; the classes are {', '.join(classes)}."
        )
    if len(wanted) < 2 or len(set(wanted)) < len(wanted):
        raise InputError(f"data.classes: {', '.join(wanted)}; give at least two classes, each once.")
    renumber = np.full(len(classes), -1, np.int32)
    renumber[[classes.index(name) for name in wanted]] = np.arange(len(wanted))
    selected = {}
    for split, part in faces.items():
        kept = part.take(renumber[part.labels] >= 0)
        selected[split] = dataclasses.replace(kept, labels=renumber[kept.labels])
    return selected, wanted


def unofficial_counts(faces):
    """Returns a list with one note if FER-2013's splits differ from the official counts, else []."""
    differences = []
    for split in facts.SPLITS:
        labels = faces[split].labels if split in faces else np.zeros(0, np.int32)
        counts = np.bincount(labels, minlength=len(facts.CLASSES))
        official = facts.OFFICIAL_COUNTS[split]
        for name, count, wanted in zip(facts.CLASSES, counts, official, strict=True):
            if count != wanted:
                differences.append(f"{split} {name} {count:,} instead of {wanted:,}")
    if not differences:
        return []
    return [
        "This is not the official FER-2013, and results on it do not compare with published ones: "
        f"{', '.join(differences)}."
    ]


def drop_shared(faces):
    """Drops the training faces whose pictures (the same bytes) are in validation or test too.

    Returns ({split: Faces}, notes).
    """
    hashes = _hashes(faces)
    scored = {*hashes["validation"], *hashes["test"]}
    kept = np.array([picture not in scored for picture in hashes["train"]], bool)
    if kept.all():
        return faces, []
    left_out = wording.count(int((~kept).sum()), "training face")
    note = f"{left_out} of {len(kept):,}, whose pictures are in validation or test too, are dropped (data.drop_shared)."
    return {**faces, "train": faces["train"].take(kept)}, [note]


def shared_pictures(faces):
    """Returns a note per pair of splits that share pictures (the same bytes)."""
    pictures = _hashes(faces)
    different = {split: set(hashes) for split, hashes in pictures.items()}
    notes = []
    for first, second in itertools.combinations(facts.SPLITS, 2):
        shared = different[first] & different[second]
        if shared:
            count = sum(picture in shared for picture in pictures[second])
            start = wording.count(len(shared), "picture") + (" are" if len(shared) > 1 else " is")
            notes.append(
                f"{start} in {first} and in {second} too: {count:,} of the {len(pictures[second]):,} {second} faces."
            )
    return notes


def _hashes(faces):
    """Returns {split: 64-bit hashes of its pictures}; their bytes would take as much memory again."""
    return {split: [hash(image.tobytes()) for image in faces[split].images] for split in facts.SPLITS}
