"""The house plan as a test: imports run downwards, and what is heavy is imported late."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "fer_jax"

# From the top; a unit may import those of its own floor and of lower ones, without a circle.
FLOORS = {
    "entry": ("cli",),
    "commands": ("main", "evaluate", "ensemble", "predict", "search", "export", "serve"),
    "wiring": (
        "train",
        "wiring",
        "distillation",
        "run",
        "writer",
        "scoring",
        "seeds",
        "exports",
        "inference",
        "members",
        "study",
        "recognizer",
        "submission",
        "predicting",
    ),
    "parts": (
        "annotate",
        "augment",
        "averaging",
        "calibration",
        "cam",
        "checkpoint",
        "datasets",
        "drawings",
        "explain",
        "faces",
        "feature_cache",
        "feeders",
        "freezing",
        "gradients",
        "integrity",
        "live",
        "losses",
        "metric_writers",
        "metrics",
        "mixing",
        "models",
        "optim",
        "outputs",
        "patience",
        "pictures",
        "portable",
        "pretrained",
        "report",
        "saved_step",
        "significance",
        "space",
        "steps",
        "streams",
        "tracking",
        "videos",
        "views",
        "workdir",
    ),
    "ground": (
        "command",
        "config",
        "errors",
        "extensions",
        "faulty_releases",
        "fields",
        "files",
        "ops",
        "params",
        "runtime",
        "wording",
    ),
}
FLOOR = {unit: -number for number, units in enumerate(FLOORS.values()) for unit in units}

# Library -> the only files that may import it.
HOMES = {
    "tensorflow": {"feeders/host.py"},
    "tensorflow_datasets": {"datasets/"},
    "keras": set(),
    "flax": {"cam.py", "explain.py", "faces/networks.py", "models/", "steps.py"},
    "optax": {"averaging.py", "gradients.py", "optim.py", "steps.py"},
    "onnx": {"exports/"},
    "onnxruntime": {"exports/"},
    "orbax": {"checkpoint.py", "saved_step.py"},
    "optuna": {"search.py", "study.py", "report/"},
    "tensorboardX": {"metric_writers.py"},
    "wandb": {"metric_writers.py"},
    "mlflow": {"metric_writers.py"},
    "trackio": {"metric_writers.py"},
    "matplotlib": {"explain.py", "report/"},
    "cv2": {"faces/yunet.py", "live.py", "videos.py"},
    "h5py": {"pretrained/"},
    "skimage": {"faces/cascade.py"},
    "tflite": {"faces/tflite_file.py"},
    "safetensors": {"portable.py"},
    "fastapi": {"serve/"},
    "uvicorn": {"serve/"},
    "prometheus_client": {"serve/"},
}


def files():
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def imports(path):
    """Returns the dotted names that a file imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def unit_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def arrows():
    """Returns {(unit, unit that it imports)} within the package."""
    found = set()
    for path in files():
        inside = {name.split(".")[1] for name in imports(path) if name.startswith("fer_jax.")}
        found |= {(unit_of(path), unit) for unit in inside - {unit_of(path)}}
    return found


def test_every_module_has_a_floor():
    units = {unit_of(path) for path in files()} - {"__init__"}
    assert units == set(FLOOR), "give a new module its floor above"


def test_imports_run_downwards():
    upwards = {(unit, other) for unit, other in arrows() if unit != "__init__" and FLOOR[other] > FLOOR[unit]}
    assert not upwards, "commands start wiring, wiring joins parts, parts know parts and the ground"


def test_imports_have_no_circle():
    order = graphlib.TopologicalSorter()
    for unit, other in arrows():
        order.add(unit, other)
    order.prepare()  # raises CycleError, which names the circle


def test_the_package_itself_imports_only_the_guard_against_faulty_releases():
    assert imports(PACKAGE / "__init__.py") == {"fer_jax.faulty_releases", "fer_jax.recognizer"}
    script = "import sys, fer_jax; print({name for name in sys.modules if name.startswith('fer_jax.')})"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert ran.stdout == "{'fer_jax.faulty_releases'}\n"


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_at_home_alone(library):
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in files()
        if any(name.partition(".")[0] == library for name in imports(path))
    }
    strangers = {path for path in importers if not any(path.startswith(home) for home in HOMES[library])}
    assert not strangers
    assert bool(importers) == bool(HOMES[library])


@pytest.mark.parametrize("entry", FLOORS["commands"])
def test_help_answers_before_anything_heavy_is_imported(entry):
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['fer_jax.{entry}', '--help']\n"
        f"try: runpy.run_module('fer_jax.{entry}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit: pass\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print('loaded:', *sorted(roots & {'jax', 'tensorflow', 'flax', 'optax', 'orbax', 'sklearn', 'fer_jax'}))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=PACKAGE.parent
    )
    assert "--workdir" in ran.stdout or "--model" in ran.stdout, ran.stderr
    assert ran.stdout.splitlines()[-1] == "loaded: fer_jax"
