"""Statistics of a finite test set: intervals for scores, and tests of whether two models differ. On the host."""

import hashlib
import json

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
SAME, OTHER, UNKNOWN = "same", "other", "unknown"  # results of `compare_faces`
FACTS_OF_FACES = ("data_fingerprint", "split", "n", "labels", "faces")  # of evaluations without a digest
UNKNOWN_FACES = (
    "The pictures could not be compared, because one evaluation has no digest of them: data, split and labels are the "
    "same as far as recorded. Evaluate again to be sure."
)


def digest_faces(images, labels, classes) -> str:
    """Returns 'blake2b:<16 hex digits>' of scored faces in order: their pixels and class names.

    images uint8 [N, H, W, C]; labels [N], positions in the class names.
    """
    names = [str(classes[label]) for label in labels]
    digest = hashlib.blake2b(json.dumps([np.shape(images), names]).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(images, np.uint8))
    return f"blake2b:{digest.hexdigest()}"


def compare_faces(first: dict, second: dict) -> str:
    """Returns whether two evaluations scored the same faces in the same order: SAME, OTHER or UNKNOWN.

    Each is a dict of scores. If both have a `faces_digest`, that decides. Otherwise the result is OTHER if any of
    FACTS_OF_FACES that both have differs, else UNKNOWN, since other faces can have equal counts and labels.
    """
    digests = [scores.get("faces_digest") for scores in (first, second)]
    if all(digests):
        return SAME if digests[0] == digests[1] else OTHER
    pairs = [(first.get(fact), second.get(fact)) for fact in FACTS_OF_FACES]
    return OTHER if any(a != b for a, b in pairs if None not in (a, b)) else UNKNOWN


def bootstrap_intervals(confusion, *, seed: int = 0) -> dict[str, list[float]]:
    """Returns {'accuracy': [low, high], 'macro_f1': [low, high]}, 95% percentile intervals of the bootstrap.

    confusion [K, K]: faces by true class (row) and predicted class. Both scores depend on it only, and resampling faces
    with replacement means drawing its cells from a multinomial distribution: 10,000 draws (Efron 1979).

    Raises:
      ValueError: there are no faces.
    """
    confusion = np.asarray(confusion, np.int64)
    n = int(confusion.sum())
    if n == 0:
        raise ValueError("no faces to draw from: the confusion matrix is empty")
    draws = np.random.default_rng(seed).multinomial(n, confusion.ravel() / n, size=RESAMPLES)
    draws = draws.reshape(RESAMPLES, *confusion.shape)
    hits = np.diagonal(draws, axis1=1, axis2=2)
    marked = draws.sum(axis=1) + draws.sum(axis=2)
    f1 = np.divide(2 * hits, marked, out=np.zeros(hits.shape), where=marked > 0)
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {
        "accuracy": np.quantile(hits.sum(axis=1) / n, ends).tolist(),
        "macro_f1": np.quantile(f1.mean(axis=1), ends).tolist(),
    }


def mcnemar(labels, first, second) -> dict:
    """Tests whether two models err on the same share of the same faces: McNemar's exact test (McNemar 1947).

    labels, first, second [N]: the true classes and the two models' predictions. Returns 'only_first' and 'only_second',
    the numbers of faces that only one model gets right; 'difference' of the accuracies, first minus second; and
    'p_value', two-sided, of the binomial test on those faces.

    Raises:
      ValueError: the arrays differ in length, or are empty.
    """
    from scipy.stats import binomtest

    labels, first, second = (np.asarray(values) for values in (labels, first, second))
    if not len(labels) or labels.ndim != 1 or not labels.shape == first.shape == second.shape:
        raise ValueError(
            "McNemar's test compares two models on the same faces: labels and predictions must be [N], they are "
            f"{list(labels.shape)}, {list(first.shape)} and {list(second.shape)}"
        )
    right, other = first == labels, second == labels
    only_first, only_second = int((right & ~other).sum()), int((other & ~right).sum())
    differ = only_first + only_second
    return {
        "only_first": only_first,
        "only_second": only_second,
        "difference": (only_first - only_second) / len(labels),
        "p_value": float(binomtest(only_first, differ, 0.5).pvalue) if differ else 1.0,
    }


def spread(values) -> dict:
    """Returns 'n', 'mean' and 'std' of a score over seeds; std is the sample standard deviation, None for one seed."""
    values = np.asarray(values, float)
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else None,
    }
