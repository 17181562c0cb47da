"""Files are whole or absent: what is cut off leaves the old content and nothing else."""

import os
import stat
import subprocess
import sys

import pytest

from fer_jax import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("interrupt", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_content_and_no_litter(interrupt, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(interrupt), files.atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
        raise interrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["scores.json"]


def test_a_write_that_cannot_be_put_in_place_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"), files.atomic_write(path) as file:
        file.write("new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["scores.json"]


def test_two_writers_at_once_both_succeed_and_the_later_one_stays(tmp_path):
    path = tmp_path / "scores.json"
    with files.atomic_write(path, "wb") as first, files.atomic_write(path, "wb") as second:
        first.write(b"first" * 1000)
        second.write(b"second")
    assert path.read_bytes() == b"first" * 1000  # contexts end in the other order
    assert names(tmp_path) == ["scores.json"]


def test_a_reader_never_sees_half_a_file_while_processes_write_it(tmp_path):
    path = tmp_path / "scores"
    write = (
        "import sys\nfrom fer_jax import files\n"
        "for _ in range(100):\n"
        "  with files.atomic_write(sys.argv[1]) as file:\n"
        "    for _ in range(50):\n"
        "      print(sys.argv[2] * 100, file=file, flush=True)\n"
    )
    whole = {f"{letter * 100}\n" * 50 for letter in "ab"}
    writers = [subprocess.Popen([sys.executable, "-c", write, str(path), letter]) for letter in "ab"]
    while any(writer.poll() is None for writer in writers):
        assert not path.exists() or path.read_text() in whole
    assert [writer.returncode for writer in writers] == [0, 0]
    assert path.read_text() in whole
    assert names(tmp_path) == ["scores"]


def test_a_file_is_open_to_those_whom_the_umask_lets_in(tmp_path):
    before = os.umask(0o022)
    try:
        with files.atomic_write(tmp_path / "scores"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "scores").stat().st_mode) == 0o644
