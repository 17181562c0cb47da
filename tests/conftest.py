"""What every test runs under; set here before anything imports JAX, TensorFlow or Keras."""

import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["KERAS_BACKEND"] = "tensorflow"  # the reference shares no kernel with the package
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["MPLBACKEND"] = "agg"

import jax

jax.config.update("jax_num_cpu_devices", 2)  # so that what is sharded is sharded; the commands in tests keep one
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # compiles in a third of the time; arrays here are small

import pytest  # noqa: E402

STUBS = str(pathlib.Path(__file__).parent / "without_tensorflow")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join([STUBS, *(path for path in paths if path != STUBS)])
    sys.path.insert(0, STUBS)


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """Keeps what takes this process long to compile: many tests train the same network twice."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def is_full(item):
    return item.get_closest_marker("full") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what uses Keras as `full`, and puts it last: what comes before runs without TensorFlow and Keras."""
    for item in items:
        if "keras" in item.fixturenames:
            item.add_marker("full")
    result = yield
    items.sort(key=is_full)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Lets the first test that is `full`, and all after it, have TensorFlow and Keras."""
    if is_full(item) and STUBS in sys.path:
        sys.path[:] = [path for path in sys.path if path != STUBS]
        paths = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path != STUBS)


@pytest.fixture(scope="session")
def keras():
    """Keras 3 on TensorFlow, the reference of what the reports trained with; imported by those who need it."""
    import keras

    return keras


@pytest.fixture(scope="session")
def make_shardings():
    """Makes (batch, replicated) shardings over the first `count` devices."""

    def make(count):
        devices = jax.devices()[:count]
        mesh = jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
        return tuple(jax.sharding.NamedSharding(mesh, spec) for spec in (jax.P("data"), jax.P()))

    return make


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder of its own, where no file lies yet."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return folder
