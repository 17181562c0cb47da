"""The modules of experiments/reports/, which import one another by their file names, for tests."""

import contextlib
import importlib
import importlib.util
import sys
import types

import commands

HERE = commands.ROOT / "experiments" / "reports"


def load(path):
    """Returns the module of a file, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"reports_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def imported():
    """Gives a namespace of the modules: run, jobs, processes, runfiles, schedule, systems, tables and so on."""
    names = [path.stem for path in HERE.glob("*.py")]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(HERE))
    try:
        yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(HERE))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(kept)
