"""Reads a source into faces by split, with votes and notes for the user."""

import dataclasses
import hashlib
import json

import numpy as np

from fer_jax.datasets import class_folders, facts, fer_plus, mosaics, tables
from fer_jax.datasets.faces import Faces
from fer_jax.errors import InputError

_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Reading:
    """The content of a source: {split: Faces}, {split: int64 [N], positions in the source}, classes, notes."""

    faces: dict
    rows: dict
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read(source, *, votes_path="", on_bad_row="stop", image_shape=facts.IMAGE_SHAPE, detector="") -> Reading:
    """Reads all faces of a sources.Source.

    image_shape: that of every face in class folders, (H, W, C); detector: of fer_jax.faces, which crops
    faces from the pictures there; '': they are faces.

    Raises InputError, after everything is read, on rows that cannot be used unless `on_bad_row` is 'skip';
    on a split without a single good row; and on votes that do not belong to these faces.
    """
    fer2013 = source.name == "fer2013"
    classes = facts.CLASSES if fer2013 else source.tree.classes
    votes_table = tables.read_votes(votes_path) if votes_path else None
    files, notes = None, []
    if source.mosaic:
        with source.open_store() as store:
            rows = mosaics.read(store, source.table, source.mosaic, label=source.label)
    elif source.tree is None:
        with source.open_table() as stream:
            rows = tables.read(stream, label=source.label, size=source.table_bytes())
    else:
        with source.open_store() as store:
            rows, files, notes = class_folders.read(
                store, source.tree, fer2013=fer2013, image_shape=image_shape, detector=detector
            )
    notes = [*_bad_row_notes(rows, on_bad_row, "rows" if source.tree is None else "pictures"), *notes]
    _check_splits(rows, source.label)
    votes = None
    if votes_table is not None:
        votes = _join_votes(rows, files, votes_table, source.label, votes_path)
        notes.append(_agreement_note(rows.labels, votes))
    faces, positions = {}, {}
    for split in facts.SPLITS:
        here = rows.splits == split
        if here.any():
            split_votes = None if votes is None else votes[here]
            faces[split] = Faces(rows.images[here], rows.labels[here].astype(np.int32), split_votes)
            positions[split] = rows.positions[here]
    return Reading(faces, positions, classes, tuple(notes))


def fingerprint(faces, classes, *, votes=False) -> str:
    """Returns 'sha256:<16 hex digits>' of {split: Faces} and class names, with `votes` of these too."""
    digest = hashlib.sha256(json.dumps([list(classes), {s: len(faces[s]) for s in sorted(faces)}]).encode())
    for split in sorted(faces):
        digest.update(np.ascontiguousarray(faces[split].images))
        digest.update(faces[split].labels.astype("<i4"))
        if votes and faces[split].votes is not None:
            digest.update(np.ascontiguousarray(faces[split].votes))
    return f"sha256:{digest.hexdigest()[:16]}"


def source_notes(source):
    """Returns notes on what was found, without reading it."""
    notes = []
    if source.others:
        notes.append(f"Faces are taken from {source.label}; not used: {', '.join(source.others)}.")
    if source.name == "class_folders" and source.tree.has_fer_classes:
        why = "data.name is class_folders." if source.tree.is_fer2013() else source.tree.why_not_fer2013()
        notes.append(
            f"This is not the official split of FER-2013, and results on it do not compare with published ones: {why}"
        )
    if source.name == "fer2013" and source.tree is not None:
        notes.append("Pictures are decoded from files: if these are JPEG, pixels differ a little from the table's.")
    return notes


def _listing(bad):
    more = f"\n  and {len(bad) - _LISTED:,} more" if len(bad) > _LISTED else ""
    return "".join(f"\n  {line}" for line in bad[:_LISTED]) + more


def _bad_row_notes(rows, on_bad_row, unit):
    if not rows.bad:
        return []
    total = len(rows.bad) + len(rows.labels)
    if on_bad_row == "stop":
        raise InputError(
            f"{len(rows.bad):,} of {total:,} {unit} cannot be read:{_listing(rows.bad)}\n"
            "Fix them, or skip them with --config.data.on_bad_row=skip."
        )
    return [f"{len(rows.bad):,} of {total:,} {unit} could not be read and were skipped:{_listing(rows.bad)}"]


def _check_splits(rows, label):
    wanted = {facts.USAGES[usage] for usage in rows.usages if usage is not None}
    lost = [split for split in facts.SPLITS if split in wanted and split not in rows.splits]
    if lost or not len(rows.labels):
        raise InputError(f"{label}: nothing of {', '.join(lost) or 'any split'} can be read:{_listing(rows.bad)}")


def _join_votes(rows, files, votes_table, label, votes_path):
    usages, votes = votes_table
    if files is None:
        if len(usages) != len(rows.usages):
            raise InputError(
                f"{votes_path} has {len(usages):,} rows and {label} has {len(rows.usages):,}: FER+ votes "
                "are joined row for row, so both files must be complete."
            )
        for row, (theirs, ours) in enumerate(zip(usages, rows.usages, strict=True)):
            if ours is not None and theirs != ours:
                raise InputError(
                    f"{votes_path}, row {row + 2}: Usage {theirs!r}, but {label} has {ours!r} there: the "
                    "files are not in the same order, and FER+ votes are joined row for row."
                )
        return votes[rows.positions]
    return _join_votes_by_number(rows, files, votes_table, label, votes_path)


def _join_votes_by_number(rows, files, votes_table, label, votes_path):
    """Joins by the number in the file names, if that appears to be the row in the official table."""
    usages, votes = votes_table
    named = [class_folders.usage_and_number(file) for file in files]
    numbers = np.array([number for _, number in named])
    reason = ""
    if len(np.unique(numbers)) < len(numbers):
        reason = "several files carry the same number"
    elif numbers.max() >= len(usages):
        reason = f"{files[int(numbers.argmax())]} would be row {numbers.max():,} of {len(usages):,}"
    elif wrong := [f for f, (usage, n) in zip(files, named, strict=True) if usages[n] != usage]:
        reason = f"the rows of {wrong[0]} and {len(wrong) - 1:,} others have another Usage"
    elif _agreement(rows.labels, votes[numbers]).mean() < 0.5:
        reason = "most votes in those rows name another class than the folder"
    if reason:
        raise InputError(
            f"{votes_path} cannot be joined with {label}: the numbers in the file names are not rows of the "
            f"official table ({reason}). Use fer2013.csv with FER+ votes, or leave data.votes_path empty."
        )
    return votes[numbers]


def _agreement(labels, votes):
    """Returns bool [N]: the label's category has more votes than any other."""
    own = fer_plus.columns(facts.CLASSES)[labels]
    others = votes.copy()
    others[np.arange(len(labels)), own] = 0
    return votes[np.arange(len(labels)), own] > others.max(axis=1)


def _agreement_note(labels, votes):
    agree = int(_agreement(labels, votes).sum())
    return (
        f"The majority of the FER+ votes names the class of FER-2013's label for {agree:,} of {len(labels):,} faces "
        f"({100 * agree / len(labels):.1f} %); ties count as no."
    )
