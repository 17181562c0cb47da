"""The search: its space in text, trials that are whole runs, and a study that outlives its processes."""

import itertools
import json
import os
import signal
import time

import commands
import optuna
import pytest

from fer_jax import config as config_lib
from fer_jax import search, space, train
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

SPACE = ("width choice 4 8", "rate float 0.0 0.5", "optim.learning_rate log 1e-4 1e-2", "units int 8 24 8")
FLAGS = (
    "--config=configs/r3_search.py",
    "--config.model.layers=conv {width} relu, max_pool, flatten, dense {units} relu, dropout {rate}",
    f"--config.search.space={SPACE!r}",
    "--config.search.start=('width 8', 'rate 0.25', 'optim.learning_rate 1e-3', 'units 16')",
    "--config.data.drawn_size=tiny",
    "--config.data.feeder=resident",
    "--config.train.batch_size=64",
    "--config.train.epochs=2",
)


def make_config(lines=SPACE, start=(), layers="conv {width} relu, flatten, dense {units}, dropout {rate}"):
    config = config_lib.get_default()
    config.model.layers = layers
    config.data.update({"drawn_size": "tiny", "name": "drawn_faces", "feeder": "resident"})
    config.train.update({"batch_size": 64, "epochs": 2})
    config.search.update({"space": tuple(lines), "start": tuple(start)})
    return config


def test_a_choice_fills_fields_and_layers_and_leaves_a_plain_config():
    config = make_config()
    filled = space.fill(config, {"width": 8, "rate": 0.25, "optim.learning_rate": 0.003, "units": 16})
    assert filled.model.layers == "conv 8 relu, flatten, dense 16, dropout 0.25"
    assert filled.optim.learning_rate == 0.003
    assert filled.search.space == ()
    assert config.model.layers.startswith("conv {width}")


