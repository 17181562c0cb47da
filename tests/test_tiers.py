"""`make test` runs what is not marked `full`, and that has neither TensorFlow nor Keras."""

import importlib
import subprocess
import sys

import pytest

NAMES = ("tensorflow", "keras")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_full_cannot_import_it(name):
    assert name not in sys.modules
    with pytest.raises(AssertionError, match=f"{name} is imported by a test that is not marked `full`"):
        importlib.import_module(name)
    ran = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and f"{name} is imported by a test that is not marked `full`" in ran.stderr


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_what_is_full_finds_the_real_one(name):
    text = f"import importlib.util\nprint(importlib.util.find_spec({name!r}).submodule_search_locations is not None)"
    assert importlib.util.find_spec(name).submodule_search_locations
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"
