"""A profile has the steps that were asked for, begins and ends once they are computed, and does no harm."""

import collections
import gzip
import json
import re
import types

import jax
import jax.numpy as jnp
import pytest
import tiny

from fer_jax import train
from fer_jax.runtime import profiling

STEPS_PER_EPOCH = 12


class Sums:
    """The sums of a chunk, which say when they are waited for."""

    def __init__(self, log, step):
        self._log, self._step = log, step

    def block_until_ready(self):
        self._log.append(("waited for", self._step))
        return self


@pytest.fixture
def events(monkeypatch):
    """What the profiler does, in order: ('start', folder), ('stop',), ('waited for', step)."""
    log = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: log.append(("start", folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: log.append(("stop",)))
    return log


def run(profiler, log, chunks):
    """Passes chunks (last step, steps) to a profiler; returns what it did: [(step after which, what)]."""
    for step, steps in chunks:
        before = len(log)
        profiler.after(types.SimpleNamespace(step=step, steps=steps), Sums(log, step))
        did = log[before:]
        assert did in ([], [("waited for", step), ("start", profiler._folder)], [("waited for", step), ("stop",)])
    return log


def make(folder, steps=3, from_step=2):
    return profiling.Profiler(folder, steps=steps, from_step=from_step, steps_per_epoch=STEPS_PER_EPOCH)


def traced(log):
    """Returns [(last step before a trace, last step in it)]."""
    waits = [step for what, *rest in log for step in rest if what == "waited for"]
    return list(zip(waits[::2], waits[1::2], strict=True))


ONE_BY_ONE = [(step, 1) for step in range(1, 2 * STEPS_PER_EPOCH + 1)]


@pytest.mark.parametrize(
    ("asked", "chunks", "expected"),
    [
        ((3, 2), ONE_BY_ONE, [(1, 4)]),
        ((3, 6), ONE_BY_ONE, [(5, 8)]),
        ((1, 6), ONE_BY_ONE, [(5, 6)]),
        ((5, 10), ONE_BY_ONE, [(9, 12)]),  # the epoch ends first
        ((5, 12), ONE_BY_ONE, [(11, 12)]),
        ((3, 13), ONE_BY_ONE, [(13, 16)]),  # the first step of an epoch comes after validation
        ((3, 2), ONE_BY_ONE[7:], [(8, 11)]),  # resumed after step 7: its first step compiles
        ((6, 2), [(4, 4), (8, 4), (12, 4), (16, 4)], [(4, 12)]),  # chunks are traced whole
        ((0, 2), ONE_BY_ONE, []),
    ],
)
def test_the_steps_that_were_asked_for_are_traced_once(tmp_path, events, asked, chunks, expected):
    profiler = make(tmp_path, *asked)
    run(profiler, events, chunks)
    profiler.close()
    assert traced(events) == expected
    assert collections.Counter(what for what, *_ in events)["start"] == len(expected)


def test_an_interrupt_ends_the_trace(tmp_path, events, caplog):
    profiler = make(tmp_path)
    run(profiler, events, ONE_BY_ONE[:2])
    profiler.close()
    profiler.close()
    assert [what for what, *_ in events] == ["waited for", "start", "stop"]
    assert not caplog.records


def test_a_profile_that_never_began_is_said(tmp_path, events, caplog):
    profiler = make(tmp_path)
    run(profiler, events, [(12, 12), (24, 12)])
    profiler.close()
    assert events == []
    (said,) = caplog.messages
    assert said.startswith("no profile is written") and "train.steps_per_dispatch" in said


def test_a_profiler_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    def start(*_, **__):
        raise RuntimeError("Profile has already been started. Only one profile may be run at a time.")

    monkeypatch.setattr(jax.profiler, "start_trace", start)
    profiler = make(tmp_path)
    for step in range(1, 6):
        profiler.after(types.SimpleNamespace(step=step, steps=1), jnp.zeros([]))
    profiler.close()
    assert [message.partition(": ")[0] for message in caplog.messages] == ["no profile is written"]


@pytest.mark.full
def test_a_training_writes_a_trace_of_its_steps(tmp_path, caplog):
    fields = {"log.profile_steps": 3, "log.profile_from_step": 4, "train.epochs": 1}
    config = tiny.make_config(tmp_path / "cache", **fields)
    with caplog.at_level("INFO", "fer_jax"):
        train.train(config, tmp_path / "run")
    (folder,) = (tmp_path / "run" / "profile" / "plugins" / "profile").iterdir()
    assert list(folder.glob("*.xplane.pb"))
    with gzip.open(folder / "perfetto_trace.json.gz") as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    assert len([name for name in names if re.fullmatch(r"\$dispatch\.py:\d+ __call__", name)]) == 3
    (said,) = [message for message in caplog.messages if message.startswith("profile of")]
    assert said.startswith(f"profile of 3 steps from step 4 on, in {tmp_path / 'run' / 'profile'}: ")