def test_suggestions_stay_in_the_space():
    parameters, _ = space.parse(make_config().search)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        values = {name: parameter.suggest(study.ask()) for name, parameter in parameters.items()}
        assert values["width"] in (4, 8)
        assert 0 <= values["rate"] <= 0.5
        assert 1e-4 <= values["optim.learning_rate"] <= 1e-2
        assert values["units"] in (8, 16, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lines": ("width among 4 8",)}, "known kinds are choice, log, float, int"),
        ({"lines": (*SPACE, "width choice 1")}, "names 'width' twice"),
        ({"lines": (*SPACE, "optim.momentum float 0.9 0.5")}, "needs a low and a higher number"),
        ({"lines": (*SPACE, "optim.weight_decay log 0 1")}, "needs numbers over 0"),
        ({"lines": (*SPACE, "depth int 1 3")}, "depth is neither a field nor in braces"),
        ({"lines": SPACE[1:]}, "the layers name width in braces"),
        ({"start": ("width 5",)}, "lies outside 'width choice"),
        ({"start": ("depth 5",)}, "is not of the space"),
        ({"lines": ()}, "search.space is empty"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        search.search(make_config(**change), tmp_path / "study", trials=1)
    assert not (tmp_path / "study" / search.JOURNAL).exists()


def test_a_grid_is_walked_once_and_wholly(tmp_path):
    config = make_config(
        ("width choice 4 8", "optim.name choice adam sgd"), layers="conv {width} relu, flatten, dense 8"
    )
    config.search.update({"sampler": "grid", "pruner": "none"})
    config.train.epochs = 1
    study = search.search(config, tmp_path / "study", trials=99)
    combinations = [(trial.params["width"], trial.params["optim.name"]) for trial in study.trials]
    assert sorted(combinations) == list(itertools.product((4, 8), ("adam", "sgd")))


def test_a_grid_needs_choices(tmp_path):
    config = make_config()
    config.search.sampler = "grid"
    with pytest.raises(InputError, match=r"rate, optim\.learning_rate, units of search\.space is a range"):
        search.search(config, tmp_path / "study", trials=1)


def test_data_that_cannot_be_loaded_are_said_before_there_is_a_study(tmp_path):
    config = make_config()
    config.data.update({"name": "auto", "path": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match="nowhere does not exist"):
        search.search(config, tmp_path / "study", trials=2)
    assert not (tmp_path / "study").exists()


def test_a_search_ends_where_no_trial_can_be_trained(tmp_path, caplog):
    config = make_config(layers="conv {width} relu, " + "max_pool, " * 7 + "dense {units}, dropout {rate}")
    with pytest.raises(InputError, match=r"10 trials in a row cannot be trained; the last: (.|\n)*another --workdir"):
        search.search(config, tmp_path / "study", trials=2)
    states = [trial["state"] for trial in json.loads((tmp_path / "study" / "search.json").read_text())["trials"]]
    assert states == ["fail"] * search.FAILURES_IN_A_ROW
    assert caplog.text.count("cannot be trained") == search.FAILURES_IN_A_ROW
    assert "Traceback" not in caplog.text


def test_an_interrupted_trial_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    config, whole = make_config(), train.train

    def interrupted(filled, workdir, on_epoch):
        def stop(*scores):
            on_epoch(*scores)
            raise KeyboardInterrupt

        return whole(filled, workdir, on_epoch=stop)

    monkeypatch.setattr(train, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search.search(config, tmp_path / "study", trials=1)
    monkeypatch.setattr(train, "train", whole)
    cut_off, resumed = search.search(config, tmp_path / "study", trials=1).trials
    assert (cut_off.state.name, resumed.state.name) == ("FAIL", "COMPLETE")
    assert cut_off.params == resumed.params
    history = workdir_lib.read_history(tmp_path / "study" / resumed.user_attrs["workdir"])
    assert [scores["epoch"] for scores in history] == [1, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config=configs/none.py",), "configs/none.py"),
        ((*FLAGS, "--config.optim.learning_rat=1"), "learning_rate"),
    ],
)
def test_bad_flags_end_with_one_message(flags, message, tmp_path):
    refused = commands.run("search", *flags, f"--workdir={tmp_path / 'study'}")
    assert refused.returncode == 2
    assert message in refused.stderr and "Traceback" not in refused.stderr
    assert refused.stderr.count("error: ") == 1


def test_training_refuses_a_config_that_declares_a_search(tmp_path):
    result = commands.run("main", *FLAGS, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 2
    assert "run it with python -m fer_jax.search" in result.stderr


@pytest.mark.slow
def test_a_killed_search_loses_no_finished_trial(tmp_path):
    study = tmp_path / "study"

    def trials():
        path = study / "search.json"
        return json.loads(path.read_text())["trials"] if path.exists() else []

    def finished():
        return [trial for trial in trials() if trial["state"] in ("complete", "pruned")]

    process = commands.start("search", *FLAGS, f"--workdir={study}", "--trials=4")
    deadline = time.monotonic() + 300
    while len(finished()) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = finished()
    assert 2 <= len(before) < 4
    result = commands.run("search", *FLAGS, f"--workdir={study}", "--trials=4")
    assert result.returncode == 0, result.stderr
    after = finished()
    assert len(after) == 4
    assert after[: len(before)] == before
    record = json.loads((study / "search.json").read_text())
    assert record["trials"][0]["params"] == {"width": 8, "rate": 0.25, "optim.learning_rate": 1e-3, "units": 16}
    complete = [trial for trial in after if trial["state"] == "complete"]
    assert record["best"]["value"] == max(trial["value"] for trial in complete)
    history = [
        json.loads(line) for line in (study / record["best"]["workdir"] / "metrics.jsonl").read_text().splitlines()
    ]
    assert record["best"]["value"] == max(e["validation_accuracy"] for e in history if e["kind"] == "epoch")
    for name in ("history", "slices"):
        assert (study / f"search-{name}.png").read_bytes().startswith(b"\x89PNG")
    refused = commands.run("search", *FLAGS, "--config.optim.momentum=0.5", f"--workdir={study}", "--trials=4")
    assert refused.returncode == 2
    assert "optim.momentum: 0.9, now 0.5" in refused.stderr
