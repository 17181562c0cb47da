"""What can be known at once is said before data are read or a model is built: ranges, names, weight files."""

import importlib.util
import logging
import subprocess
import sys
import types

import numpy as np
import pytest
import tiny

from fer_jax import config as config_lib
from fer_jax import datasets, fields, train
from fer_jax import run as run_lib
from fer_jax.errors import InputError

NAN, INF = float("nan"), float("inf")


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_number_has_a_range_in_which_its_default_lies():
    for name, field in fields.FIELDS.items():
        assert bool(field.within) == is_number(field.default), f"{name}: give its range, as '[0, inf)'"
        assert field.allows(field.default), name
        assert field.about, name


@pytest.mark.parametrize(
    ("within", "inside", "outside", "words"),
    [
        ("[0, inf)", (0, 7.5, 10**400), (-1e-9, INF, NAN, -INF), "0 or more"),
        ("(0, inf)", (1e-300,), (0, -1, NAN, INF), "more than 0"),
        ("[0, 1)", (0, 0.99), (1, -0.1, NAN), "0 to under 1"),
        ("[0.02, 1]", (0.02, 1), (0.01, 1.1, NAN), "0.02 to 1"),
    ],
)
def test_a_range_is_the_interval_that_it_is_written_as(within, inside, outside, words):
    field = fields.Field(0.0, "", within)
    assert all(map(field.allows, inside))
    assert not any(map(field.allows, outside))
    assert field.range == words


@pytest.fixture
def without_data(monkeypatch):
    """Makes reading data an error of another kind."""
    monkeypatch.setattr(datasets, "load", None)


@pytest.mark.usefixtures("without_data")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optim.learning_rate", NAN),
        ("optim.learning_rate", INF),
        ("optim.fine_tune.learning_rate", NAN),
        ("optim.clip_norm", NAN),
        ("optim.clip_norm", INF),
        ("optim.clip_norm", -1.0),
        ("optim.momentum", 2.0),
        ("optim.momentum", -0.5),
        ("optim.weight_decay", -0.1),
        ("optim.decay_steps", 0),
        ("optim.decay_rate", NAN),
        ("optim.warmup_epochs", -1.0),
        ("optim.plateau.factor", 1.0),
        ("optim.plateau.factor", 1.5),
        ("optim.plateau.patience_epochs", -1),
        ("loss.l2", NAN),
        ("loss.l2", INF),
        ("loss.l2", -0.1),
        ("train.early_stopping.patience_epochs", -2),
        ("train.early_stopping.min_delta", NAN),
        ("train.steps_per_dispatch", -3),
        ("train.checkpoint_every_steps", -1),
        ("data.split_seed", -1),
        ("seed", 2**32),
    ],
)
def test_a_number_out_of_its_range_is_refused_before_the_data(name, value):
    config = config_lib.get_default()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(InputError) as caught:
        run_lib.build(config)
    assert str(caught.value).startswith(f"{name} is {value}: give {fields.FIELDS[name].range} (")


@pytest.mark.usefixtures("without_data")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optim.name": "adamax"}, "optim.name is 'adamax'"),
        ({"optim.schedule": "linear"}, "optim.schedule is 'linear'"),
        ({"model.name": "resnet51"}, "model.name is 'resnet51'"),
        ({"model.name": "cnn", "model.layers": "conv 8 relu, flattn"}, "unknown layer 'flattn'"),
        ({"model.weights": "{folder}/text.h5"}, "text.h5 is not an HDF5 file"),
        ({"model.weights": "{folder}/none.h5"}, "no weights '.*none.h5'"),
    ],
)
def test_a_name_or_weight_file_that_cannot_be_used_is_said_before_the_data(changed, message, tmp_path):
    (tmp_path / "text.h5").write_text("not weights")
    changed = {name: value.replace("{folder}", str(tmp_path)) for name, value in changed.items()}
    with pytest.raises(InputError, match=message):
        run_lib.build(tiny.make_config(tmp_path, **changed))


@pytest.mark.usefixtures("without_data")
@pytest.mark.parametrize(
    ("name", "module"),
    [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow"), ("trackio", "trackio")],
)
@pytest.mark.parametrize("found", [None, types.SimpleNamespace(origin=None)], ids=["nothing", "a folder of its name"])
def test_a_writer_that_is_not_installed_is_named_before_the_data(tmp_path, monkeypatch, name, module, found):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: found if asked == module else find_spec(asked))
    with pytest.raises(InputError, match=rf"log\.writers names {name}, .* {module}: pip install 'fer-jax\[{name}\]'"):
        run_lib.build(tiny.make_config(tmp_path, **{"log.writers": (name,)}))


@pytest.mark.usefixtures("without_data")
def test_an_unknown_writer_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="names 'wandbb'; known are tensorboard, wandb, mlflow, trackio"):
        run_lib.build(tiny.make_config(tmp_path, **{"log.writers": ("wandbb",)}))


def test_a_batch_that_is_larger_than_the_training_data_is_refused(tmp_path):
    config = tiny.make_config(tmp_path, **{"data.train_faces": 50, "train.batch_size": 64})
    with pytest.raises(
        InputError, match=r"train\.batch_size is 64, more than the 50 training faces .* give 50 or less"
    ):
        run_lib.build(config)
    config.train.batch_size = 50
    assert run_lib.build(config).steps_per_epoch == 1


def test_training_faces_of_one_class_are_refused(tmp_path, monkeypatch):
    happy = datasets.Faces(np.zeros((80, 48, 48, 1), np.uint8), np.full(80, 3, np.int32))
    data = datasets.load(tiny.make_config(tmp_path).data)
    monkeypatch.setattr(datasets, "load", lambda section: datasets.FaceData(**{**vars(data), "train": happy}))
    with pytest.raises(InputError, match="all 80 training faces are of the class happy: training needs two"):
        run_lib.build(tiny.make_config(tmp_path))


@pytest.mark.full
def test_a_rate_at_which_the_loss_explodes_is_said(tmp_path, caplog):
    config = tiny.make_config(tmp_path / "cache", **{"train.epochs": 2, "optim.learning_rate": 1e6})
    best = train.train(config, tmp_path / "run")
    assert np.isfinite(best["train_loss"])
    (warning,) = [
        message for name, level, message in caplog.record_tuples if (name, level) == ("fer_jax", logging.WARNING)
    ]
    assert "the training has probably diverged" in warning
    assert "lower optim.learning_rate" in warning


@pytest.mark.parametrize(("path", "is_shown"), [("/lib/orbax/checkpoint/reading.py", False), ("/lib/mine.py", True)])
def test_reads_that_orbax_abandons_show_no_traceback(path, is_shown):
    """A coroutine is dropped while it waits, and raises as it is closed; only Orbax's own are silent."""
    source = (
        "async def read():\n    try:\n        await wait()\n    except GeneratorExit:\n        raise Exception('cut')"
    )
    text = (
        "import types\nfrom fer_jax import command\n"
        "@types.coroutine\ndef wait():\n    yield\n"
        f"exec(compile({source!r}, {path!r}, 'exec'))\n"
        "def main():\n    one = read()\n    one.send(None)\n    del one\n"
        "command.run(lambda: main())"
    )
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert ("Traceback" in result.stderr) == is_shown, result.stderr
