"""Timing for all benchmarks: warm up, wait for results, take turns, and give medians and ratios.

Needs no library to be imported, for the processes of other frameworks import it too.
"""

import functools
import statistics
import sys
import time

WARM_UP_SECONDS, LEAST_BATCHES = 1.0, 2
DRAWS = 10_000


def seconds(function, *args, **options):
    """Calls a function and waits for what JAX computes in it; returns (its result, the seconds)."""
    started = time.perf_counter()
    result = function(*args, **options)
    if jax := sys.modules.get("jax"):
        jax.block_until_ready(result)
    return result, time.perf_counter() - started


def take_turns(works: dict, rounds: int, *, warm_up: int = 0, alternate: bool = False):
    """Yields {name: result} of each round, in which the works are called one after another.

    warm_up: rounds before these, which are not given; alternate: the first, third, ... round in reverse order.
    """
    for number in range(-warm_up, rounds):
        names = reversed(works) if alternate and number % 2 == 0 else works
        done = {name: works[name]() for name in names}
        if number >= 0:
            yield done


def seconds_in_turn(calls: dict, rounds: int) -> dict[str, list[float]]:
    """Returns {name: [seconds of each round]} of functions without arguments; a round before compiles them."""
    works = {name: functools.partial(seconds, call) for name, call in calls.items()}
    done = list(take_turns(works, rounds, warm_up=1))
    return {name: [one[name][1] for one in done] for name in calls}


class Stepper:
    """A training step as a function without arguments: each call takes it on the state that the last one left.

    sums: those of the last step.
    """

    def __init__(self, step, state, batch):
        self._step, self._state, self._batch, self.sums = step, state, batch, None

    def __call__(self):
        """Takes a step; returns (state, sums)."""
        self._state, self.sums = self._step(self._state, self._batch)
        return self._state, self.sums


class Batches:
    """A system whose methods each do a kind of work on so many batches, so that seconds of work can be asked for.

    A method returns the seconds where it times itself, else None, and returns when its results are there.
    """

    def __init__(self, system, batch: int):
        self.system, self._batch, self._batch_seconds = system, batch, {}

    def measure(self, kind: str, seconds: float) -> dict:
        """Returns {"images", "seconds"} of about so much work, whole batches; the first time it warms up before."""
        if kind not in self._batch_seconds:
            self.run(kind, 1)  # compiles
            self.run(kind, 1)
            if self._batch_seconds[kind] < WARM_UP_SECONDS / LEAST_BATCHES:
                self.run(kind, self._batches(kind, min(seconds, WARM_UP_SECONDS)))
        batches = self._batches(kind, seconds)
        return {"images": batches * self._batch, "seconds": self.run(kind, batches)}

    def run(self, kind: str, batches: int) -> float:
        """Returns the seconds of some batches."""
        counted, took = seconds(getattr(self.system, kind), batches)
        self._batch_seconds[kind] = (counted or took) / batches
        return counted or took

    def _batches(self, kind, seconds):
        return max(LEAST_BATCHES, round(seconds / self._batch_seconds[kind]))


def calls_per_second(function, at_least: float) -> float:
    """Returns the calls a second of a function that is called again until at least so many seconds have passed."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < at_least:
        function()
        count += 1
    return count / (time.perf_counter() - started)


def images_per_second(measured: dict) -> float:
    """Returns the speed of {"images", "seconds"}."""
    return measured["images"] / measured["seconds"]


def spread(values) -> dict:
    """Returns the median, the least and the largest of some values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(ours, theirs) -> dict:
    """Returns the spread of our values over theirs of the same round, and all of them as `rounds`."""
    each = [our / their for our, their in zip(ours, theirs, strict=True)]
    return {**spread(each), "rounds": each}


def interval_95(values) -> list[float]:
    """Returns the 95% bootstrap interval of the median of some values."""
    import numpy as np

    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values)))
    return np.quantile(np.median(drawn, 1), (0.025, 0.975)).tolist()
