"""From the command to its first step: programs are kept, nothing changes by it, and the time is split."""

import json
import os
import sys

import commands
import pytest

from fer_jax import command

SCORES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


def train(folder, cache_dir, *flags):
    """Runs a short training; returns (its scores, its record of the start, what it said)."""
    flags = (*commands.SMALL, "--config.train.epochs=1", f"--config.data.cache_dir={cache_dir}", *flags)
    result = commands.run("main", *flags, "--config.data.feeder=resident", f"--workdir={folder}")
    assert result.returncode == 0, result.stderr
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (start,) = [json.loads(line) for line in (folder / "startup.jsonl").read_text().splitlines()]
    return [events[-1][name] for name in SCORES], start, result.stderr


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Two runs with one cache, and one that keeps no programs."""
    root = tmp_path_factory.mktemp("starts")
    runs = {name: train(root / name, root / "cache") for name in ("cold", "warm")}
    runs["off"] = train(root / "off", root / "other", "--config.train.keep_compiled=False")
    return root, runs


@pytest.mark.full
def test_a_second_start_does_not_say_again_that_nothing_is_kept(starts):
    assert "are not kept" not in starts[1]["warm"][2]


@pytest.mark.full
def test_a_second_start_compiles_nothing(starts):
    root, runs = starts
    cold, warm = runs["cold"][1], runs["warm"][1]
    if "does not load its own programs" in runs["cold"][2]:
        pytest.skip("XLA does not load what it compiles for this CPU")
    assert cold["programs_kept"] < cold["programs"]
    assert warm["programs_kept"] == warm["programs"] > 0
    assert list((root / "cache" / "compiled").glob("*/*-cache"))


@pytest.mark.full
def test_scores_are_the_same_with_and_without_kept_programs(starts):
    _, runs = starts
    assert runs["cold"][0] == runs["warm"][0] == runs["off"][0]


@pytest.mark.full
def test_switched_off_nothing_is_kept(starts):
    root, runs = starts
    assert runs["off"][1]["programs_kept"] == 0
    assert not (root / "other" / "compiled").exists()


@pytest.mark.full
def test_the_parts_of_the_start_add_up_to_it(starts):
    _, runs = starts
    for _, start, stderr in runs.values():
        assert sum(start["parts"].values()) == pytest.approx(start["seconds"], rel=0.01)
        assert {"imports", "data", "compile", "step"} <= start["parts"].keys()
        assert min(start["parts"].values()) >= 0
        assert f"first step {start['seconds']:.1f} s after the command;" in stderr and "\n  imports " in stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
@pytest.mark.parametrize(
    ("tunables", "then"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=1", "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", None),
    ],
)
def test_huge_pages_are_asked_for_once_unless_the_user_chose(tunables, then, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    environ = {"HOME": "/home"} | ({"GLIBC_TUNABLES": tunables} if tunables else {})
    command.ask_for_huge_pages(environ, ["python", "-m", "fer_jax.main", "--config=a b"])
    if then is None:
        assert not calls
        return
    ((program, argv, given),) = calls
    assert program == sys.executable
    assert argv == [sys.executable, "-m", "fer_jax.main", "--config=a b"]
    assert given == {"HOME": "/home", "GLIBC_TUNABLES": then}
    command.ask_for_huge_pages(given, argv)
    assert len(calls) == 1
