"""What every test runs under; set here before anything imports JAX, TensorFlow or Keras."""

import os

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


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")


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
