"""Weights of BlazeFace that are on this machine, and a home folder without any."""

import pytest

from fer_jax import faces
from fer_jax.pretrained import fetch, registry

BLAZEFACES = tuple(row.name for row in registry.DETECTOR_ROWS)


@pytest.fixture(scope="session")
def weights():
    """Returns where the file of a BlazeFace lies, or skips the test."""

    def find(name):
        return fetch.find(registry.find(name)) or pytest.skip(f"no weights of {name}: make setup fetches them")

    return find


@pytest.fixture(scope="session")
def detector(weights):
    """Returns a detector by its name, each made once; a BlazeFace without weights skips the test."""
    made = {}

    def get(name):
        if name in BLAZEFACES:
            weights(name)
        if name not in made:
            made[name] = faces.make_detector(name)
        return made[name]

    return get
