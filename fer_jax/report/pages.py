"""The page of one evaluation."""

import numpy as np

from fer_jax.report import elements, figures, records, text, training
from fer_jax.report import heat as heat_lib
from fer_jax.report.elements import element

MISTAKES = 24
SAMPLES_PER_CLASS = 5


def html(evaluation, history, train_counts, augmented=(), heat=None) -> str:
    """Returns one evaluation as a self-contained HTML page.

    evaluation: an `Evaluation`; history: a list of dicts, one per epoch, with epoch, step, train_loss,
    train_accuracy, validation_loss, validation_accuracy, validation_macro_f1, learning_rate, seconds,
    images_per_second and data_wait_share (missing values, None and NaN are omitted); train_counts: faces per class of
    each split, {split: [K]}; augmented: the training faces to show augmented, each an `AugmentedFace`; heat: a `Heat`
    with an overlay for each of `mistakes(evaluation)`, or None.

    Raises:
      ValueError: a list in train_counts does not have one count per class.
    """
    scores = evaluation.scores
    title = _title(scores)
    head = [element("h1", title), element("p", records.choice(scores), class_="lead")]
    if scores.get("synthetic"):
        head.append(element("p", records.SYNTHETIC, class_="synthetic"))
    head += [element("p", line, class_="warning") for line in records.warnings(scores, history)]
    cards = [
        element("div", element("span", name), element("b", value), element("small", remark))
        for name, value, remark in text.headlines(scores)
    ]
    content = [
        *head,
        element("div", *cards, class_="headlines"),
        _protocol(scores),
        *_notes(scores),
        training.section(scores, history),
        *([training.augmented_faces(augmented, scores.get("seed"))] if augmented else []),
        _confusion(scores),
        _classes(scores, train_counts),
        _calibration(evaluation),
        _samples(evaluation),
        _mistakes(evaluation, heat),
        _config(scores.get("config")),
    ]
    return elements.page(title, content)


def _title(scores):
    model = ((scores.get("config") or {}).get("model") or {}).get("name")
    data = scores.get("data_name") or "unrecorded data"
    return f"{model or 'Evaluation'} on {data}, {scores.get('split') or 'unrecorded'} split"


def _protocol(scores):
    code = ("data fingerprint", "commit", "working directory", *records.COMMANDS)
    rows = []
    for name, value in text.protocol(scores):
        rows += [element("dt", name), element("dd", value, class_="code" if name in code else None)]
    return elements.section("Protocol", element("dl", *rows))


def _notes(scores):
    notes = [element("li", note) for note in scores.get("notes") or []]
    return [elements.section("Notes", element("ul", *notes))] if notes else []


def _confusion(scores):
    matrices = [
        elements.confusion(scores["classes"], scores["confusion"], normalized=normalized)
        for normalized in (False, True)
    ]
    if len(scores["classes"]) > elements.MANY_CLASSES:
        return elements.section("Confusion matrix", *matrices)
    return elements.section("Confusion matrix", elements.side_by_side(*matrices))


def _classes(scores, train_counts):
    classes = scores["classes"]
    wrong = [split for split, counts in train_counts.items() if len(counts) != len(classes)]
    if wrong:
        raise ValueError(f"train_counts needs {len(classes)} counts per split, one per class; wrong: {wrong}")
    report = elements.table(
        ("class", "precision", "recall", "F1", "faces"),
        text.table_rows(scores),
        numbers=range(1, 5),
        class_="averages",
        caption=f"scores, {scores.get('split') or 'unrecorded'} split",
    )
    totals = {split: sum(counts) or 1 for split, counts in train_counts.items()}
    largest = max((max(counts) / totals[split] for split, counts in train_counts.items()), default=0) or 1
    rows = []
    for label, name in enumerate(classes):
        row = [name]
        for split, counts in train_counts.items():
            share = counts[label] / totals[split]
            row.append(elements.bar(share / largest, f"{counts[label]:,} ({100 * share:.1f}%)"))
        rows.append(row)
    header = ("class", *(f"{split}: {sum(counts):,}" for split, counts in train_counts.items()))
    distribution = elements.table(header, rows, caption="faces per split", class_="distribution")
    pieces = [report, distribution] if train_counts else [report]
    return elements.section("Classes", elements.side_by_side(*pieces))


def _calibration(evaluation):
    error = evaluation.scores["calibration_error"]
    remark = (
        "Faces are sorted into 15 bins by the probability of their predicted class. Bars below the dashed "
        f"line: the model is overconfident. The expected calibration error, {error:.4f}, is the "
        "mean distance between accuracy and confidence, weighted by faces."
    )
    plot = elements.picture(figures.reliability(evaluation.labels, evaluation.probs), "reliability diagram")
    return elements.section("Calibration", elements.side_by_side(plot, element("p", remark, class_="remark")))


def _samples(evaluation):
    classes = evaluation.scores["classes"]
    groups = []
    for label, name in enumerate(classes):
        tiles = []
        for row in records.samples(evaluation, label, SAMPLES_PER_CLASS):
            predicted = int(evaluation.probs[row].argmax())
            kind = "right" if predicted == label else "wrong"
            said = f"{classes[predicted]} {evaluation.probs[row, predicted]:.0%}"
            tiles.append(elements.face(evaluation.images[row], "sample", (said, kind)))
        shown = element("div", *tiles, class_="faces samples") if tiles else element("p", "no faces")
        groups.append(element("div", element("h3", name), shown))
    remark = "Spread evenly over the split; below each face the predicted class and its probability."
    grid = elements.side_by_side(*groups)
    return elements.section("Sample faces", element("p", remark, class_="remark"), grid)


def mistakes(evaluation):
    """Returns the rows of the mistakes shown on a page."""
    return records.most_confident_mistakes(evaluation, MISTAKES)


def _mistakes(evaluation, heat):
    classes, scores = evaluation.scores["classes"], evaluation.scores
    rows = mistakes(evaluation)
    tiles = []
    for row in rows:
        predicted = int(evaluation.probs[row].argmax())
        captions = (
            (f"true: {classes[evaluation.labels[row]]}", None),
            (f"predicted: {classes[predicted]}", "wrong"),
            (f"{evaluation.probs[row, predicted]:.1%}", None),
        )
        tile = elements.face(evaluation.images[row], "mistake", *captions)
        if heat:
            tile = heat_lib.below(tile, heat.overlays[row], f"evidence for {classes[predicted]}")
        tiles.append(tile)
    total = scores["n"] - int(np.trace(np.array(scores["confusion"])))
    remark = f"{len(rows)} of {total:,}, by the probability of the predicted class." if total else "No mistakes."
    faces = element("div", *tiles, class_="faces")
    remarks = [remark, heat_lib.remark(heat)] if heat and total else [remark]
    shown = [element("p", remark, class_="remark") for remark in remarks]
    return elements.section("Most confident mistakes", *shown, faces)


def _config(config):
    rows = [(field, elements.value(leaf)) for field, leaf in records.flatten(config).items()]
    shown = (
        elements.table(("field", "value"), rows, class_="rows fields")
        if rows
        else element("p", "not recorded", class_="remark")
    )
    return element("details", element("summary", "Config"), shown)
