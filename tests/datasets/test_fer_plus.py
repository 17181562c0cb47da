"""FER+ labels and targets: the protocol of Barsoum et al. 2016 against a transcription, and on the real votes."""

import numpy as np
import pytest

from fer_jax import datasets
from fer_jax.datasets import facts, fer_plus, tables
from fer_jax.datasets.faces import Faces
from fer_jax.errors import InputError

UNKNOWN, NOT_A_FACE = 8, 9


def faces_with(votes, labels=None):
    votes = np.asarray(votes, np.uint8)
    labels = np.zeros(len(votes), np.int32) if labels is None else np.asarray(labels, np.int32)
    images = np.arange(len(votes), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return Faces(images, labels, votes)


def majority(row):
    """Returns the category that a face's votes name, None without a majority; row by row, as the paper says it."""
    row = [0 if count == 1 else int(count) for count in row]
    most = max(row)
    return row.index(most) if most > sum(row) / 2 else None


def random_votes(count):
    rng = np.random.default_rng(0)
    return np.stack([rng.multinomial(10, rng.dirichlet(np.full(10, 0.3))) for _ in range(count)]).astype(np.uint8)


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0),
        ([0, 0, 0, 5, 1, 1, 1, 1, 1, 0], 3),  # single votes do not count
        ([0, 0, 0, 5, 0, 5, 0, 0, 0, 0], None),  # a tie
        ([0, 0, 0, 5, 0, 3, 2, 0, 0, 0], None),  # exactly half
        ([0, 0, 0, 5, 0, 3, 1, 0, 0, 1], 3),
        ([0, 4, 0, 0, 0, 0, 0, 0, 4, 2], None),  # votes for no class count too
        ([0, 0, 0, 0, 0, 0, 0, 6, 2, 2], 7),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None),
        ([0, 3, 0, 0, 0, 0, 0, 0, 7, 0], UNKNOWN),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], NOT_A_FACE),
        ([0, 200, 0, 0, 0, 0, 0, 0, 90, 90], 1),  # more than a byte in sum
    ],
)
def test_a_label_is_a_majority_of_the_votes_that_count(votes, label):
    assert majority(votes) == label  # the transcription is of the same opinion
    relabelled, (note,) = fer_plus.relabel({"train": faces_with([votes])})
    found = relabelled["train"]
    assert found.labels.tolist() == ([label] if label is not None and label < 8 else [])
    reasons = {None: "no majority 1", UNKNOWN: "unknown 1", NOT_A_FACE: "not a face 1"}
    assert reasons.get(label, "train 1 of 1") in note


def test_labels_of_many_faces_are_those_of_the_transcription():
    votes = random_votes(500)
    expected = [majority(row) for row in votes]
    kept = [position for position, label in enumerate(expected) if label is not None and label < 8]
    assert 100 < len(kept) < 400
    found = fer_plus.relabel({"train": faces_with(votes)})[0]["train"]
    assert found.labels.tolist() == [expected[position] for position in kept]
    assert found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.votes, votes[kept])
    np.testing.assert_array_equal(found.images, faces_with(votes).images[kept])


@pytest.mark.parametrize(
    "classes", [fer_plus.CLASSES, facts.CLASSES, ("sad", "happy", "surprise"), ("fear", "contempt")]
)
def test_targets_are_shares_of_the_votes_for_the_classes(classes):
    votes, labels = random_votes(300), np.arange(300) % len(classes)
    category = {"sad": "sadness", "happy": "happiness", "angry": "anger"}
    expected = []
    for row, label in zip(votes, labels, strict=True):
        counts = [row[facts.VOTES.index(category.get(name, name))] for name in classes]
        counts = [0 if count == 1 else int(count) for count in counts]
        one_hot = [float(k == label) for k in range(len(classes))]
        expected.append([count / sum(counts) for count in counts] if sum(counts) else one_hot)
    targets, note = fer_plus.make_targets(faces_with(votes, labels), classes)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets, expected, rtol=1e-6)
    without = sum(max(row[fer_plus.columns(classes)]) < 2 for row in votes)
    assert without and f"{without} have no vote for any class" in note


@pytest.fixture
def table(files, rows, tmp_path):
    return files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))


