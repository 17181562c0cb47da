"""The files of a run that are read back."""

import pytest

from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError


def test_read_json_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="no config here; train first"):
        workdir_lib.read_json(tmp_path / "config.json", what="config", mend="train first")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        workdir_lib.read_json(tmp_path / "config.json", what="config", mend="train first")


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
