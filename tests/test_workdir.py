"""The files of a run that are read back."""

import subprocess
import sys

import pytest

from fer_jax import workdir as workdir_lib
from fer_jax.errors import Busy, InputError

LOCKS = """
import sys, time
from fer_jax import workdir
with workdir.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_read_json_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="no config here; train first"):
        workdir_lib.read_json(tmp_path / "config.json", what="config", fix="train first")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        workdir_lib.read_json(tmp_path / "config.json", what="config", fix="train first")


def test_facts_name_the_machine_and_the_code():
    facts = workdir_lib.facts()
    assert facts["platform"] == "cpu"
    assert facts["device"]
    assert facts["packages"]["jax"]
    assert facts["commit"] == "unknown" or len(facts["commit"].removesuffix("-modified")) == 12


def test_a_copy_that_lies_in_another_repository_says_its_own_commit(monkeypatch):
    monkeypatch.setenv("FER_JAX_COMMIT", "0123456789ab")
    assert workdir_lib.commit() == "0123456789ab"


def test_a_copy_without_history_takes_its_commit_from_the_environment(monkeypatch):
    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(workdir_lib.subprocess, "run", no_git)
    monkeypatch.delenv("FER_JAX_COMMIT", raising=False)
    assert workdir_lib.commit() == "unknown"
    monkeypatch.setenv("FER_JAX_COMMIT", "0123456789ab-modified")
    assert workdir_lib.commit() == "0123456789ab-modified"


def test_a_workdir_is_held_by_one_process_until_it_ends_in_whatever_way(tmp_path):
    with subprocess.Popen([sys.executable, "-c", LOCKS, tmp_path / "run"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        message = r"run: another process is training here; wait for it, or give another"
        with pytest.raises(Busy, match=message), workdir_lib.lock(tmp_path / "run"):
            pass
        other.kill()
        other.wait()
    with workdir_lib.lock(tmp_path / "run"):
        (tmp_path / "run" / "config.json").write_text("{}")
    assert (tmp_path / "run").exists()


def test_nothing_is_left_of_a_run_that_did_not_begin(tmp_path):
    with pytest.raises(InputError, match="bad input"), workdir_lib.lock(tmp_path / "run"):
        raise InputError("bad input")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="cannot be written"), workdir_lib.lock("/proc/nothing"):
        pass
