"""The records of a run that a report shows, and what it derives from them."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from fer_jax import patience, wording

# The facts of a run that every report states, in the order of reading: key in the scores, and its name.
FACTS = {
    "data_name": "data",
    "data_fingerprint": "data fingerprint",
    "faces_digest": "digest of the scored faces",
    "seed": "seed",
    "commit": "commit",
    "device": "device",
    "time": "time",
    "workdir": "working directory",
    "training_command": "training command",
    "command": "command",
}
COMMANDS = (FACTS["training_command"], FACTS["command"])
SYNTHETIC = "drawn faces: synthetic, says nothing about real faces"


class AugmentedFace(NamedTuple):
    """A training face, uint8 [H, W, 1 or 3], and augmented versions of it, uint8 [V, H, W, 1 or 3]."""

    class_name: str
    original: np.ndarray
    versions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One checkpoint on one split: its scores and the predictions behind them.

    scores: the result of `metrics.score` and the facts of the run: split, checkpoint ('best' or 'latest'),
    step, epoch, config (nested dict), seed, commit, device, time (ISO 8601), command, data_name,
    data_fingerprint, faces_digest, synthetic (bool), notes (list of str), parameters and trainable (counts), workdir,
    trained (a dict of the training's own facts, of which its command is shown). The report omits missing facts.
    images uint8 [N, H, W, 1 or 3]; labels integers [N]; probs [N, K], rows sum to 1.

    Raises:
      ValueError: the shapes of the arrays do not match each other or the scores.
    """

    scores: dict
    images: np.ndarray
    labels: np.ndarray
    probs: np.ndarray

    def __post_init__(self):
        """Checks the shapes, so that no face is shown with the label of another."""
        n, classes = self.scores["n"], len(self.scores["classes"])
        shapes = [list(np.shape(array)) for array in (self.images, self.labels, self.probs)]
        fits = np.ndim(self.images) == 4 and shapes[0][0] == n and shapes[0][3] in (1, 3)
        if not fits or self.images.dtype != np.uint8 or shapes[1:] != [[n], [n, classes]]:
            raise ValueError(
                f"the scores are of {wording.count(n, 'face')} and {wording.count(classes, 'class')}: "
                f"images must be uint8 [{n}, H, W, 1 or 3], labels [{n}] and probs [{n}, {classes}]; "
                f"they are {self.images.dtype} {shapes[0]}, "
                f"{shapes[1]} and {shapes[2]}"
            )


def most_confident_mistakes(evaluation, limit):
    """Returns the rows of at most `limit` wrong predictions, the most probable first; ties in file order."""
    wrong = np.flatnonzero(evaluation.probs.argmax(axis=1) != evaluation.labels)
    confidence = evaluation.probs[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")][:limit]


def samples(evaluation, label, limit):
    """Returns the rows of at most `limit` faces of a class, spread evenly over the split."""
    rows = np.flatnonzero(evaluation.labels == label)
    if len(rows) <= limit:
        return rows
    return rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def series(history, key):
    """Returns (epochs, values) of a column as float arrays, without epochs that have no finite value."""
    pairs = [(_epoch(history, row), _number(entry.get(key))) for row, entry in enumerate(history)]
    finite = np.array([pair for pair in pairs if math.isfinite(pair[1])], float).reshape(-1, 2)
    return finite[:, 0], finite[:, 1]


def monitor(config):
    """Returns the name of the metric that chose the best checkpoint, or None if no config was recorded."""
    return ((config or {}).get("train") or {}).get("monitor")


def best_epoch(history, config):
    """Returns (epoch, value) of the first best value of the config's monitor, or None without one."""
    name = monitor(config)
    epochs, values = series(history, name)
    if not len(values):
        return None
    row = values.argmin() if name.endswith("loss") else values.argmax()
    return int(epochs[row]), float(values[row])


def flatten(config, prefix=""):
    """Returns the leaves of a nested dict as {'section.field': value}, sorted by name."""
    leaves = {}
    for key, value in (config or {}).items():
        if isinstance(value, dict):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return dict(sorted(leaves.items()))


def differences(configs):
    """Returns {field: [one value per config]} of the fields that differ; None if a config lacks the field."""
    flat = [flatten(config) for config in configs]
    fields = sorted(set().union(*flat))
    rows = {field: [leaves.get(field) for leaves in flat] for field in fields}
    return {field: values for field, values in rows.items() if any(value != values[0] for value in values)}


def choice(scores):
    """Returns one sentence: which checkpoint was scored, and how it was chosen."""
    where = ", ".join(f"{key} {scores[key]}" for key in ("epoch", "step") if scores.get(key) is not None)
    where = f" ({where})" if where else ""
    if scores.get("checkpoint") != "best":
        return f"{scores.get('checkpoint') or 'unrecorded'} checkpoint{where}, not chosen by a metric"
    return f"best checkpoint{where}, chosen on {monitor(scores.get('config')) or 'an unrecorded metric'}"


def unfinished(history, config, epoch=None):
    """Returns how far an unfinished run has got, as in 'epoch 1 of 2'; '' for others.

    history, config: of the run; epoch: of the scored checkpoint, 0 before the end of the first. A run ended by early
    stopping is finished; a run without a history or a config counts as finished too.
    """
    planned = ((config or {}).get("train") or {}).get("epochs")
    reached = int(_epoch(history, len(history) - 1)) if history else 0 if epoch == 0 else None
    if not planned or reached is None or reached >= planned:
        return ""
    numbered = [{**record, "epoch": _epoch(history, row)} for row, record in enumerate(history)]
    return "" if patience.ended_early(numbered, config) else f"epoch {reached} of {planned}"


def warnings(scores, history=()):
    """Returns the warnings that a reader must see before the numbers."""
    found = []
    if reached := unfinished(history, scores.get("config"), scores.get("epoch")):
        found.append(f"The run is unfinished: it is trained up to {reached}.")
    if scores.get("checkpoint") == "best" and scores.get("split") == "validation":
        found.append("These faces also chose the checkpoint: the scores are optimistic.")
    if scores.get("split") == "train":
        found.append("The model was trained on these faces: the scores say nothing about new ones.")
    empty = [row["class"] for row in scores["per_class"] if row["support"] == 0]
    if empty:
        found.append(f"No faces of {', '.join(empty)} in this split: macro averages count these classes as 0.")
    return found


def _epoch(history, row):
    value = _number(history[row].get("epoch"))
    return value if math.isfinite(value) else float(row + 1)


def _number(value):
    return float("nan") if value is None else float(value)
