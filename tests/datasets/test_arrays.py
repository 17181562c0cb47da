"""Sets where TFDS is not installed: the same faces, read once."""

import numpy as np
import pytest

from fer_jax import datasets
from fer_jax.datasets import facts, readings
from fer_jax.errors import InputError


@pytest.fixture
def table(files, rows, tmp_path):
    return files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))


def assert_same(one, other):
    assert (one.name, one.classes, one.fingerprint, one.notes, one.synthetic) == (
        *(other.name, other.classes, other.fingerprint, other.notes, other.synthetic),
    )
    for split in facts.SPLITS:
        for field in ("images", "labels", "votes"):
            mine, theirs = (getattr(data.split(split), field) for data in (one, other))
            np.testing.assert_array_equal(mine, theirs)
            assert (mine is None) == (theirs is None) and (mine is None or mine.dtype == theirs.dtype)


@pytest.mark.parametrize("what", ["table", "votes", "folders", pytest.param("drawn", marks=pytest.mark.full)])
def test_a_set_is_the_same_without_tfds(what, files, make_data, monkeypatch, tmp_path):
    rows, fields = files.Rows(), {}
    path = files.write(tmp_path / "fer2013.csv", files.to_csv(rows.cells()))
    if what == "votes":
        fields = {"votes_path": str(files.write_votes(tmp_path / "fer2013new.csv", rows))}
    elif what == "folders":
        path = files.write_pictures(tmp_path / "folders", rows, named=False)
    elif what == "drawn":
        path, fields = "", {"drawn_size": "tiny"}
    with_tfds = datasets.load(make_data(path, **fields))
    monkeypatch.setattr(datasets, "_has_tfds", lambda: False)
    for _ in range(2):  # read, and taken from the file
        assert_same(datasets.load(make_data(path, **fields)), with_tfds)
    assert list((tmp_path / "cache" / "arrays").glob("*.npz"))


def change_a_face(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:1000])


def another_set(path):
    with np.load(path) as kept:
        np.savez(path, **{**kept, "train/labels": np.zeros_like(kept["train/labels"])})


@pytest.mark.parametrize("change", [None, change_a_face, cut_off, another_set])
def test_faces_are_read_again_only_where_their_file_is_corrupt(change, table, make_data, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "_has_tfds", lambda: False)
    first, calls, read = datasets.load(make_data(table)), [], readings.read
    monkeypatch.setattr(readings, "read", lambda *a, **k: calls.append(a) or read(*a, **k))
    if change:
        change(next((tmp_path / "cache" / "arrays").glob("*.npz")))
    for _ in range(2):
        assert_same(datasets.load(make_data(table)), first)
    assert len(calls) == (1 if change else 0)


def test_a_cache_that_cannot_be_written_is_named(table, make_data, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "_has_tfds", lambda: False)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be written .*see data\.cache_dir"):
        datasets.load(make_data(table))
