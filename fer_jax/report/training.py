"""The section on training: curves, or the numbers of a single epoch, and speed."""

import math

import numpy as np

from fer_jax import wording
from fer_jax.report import elements, figures, records, text
from fer_jax.report.elements import element


def section(scores, history):
    """Returns the section on the training of one run; scores, history: as in `pages.html`."""
    remark = element("p", _facts(history) if history else "No epochs were recorded.", class_="remark")
    if len(history) == 1:
        name = f"epoch {history[0].get('epoch') or 1}"
        return elements.section("Training", remark, numbers([(name, history[0])], first=""))
    best = records.best_epoch(history, scores.get("config"))
    epoch = best[0] if best else None
    if scores.get("checkpoint") == "best" and scores.get("epoch") is not None:
        epoch = scores["epoch"]
    plots = [
        elements.picture(figures.curve(panel, history, epoch), f"{panel[0]} over epochs") for panel in figures.PANELS
    ]
    if not len(records.series(history, "learning_rate")[1]):
        return elements.section("Training", elements.side_by_side(*plots), remark)
    plots.append(elements.picture(figures.learning_rate(history), "learning rate over epochs"))
    return elements.section("Training", elements.side_by_side(*plots, remark))


def augmented_faces(faces, seed):
    """Returns the section of training faces with their augmented versions; faces: `AugmentedFace`s."""
    groups = []
    for face in faces:
        tiles = [elements.face(face.original, "original", ("original", None))]
        for number, image in enumerate(face.versions, start=1):
            tiles.append(elements.face(image, "augmented", (f"augmented {number}", None)))
        groups.append(element("div", element("h3", face.class_name), element("div", *tiles, class_="faces samples")))
    drawn = "the seed of the run" if seed is None else f"the run's seed, {seed}"
    remark = f"Training faces and augmented versions of them, drawn as in training with {drawn}."
    grid = elements.side_by_side(*groups)
    return elements.section("Augmented training faces", element("p", remark, class_="remark"), grid)


def numbers(rows, *, first):
    """Returns a table in place of curves, for runs of one epoch, which is a point and not a line.

    rows: one (name, record of an epoch) each; first: the name of the first column.
    """
    columns = {}
    for title, lines in figures.PANELS:
        columns |= {key: name if "F1" in name else f"{title.split(' (')[0]}, {name}" for key, name, *_ in lines}
    shown = [(name, *(_number(key, record.get(key)) for key in columns)) for name, record in rows]
    return elements.table((first, *columns.values()), shown, numbers=range(1, len(columns) + 1), class_="rows")


def _number(key, value):
    if value is None or not math.isfinite(value):
        return "\u2013"
    return text.percent(value) if key.endswith("accuracy") else f"{value:.4f}"


def _facts(history):
    facts = [wording.count(len(history), "epoch")]
    seconds, speed, wait, rates = (
        records.series(history, key)[1] for key in ("seconds", "images_per_second", "data_wait_share", "learning_rate")
    )
    if len(rates):
        constant = rates.min() == rates.max()
        ends = "" if constant else f" at most, {rates[-1]:.3g} at the end"
        facts.append(f"learning rate {rates.max():.3g}{ends}")
    if len(seconds):
        facts.append(text.duration(seconds.sum()))
    if len(speed):
        facts.append(f"median {np.median(speed):,.0f} faces per second")
    if len(wait):
        facts.append(f"median {text.percent(np.median(wait))} of the time spent waiting for data")
    return ", ".join(facts)
