"""FER+: labels and training targets from ten annotators' votes on each face of FER-2013.

Source: Barsoum et al. 2016, "Training deep networks for facial expression recognition with crowd-sourced label
distribution", and the preparation that was released with it. A category with a single vote is an outlier: that vote
does not count.

Labels (`data.labels` "fer+"): the category with more than half of the votes that count, those for `unknown` and `NF`
(not a face) among them. A tie has no such category. A face without one, or whose category is `unknown` or `NF`, is left
out, in every split. FER-2013's 28,709, 3,589 and 3,589 faces become 25,060, 3,199 and 3,153.

Targets (`loss.targets` "votes"): of class k its votes that count, divided by those of all classes of the run; `unknown`
and `NF` are not classes. This is the paper's cross-entropy scheme with one difference: the released preparation keeps
only the largest categories, at most three, up to three quarters of the votes; here all that count are kept.
"""

import numpy as np

from fer_jax import wording
from fer_jax.datasets import facts
from fer_jax.datasets.faces import Faces

CLASSES = facts.VOTES[:8]
_UNKNOWN, _NOT_A_FACE = map(facts.VOTES.index, ("unknown", "NF"))
# The category that means the same as a class of FER-2013, where the names differ.
_CATEGORIES = {"angry": "anger", "happy": "happiness", "sad": "sadness"}


def columns(classes) -> np.ndarray:
    """Returns the positions in facts.VOTES [K] of classes, by FER-2013's or FER+'s names."""
    return np.array([facts.VOTES.index(_CATEGORIES.get(name, name)) for name in classes])


def counted(votes) -> np.ndarray:
    """Returns votes int64 [N, 10] with single votes set to 0."""
    return np.where(votes > 1, votes, 0).astype(np.int64)


def relabel(faces):
    """Returns ({split: Faces} with FER+'s labels, positions in CLASSES, and a list of one note); see the module."""
    relabelled, lines = {}, []
    for split, part in faces.items():
        votes = counted(part.votes)
        winner = votes.argmax(axis=1)
        clear = 2 * votes.max(axis=1) > votes.sum(axis=1)
        kept = clear & (winner < len(CLASSES))
        relabelled[split] = Faces(part.images[kept], winner[kept].astype(np.int32), part.votes[kept])
        left_out = {
            "no majority": ~clear,
            "unknown": clear & (winner == _UNKNOWN),
            "not a face": clear & (winner == _NOT_A_FACE),
        }
        reasons = ", ".join(f"{name} {rows.sum():,}" for name, rows in left_out.items())
        lines.append(f"{split} {kept.sum():,} of {len(part):,} (dropped: {reasons})")
    return relabelled, [f"Labels are the majorities of the FER+ votes. Faces that have one: {'; '.join(lines)}."]


def make_targets(faces, classes):
    """Returns (targets float32 [N, K], a note): the distributions of the votes over `classes`; see the module.

    A face without a vote that counts for any of the classes has its one-hot label.
    """
    votes = counted(faces.votes)[:, columns(classes)]
    total = votes.sum(axis=1, keepdims=True)
    one_hot = np.eye(len(classes), dtype=np.float32)[faces.labels]
    targets = np.where(total > 0, votes / np.maximum(total, 1), one_hot).astype(np.float32)
    several = int((np.count_nonzero(votes, axis=1) > 1).sum())
    other = int((votes[np.arange(len(votes)), faces.labels] < votes.max(axis=1)).sum())
    note = (
        f"Training targets are the distributions of the FER+ votes: of {wording.count(len(faces), 'training face')} "
        f"{several:,} have votes for several classes, {other:,} have more votes for another class than for their "
        f"label's, and {int((total == 0).sum()):,} have no vote for any class and keep their label."
    )
    return targets, note
