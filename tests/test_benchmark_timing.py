"""benchmarks/timing.py: turns, warm-up, waiting for results, and the statistics of rounds."""

import pathlib
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
import timing


class Clock:
    """Stands in the place of `time`; what is done moves it on."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: self.now))

    def work(self, seconds, result=None):
        """Returns a function that takes so long."""

        def call(*_):
            self.now += seconds
            return result

        return call


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Pending:
    """A result that is there five seconds after it is waited for."""

    def __init__(self, clock):
        self.block_until_ready = clock.work(5)


def test_seconds_are_those_until_the_result_is_there(clock):
    result, seconds = timing.seconds(clock.work(2, {"loss": Pending(clock), "step": 3}), "argument")
    assert seconds == 7 and result["step"] == 3


@pytest.mark.parametrize(
    ("alternate", "order"), [(False, ["abc", "abc", "abc", "abc"]), (True, ["abc", "cba", "abc", "cba"])]
)
def test_works_take_turns_and_the_warm_up_is_not_given(alternate, order):
    done = []
    works = {name: lambda name=name: done.append(name) or len(done) for name in "abc"}
    given = list(timing.take_turns(works, 3, warm_up=1, alternate=alternate))
    assert ["".join(done[start : start + 3]) for start in range(0, 12, 3)] == order
    assert given == [{name: 3 * turn + order[turn].index(name) + 1 for name in "abc"} for turn in (1, 2, 3)]


def test_seconds_in_turn_leave_the_round_that_compiles_out(clock):
    takes = {"first": iter([90, 1, 2]), "second": iter([80, 3, 4])}
    calls = {name: lambda some=some: clock.work(next(some))() for name, some in takes.items()}
    assert timing.seconds_in_turn(calls, 2) == {"first": [1, 2], "second": [3, 4]}


def test_a_stepper_steps_on_from_the_last_state():
    stepper = timing.Stepper(lambda state, batch: (state + batch, {"loss": state}), jnp.float32(1), 2)
    timing.seconds_in_turn({"step": stepper}, 3)
    assert stepper.sums["loss"] == 1 + 3 * 2
    assert stepper()[0] == 1 + 5 * 2


def test_calls_a_second_count_whole_calls(clock):
    assert timing.calls_per_second(clock.work(0.75), 2) == pytest.approx(3 / 2.25)


class System:
    """A kind of work whose batches take two seconds, by the clock or by its own count."""

    def __init__(self, clock):
        self.asked, self._clock = [], clock

    def train(self, batches):
        self.asked.append(batches)
        self._clock.now += 2 * batches

    def predict(self, batches):
        self.asked.append(batches)
        self._clock.now += 99
        return 0.25 * batches


def test_batches_fill_the_seconds_that_are_asked_for(clock):
    batches = timing.Batches(System(clock), 8)
    assert batches.measure("train", 7) == {"images": 4 * 8, "seconds": 8}
    assert batches.measure("train", 0.1) == {"images": 2 * 8, "seconds": 4}
    assert batches.system.asked == [1, 1, 4, 2]  # it compiles, and batches as long as these warm up at once


def test_a_system_that_times_itself_is_believed(clock):
    batches = timing.Batches(System(clock), 8)
    assert timing.images_per_second(batches.measure("predict", 3)) == 8 / 0.25
    assert batches.system.asked == [1, 1, 4, 12]  # a second of work warms short ones up


def test_statistics_are_those_of_numpy():
    ours, theirs = np.random.default_rng(0).uniform(1, 2, (2, 10)).tolist()
    found, expected = timing.ratios(ours, theirs), np.array(ours) / theirs
    assert found["rounds"] == expected.tolist()
    assert (found["median"], found["min"], found["max"]) == (np.median(expected), expected.min(), expected.max())
    low, high = timing.interval_95(found["rounds"])
    assert found["min"] < low < found["median"] < high < found["max"]
    # Of the order statistics of ten values, the second and the ninth bound the median with 97.9% (binomial).
    second, ninth = np.sort(expected)[[1, 8]]
    assert second <= low and high <= ninth
    assert timing.interval_95([2.0] * 5) == [2.0, 2.0]