@pytest.fixture
def votes(files, rows, tmp_path):
    return str(files.write_votes(tmp_path / "votes.csv", rows))


def test_a_set_with_fer_plus_labels(files, rows, table, votes, make_data):
    seven = datasets.load(make_data(table, votes_path=votes))
    data = datasets.load(make_data(table, votes_path=votes, labels="fer+"))  # out of what was prepared for the other
    assert data.classes == ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
    for split in facts.SPLITS:
        names = np.array(data.classes)[data.split(split).labels]
        expected = np.array(["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"])
        np.testing.assert_array_equal(names, expected[rows.labels[rows.of(split)]])
    assert data.fingerprint != seven.fingerprint
    assert datasets.load(make_data(table, votes_path=votes)).fingerprint == seven.fingerprint
    (note,) = [text for text in data.notes if "majorities of the FER+ votes" in text]
    assert "train 70 of 70" in note and "test 21 of 21" in note
    drawn = datasets.load(make_data(table, votes_path=votes, labels="fer+", classes=("fear", "anger")))
    assert drawn.classes == ("fear", "anger") and len(drawn.train) == 20


def test_other_votes_are_another_set(files, rows, table, make_data, tmp_path):
    first = str(files.write_votes(tmp_path / "first.csv", rows))
    second = str(files.write_votes(tmp_path / "second.csv", rows, agree=False))
    one, two = (datasets.load(make_data(table, votes_path=path, labels="fer+")) for path in (first, second))
    assert one.fingerprint != two.fingerprint
    assert (one.train.labels != two.train.labels).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "fer-plus"}, "data.labels is 'fer-plus'; it should be one of fer2013, fer+"),
        ({"labels": "fer+", "path": ""}, "FER+ labels belong to FER-2013, and the faces are drawn_faces"),
        ({"labels": "fer+"}, "data.labels is fer+: give data.votes_path"),
    ],
)
def test_fer_plus_labels_need_fer2013_and_votes(table, make_data, fields, message):
    with pytest.raises(InputError) as caught:
        datasets.load(make_data(**{"path": table, **fields}))
    assert message in str(caught.value)


def test_a_split_without_a_majority_is_refused(files, rows, table, make_data, tmp_path):
    lines = files.write_votes(tmp_path / "votes.csv", rows).read_text().splitlines()
    lines = [line if "PrivateTest" not in line else ",".join([*line.split(",")[:2], *"5500000000"]) for line in lines]
    other = str(files.write(tmp_path / "other.csv", "\n".join(lines)))
    with pytest.raises(InputError, match=r"split test holds no faces with a majority of FER\+ votes"):
        datasets.load(make_data(table, votes_path=other, labels="fer+"))


def test_vote_targets_are_of_the_training_faces_alone(table, votes, make_data):
    data = datasets.with_vote_targets(datasets.load(make_data(table, votes_path=votes, train_faces=35)))
    assert data.validation.targets is None and data.test.targets is None
    np.testing.assert_array_equal(data.train.targets, np.eye(7)[data.train.labels])  # of 8 votes, all for the label
    assert data.targets_digest.startswith("sha256:")
    assert "35 training faces" in data.notes[-1]
    with pytest.raises(InputError, match=r"loss\.targets is votes, but these faces \(fer2013\) have none"):
        datasets.with_vote_targets(datasets.load(make_data(table)))


def test_the_real_votes_leave_these_faces(real):
    usages, votes = tables.read_votes(real / "ferplus/fer2013new.csv")
    parts = {name: faces_with(votes[np.array(usages) == usage]) for usage, name in facts.USAGES.items()}
    relabelled, (note,) = fer_plus.relabel(parts)
    for split, part in parts.items():
        labels = [majority(row) for row in part.votes.tolist()]
        assert relabelled[split].labels.tolist() == [label for label in labels if label is not None and label < 8]
    assert note.endswith(
        "train 25,060 of 28,709 (dropped: no majority 3,423, unknown 76, not a face 150); "
        "validation 3,199 of 3,589 (dropped: no majority 367, unknown 13, not a face 10); "
        "test 3,153 of 3,589 (dropped: no majority 410, unknown 10, not a face 16)."
    )
