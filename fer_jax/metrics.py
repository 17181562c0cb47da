"""Metrics of a classifier: sums that merge exactly, for training, and the full list for a report."""

import numpy as np

CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
_ROW_SUM_TOLERANCE = 1e-2  # the rounding of a half-precision softmax; logits are off by far more


def batch_sums(logits, labels, mask, loss_total):
    """Sums a batch over its real faces; pure and jit-able.

    logits [B, K]; labels [B] integers; mask [B], 0 marks padding; loss_total [], summed over the real faces.
    Returns a dict of additive arrays: 'loss' [], 'count' [] int32, 'confusion' [K, K] int32 (row: true class,
    column: predicted class). A label outside 0..K-1 only adds to 'count', so that `summarize` raises.

    Raises:
      ValueError: the shapes do not match.
    """
    import jax.numpy as jnp

    if logits.ndim != 2 or labels.shape != logits.shape[:1] or mask.shape != logits.shape[:1]:
        raise ValueError(
            "batch_sums needs logits [B, K], labels [B] and mask [B]; it got "
            f"{logits.shape}, {labels.shape} and {mask.shape}"
        )
    classes = logits.shape[1]
    real = (mask != 0).astype(jnp.int32)
    cells = jnp.zeros((classes, classes), jnp.int32).at[labels, jnp.argmax(logits, axis=-1)]
    return {
        "loss": loss_total,
        "count": jnp.sum(real),
        "confusion": cells.add(real, mode="drop", wrap_negative_indices=False),
    }


def add(a, b):
    """Merges two results of `batch_sums`, on the device or on the host."""
    return {key: a[key] + b[key] for key in a | b}


def summarize(sums) -> dict[str, float]:
    """Returns 'loss' (mean, nats), 'accuracy' and 'macro_f1' of the sums, as Python floats.

    A class with neither faces nor predictions counts with F1 = 0, as in scikit-learn's
    `f1_score(average='macro', zero_division=0, labels=range(K))`.

    Raises:
      ValueError: there is no real face, or a face is not in the confusion matrix (its label is out of range).
    """
    count = int(sums["count"])
    confusion = np.asarray(sums["confusion"], np.int64)
    if count == 0:
        raise ValueError("no faces to summarize: every entry of the mask was 0")
    if confusion.sum() != count:
        raise ValueError(
            f"{count} faces, but {confusion.sum()} in the confusion matrix of {len(confusion)} classes: "
            f"a label is outside 0..{len(confusion) - 1}"
        )
    correct = np.diagonal(confusion)
    marked = confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = np.divide(2 * correct, marked, out=np.zeros(len(confusion)), where=marked > 0)
    return {
        "loss": float(sums["loss"]) / count,
        "accuracy": float(correct.sum() / count),
        "macro_f1": float(f1.mean()),
    }


def score(labels, probs, classes) -> dict:
    """Scores predictions on the host; everything in the result can be written as JSON.

    labels [N] integers 0..K-1; probs [N, K], rows sum to 1; classes: K names in the order of the labels. The
    predicted class is the most probable one.

    Returns a dict: `n`; `accuracy`; `accuracy_interval_95` ([low, high], Wilson's score interval: Wilson
    1927); `macro_f1`; `weighted_f1`; `loss` (mean cross-entropy, nats; a probability of 0 counts as the
    smallest normal float32, so one face adds 87.3 at most); `mean_squared_error` (of probs against one-hot
    labels, mean over faces and classes: the Brier score over K); `calibration_error` (expected calibration
    error of the top label, 15 equal bins: Guo et al. 2017); `per_class` (a list of {class, precision, recall,
    f1, support}); `macro_avg` and `weighted_avg` ({precision, recall, f1, support}); `confusion` (rows:
    true); `classes`; `classification_report` (scikit-learn's text). Divisions by zero give 0.

    Raises:
      ValueError: invalid shapes, labels, probabilities or class names; the message says which.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import classification_report, confusion_matrix, precision_recall_fscore_support

    labels, probs, classes = _check(labels, probs, classes)
    n = len(labels)
    predicted = probs.argmax(axis=1)
    every = range(len(classes))
    options = {"labels": every, "zero_division": 0}
    hits = int((predicted == labels).sum())
    interval = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    of_labels = np.clip(probs[np.arange(n), labels], np.finfo(np.float32).tiny, 1.0)
    columns = precision_recall_fscore_support(labels, predicted, **options)
    macro = precision_recall_fscore_support(labels, predicted, average="macro", **options)
    weighted = precision_recall_fscore_support(labels, predicted, average="weighted", **options)
    per_class = [{"class": name} | _row(*row) for name, *row in zip(classes, *columns, strict=True)]
    return {
        "n": n,
        "accuracy": hits / n,
        "accuracy_interval_95": [float(interval.low), float(interval.high)],
        "macro_f1": float(macro[2]),
        "weighted_f1": float(weighted[2]),
        "loss": float(0.0 - np.log(of_labels).mean()),  # 0 - x: no loss is 0, not -0
        "mean_squared_error": float(np.square(probs - np.eye(len(classes))[labels]).mean()),
        "calibration_error": _calibration_error(reliability(labels, probs)),
        "per_class": per_class,
        "macro_avg": _row(*macro[:3], n),
        "weighted_avg": _row(*weighted[:3], n),
        "confusion": confusion_matrix(labels, predicted, labels=every).tolist(),
        "classes": classes,
        "classification_report": classification_report(labels, predicted, target_names=classes, digits=4, **options),
    }


def reliability(labels, probs) -> dict[str, np.ndarray]:
    """Bins faces by the probability of their predicted class, in 15 equal bins (low, high].

    labels [N]; probs [N, K]. Returns arrays [15]: 'count', and the bin's mean 'confidence' and 'accuracy'
    (0 where the bin is empty). Source: Guo et al. 2017.
    """
    probs = np.asarray(probs, np.float64)
    confidence = probs.max(axis=1)
    hit = probs.argmax(axis=1) == np.asarray(labels)
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    bins = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    faces = np.maximum(count, 1)
    return {
        "count": count,
        "confidence": np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS) / faces,
        "accuracy": np.bincount(bins, weights=hit, minlength=CALIBRATION_BINS) / faces,
    }


def _calibration_error(bins):
    gaps = np.abs(bins["accuracy"] - bins["confidence"])
    return float((bins["count"] * gaps).sum() / bins["count"].sum())


def _row(precision, recall, f1, support):
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}


def _check(labels, probs, classes):
    labels, probs = np.asarray(labels), np.asarray(probs, np.float64)
    classes = [str(name) for name in classes]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers [N]; they are {labels.dtype} {list(labels.shape)}")
    if len(labels) == 0:
        raise ValueError("there are no faces to score: labels is empty")
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"classes must be two or more different names; they are {classes}")
    if probs.shape != (len(labels), len(classes)):
        raise ValueError(
            f"probs must be [{len(labels)}, {len(classes)}] (one row per label, one column per class); "
            f"they are {list(probs.shape)}"
        )
    out = (labels < 0) | (labels >= len(classes))
    if out.any():
        row = int(out.argmax())
        raise ValueError(f"label {labels[row]} at row {row} is outside 0..{len(classes) - 1}: {classes}")
    bad = ~(np.isfinite(probs) & (probs >= 0)).all(axis=1)
    bad |= np.abs(probs.sum(axis=1) - 1) > _ROW_SUM_TOLERANCE
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"row {row} of probs is not a distribution: {np.round(probs[row], 4).tolist()} must be 0 or more "
            "and sum to 1. Are these logits? Apply softmax first"
        )
    return labels, probs, classes
