"""Predictions for faces without labels: the file's form, its order, and tables that cannot be used."""

import csv

import commands
import numpy as np
import pytest
from PIL import Image

from fer_jax import config as config_lib
from fer_jax import datasets, inference, submission, train
from fer_jax.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on drawn faces, and its test faces as the challenge's test.csv."""
    root = tmp_path_factory.mktemp("runs")
    config = config_lib.get_default()
    config.model.layers = "conv 8 relu, max_pool, conv 8 relu, avg_pool, flatten"
    config.data.update({"drawn_size": "tiny", "name": "drawn_faces", "feeder": "resident"})
    config.train.update({"batch_size": 64, "epochs": 2})
    train.train(config, root / "run")
    faces = datasets.load(config.data).test
    lines = [" ".join(map(str, image.ravel())) for image in faces.images]
    (root / "test.csv").write_text("pixels\n" + "".join(f'"{line}"\n' for line in lines))
    return root, faces


def test_the_submission_has_a_class_for_each_row_in_its_order(run):
    root, faces = run
    result = commands.run("predict", "--workdir", root / "run", "--format", "kaggle", "--data_path", root / "test.csv")
    assert result.returncode == 0, result.stderr
    header, *rows = (root / "run" / "submission.csv").read_text().split("\n")[:-1]
    assert header == "emotion"
    model = inference.load(root / "run")
    logits = model.model.apply(model.variables, faces.images, train=False)
    assert [int(row) for row in rows] == np.argmax(logits, axis=-1).tolist()
    assert str(root / "run" / "submission.csv") in result.stdout


@pytest.mark.full
def test_a_folder_of_faces_gets_the_classes_and_probabilities_of_the_table(run, tmp_path):
    root, faces = run
    (tmp_path / "faces").mkdir()
    for number, image in enumerate(faces.images):
        Image.fromarray(image[..., 0]).save(tmp_path / "faces" / f"{number:04d}.png")
    submission.predict_table(root / "run", root / "test.csv", tmp_path / "table.csv", format="csv")
    words = ("--model", root / "run", "--faces", "given", "--format", "csv", "--out", tmp_path / "folder.csv")
    result = commands.run("predict", tmp_path / "faces", *words)
    assert result.returncode == 0, result.stderr
    table, folder = (
        list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines())) for name in ("table", "folder")
    )
    assert [row["label"] for row in folder] == [row["name"] for row in table]
    for mine, theirs in zip(folder, table, strict=True):
        assert [float(mine[c]) for c in datasets.facts.CLASSES] == pytest.approx(
            [float(theirs[c]) for c in datasets.facts.CLASSES], abs=2e-6
        )


def test_csv_adds_names_and_probabilities(run, tmp_path):
    root, _ = run
    counts = submission.predict_table(root / "run", root / "test.csv", tmp_path / "out.csv", format="csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    classes = datasets.facts.CLASSES
    for row in rows:
        probs = [float(row[name]) for name in classes]
        assert sum(probs) == pytest.approx(1, abs=1e-5)
        assert classes[np.argmax(probs)] == row["name"] == classes[int(row["emotion"])]
    assert counts == [sum(row["name"] == name for row in rows) for name in classes]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("emotion,Usage\n0,Training\n", "has no column 'pixels'"),
        ("pixels\n", "no rows"),
        ("pixels\n1 2 3\n" + " ".join(["7"] * 2304) + "\n", "1 broken rows.*row 2: 3 pixels; it should have 2304"),
        (None, "there is no such file"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(run, tmp_path, text, message):
    root, _ = run
    table = tmp_path / "test.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(InputError, match=rf"(?s){table}.*{message}"):
        submission.predict_table(root / "run", table, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(("place", "message"), [("run", "give a file as --out"), ("test.csv/out.csv", "another --out")])
def test_a_place_that_cannot_be_written_is_named_before_the_work(run, monkeypatch, place, message):
    root, _ = run
    monkeypatch.setattr(inference, "load", None)  # calling it would be an error of another kind
    with pytest.raises(InputError, match=message):
        submission.predict_table(root / "run", root / "test.csv", root / place)


def test_what_cannot_be_written_to_the_end_leaves_what_was_there(run, tmp_path, monkeypatch):
    root, _ = run
    out = tmp_path / "new" / "out.csv"
    submission.predict_table(root / "run", root / "test.csv", out)
    before = out.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"No space left on device.*give another --out"):
        submission.predict_table(root / "run", root / "test.csv", out, format="csv")
    assert out.read_text() == before
