"""Timing for all benchmarks: warm-up, waiting for results, alternation, medians and ratios.

It imports no libraries at its top, because the processes of other frameworks import it too.
"""

import functools
import statistics
import sys
import time

WARM_UP_SECONDS, LEAST_BATCHES = 1.0, 2
DRAWS = 10_000


def seconds(function, *args, **options):
    """Calls a function and waits for JAX's results; returns (its result, the seconds)."""
    started = time.perf_counter()
    result = function(*args, **options)
    if jax := sys.modules.get("jax"):
        jax.block_until_ready(result)
    return result, time.perf_counter() - started


def take_turns(works: dict, rounds: int, *, warm_up: int = 0, alternate: bool = False):
    """Yields {name: result} of each round, in which the works are called one after another.

    warm_up: earlier rounds, which are not yielded; alternate: runs the first, third, ... round in reverse order.
    """
    for number in range(-warm_up, rounds):
        names = reversed(works) if alternate and number % 2 == 0 else works
        done = {name: works[name]() for name in names}
        if number >= 0:
            yield done


def seconds_in_turn(calls: dict, rounds: int) -> dict[str, list[float]]:
    """Returns {name: [seconds of each round]} of functions without arguments; an extra first round compiles them."""
    works = {name: functools.partial(seconds, call) for name, call in calls.items()}
    done = list(take_turns(works, rounds, warm_up=1))
    return {name: [one[name][1] for one in done] for name in calls}


class Stepper:
    """A train step as a function without arguments; each call advances the state.

    sums: of the last step.
    """

    def __init__(self, step, state, batch):
        self._step, self._state, self._batch, self.sums = step, state, batch, None

    def __call__(self):
        """Runs a step; returns (state, sums)."""
        self._state, self.sums = self._step(self._state, self._batch)
        return self._state, self.sums


class Batches:
    """Runs a system, whose methods each do a kind of work on a number of batches, for a number of seconds.

    A method returns when its results are ready; it returns the seconds if it times itself, else None.
    """

    def __init__(self, system, batch: int):
        self.system, self._batch, self._batch_seconds = system, batch, {}

    def measure(self, kind: str, seconds: float) -> dict:
        """Returns {"images", "seconds"} for about `seconds` of work, in whole batches; the first call warms up."""
        if kind not in self._batch_seconds:
            self.run(kind, 1)  # compiles
            self.run(kind, 1)
            if self._batch_seconds[kind] < WARM_UP_SECONDS / LEAST_BATCHES:
                self.run(kind, self._batches(kind, min(seconds, WARM_UP_SECONDS)))
        batches = self._batches(kind, seconds)
        return {"images": batches * self._batch, "seconds": self.run(kind, batches)}

    def run(self, kind: str, batches: int) -> float:
        """Returns the seconds for some batches."""
        counted, took = seconds(getattr(self.system, kind), batches)
        self._batch_seconds[kind] = (counted or took) / batches
        return counted or took

    def _batches(self, kind, seconds):
        return max(LEAST_BATCHES, round(seconds / self._batch_seconds[kind]))


def calls_per_second(function, at_least: float) -> float:
    """Returns the calls per second of a function, which is called for at least `at_least` seconds."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < at_least:
        function()
        count += 1
    return count / (time.perf_counter() - started)


def images_per_second(measured: dict) -> float:
    """Returns the speed of {"images", "seconds"}."""
    return measured["images"] / measured["seconds"]


def spread(values) -> dict:
    """Returns the median, the smallest and the largest of some values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(ours, theirs) -> dict:
    """Returns the spread of the ratios of our values to theirs in the same round, and all ratios as `rounds`."""
    each = [our / their for our, their in zip(ours, theirs, strict=True)]
    return {**spread(each), "rounds": each}


def interval_95(values) -> list[float]:
    """Returns the 95% bootstrap interval of the median of some values."""
    import numpy as np

    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values)))
    return np.quantile(np.median(drawn, 1), (0.025, 0.975)).tolist()
