"""A finished run is given more epochs: it ends as one that had them from the start, or says why it cannot."""

import json

import pytest
import tiny
from test_interrupts import assert_same_runs

from fer_jax import train
from fer_jax.errors import InputError

NETWORK = {
    "model.name": "cnn",
    "model.layers": "conv 4 relu, batch_norm, max_pool, dropout 0.1, flatten",
    "model.size_px": 16,
}


@pytest.fixture
def run(tmp_path):
    """Trains in a folder of the test; returns it."""

    def run(name, epochs, **fields):
        config = tiny.make_config(tmp_path / "cache", **{**NETWORK, **fields, "train.epochs": epochs})
        train.train(config, tmp_path / name)
        return tmp_path / name

    return run


@pytest.mark.full
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"optim.plateau.patience_epochs": 1, "optim.plateau.min_delta": 0.5, "optim.schedule": "exponential"},
        {"optim.freeze": ("conv2d",), "optim.fine_tune.after_epochs": 1},
    ],
    ids=["constant", "plateau and exponential", "two phases"],
)
def test_a_run_with_more_epochs_is_the_one_that_had_them_from_the_start(run, fields):
    whole = run("whole", 4, **fields)
    for epochs in (2, 3, 4):
        later = run("later", epochs, **fields)
    assert_same_runs(whole, later)
    assert json.loads((later / "config.json").read_text()) == json.loads((whole / "config.json").read_text())
    more = json.loads((later / "run.json").read_text())["more_epochs"]
    assert [(step["from"], step["to"]) for step in more] == [(2, 3), (3, 4)]


@pytest.mark.full
def test_fewer_epochs_are_another_run(run):
    folder = run("run", 2)
    before = (folder / "config.json").read_text()
    with pytest.raises(InputError, match=r"holds a run with another config:\s+train.epochs: 2, now 1\s"):
        run("run", 1)
    assert (folder / "config.json").read_text() == before


@pytest.mark.full
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"optim.schedule": "cosine"}, "a cosine schedule depends on train.epochs"),
        (
            {"train.early_stopping.patience_epochs": 9},
            "ended with the variables of its best epoch, 1, not of its last",
        ),
        (
            {"train.early_stopping.patience_epochs": 1, "train.early_stopping.restore_best": False},
            "the run stopped early",
        ),
    ],
    ids=["cosine", "best variables", "stopped early"],
)
def test_a_run_that_cannot_be_given_more_epochs_says_why_and_stays_as_it_is(run, fields, reason):
    # The first epoch is the best one: at a rate of 1e-30 a network without statistics stays what it is.
    fields = {**fields, "optim.learning_rate": 1e-30, "model.layers": "conv 4 relu, max_pool, flatten"}
    folder = run("run", 2, **fields)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=rf"train.epochs: 2, now 3\s+.*{reason}"):
        run("run", 3, **fields)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


CORRUPTIONS = {
    "a line that is no JSON": (
        "metrics.jsonl",
        lambda text: text.replace('{"kind"', '{"ki', 1),
        "line 1 is not a record",
    ),
    "a line of something else": ("metrics.jsonl", lambda text: '{"a": 1}\n' + text, "line 1 is not a record of a run"),
    "a list": ("metrics.jsonl", lambda text: "[1, 2]\n" + text, "line 1 is not a record of a run"),
    "no metrics": ("metrics.jsonl", lambda text: "", "metrics.jsonl lacks epoch"),
    "bytes": ("metrics.jsonl", lambda text: "\0\x7f\n" + text, "line 1 is not a record of a run"),
    "a config that is a list": ("config.json", lambda text: "[1]", "config.json is not a valid config of a run"),
    "a config without sections": (
        "config.json",
        lambda text: "{}",
        "config.json is not a valid config of a run: it has no train",
    ),
    "a config with a word for a number": (
        "config.json",
        lambda text: text.replace('"batch_size": 64', '"batch_size": "many"'),
        "the saved config has a field of another type",
    ),
    "a record that is a number": ("run.json", lambda text: "3", "run.json is not a valid record of a run"),
    "a record without data": (
        "run.json",
        lambda text: "{}",
        "run.json is not a valid record of a run: it has no data_fingerprint",
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train.train(tiny.make_config(folder / "cache", **NETWORK), folder / "run")
    return folder


@pytest.mark.full
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_records_that_are_corrupt_or_foreign_are_named(finished, name):
    name, change, message = CORRUPTIONS[name]
    path = finished / "run" / name
    text = path.read_text()
    path.write_text(change(text))
    try:
        with pytest.raises(InputError, match=message) as refused:
            train.train(tiny.make_config(finished / "cache", **NETWORK), finished / "run")
        assert "another --workdir" in str(refused.value) or "saved config" in str(refused.value)
        if name != "run.json":
            assert path.read_text() == change(text), "nothing is written over it"
    finally:
        path.write_text(text)


@pytest.mark.full
def test_a_last_line_that_was_cut_off_by_a_kill_is_left_out(finished):
    path = finished / "run" / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"kind": "step", "st')
    train.train(tiny.make_config(finished / "cache", **NETWORK), finished / "run")
    assert path.read_text() == whole
