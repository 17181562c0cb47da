"""The search: its space in text, trials that are whole runs, and a study that outlives its processes."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import commands
import optuna
import pytest

from fer_jax import config as config_lib
from fer_jax import datasets, search, space, train
from fer_jax import study as study_lib
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
        ({"lines": (*SPACE, "optim.weight_decay log 0 1")}, "needs positive numbers"),
        ({"lines": (*SPACE, "depth int 1 3")}, "depth is neither a field nor in braces"),
        ({"lines": SPACE[1:]}, "the layers name width in braces"),
        ({"start": ("width 5",)}, "is outside 'width choice"),
        ({"start": ("depth 5",)}, "is not in the space"),
        ({"lines": ()}, "search.space is empty"),
        ({"lines": (*SPACE, "seed choice 1 1")}, "has a choice twice"),
        ({"lines": (*SPACE, "optim.momentum float 0.1 inf")}, "needs a low and a higher number"),
        ({"lines": (*SPACE, "seed int 1 5 0")}, "a step of 1 or more"),
        ({"lines": (*SPACE, "optim.momentum choice adam")}, "cannot be .adam."),
        ({"start": ("units 17",)}, "is outside .units int"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        search.search(make_config(**change), tmp_path / "study", trials=1)
    assert not (tmp_path / "study" / study_lib.JOURNAL).exists()


@pytest.mark.full
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
    with pytest.raises(InputError, match=r"rate, optim\.learning_rate, units in search\.space is a range"):
        search.search(config, tmp_path / "study", trials=1)


def test_data_that_cannot_be_loaded_are_said_before_there_is_a_study(tmp_path):
    config = make_config()
    config.data.update({"name": "auto", "path": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match="nowhere does not exist"):
        search.search(config, tmp_path / "study", trials=2)
    assert not (tmp_path / "study").exists()


@pytest.mark.full
def test_a_search_ends_where_no_trial_can_be_trained(tmp_path, caplog):
    config = make_config(layers="conv {width} relu, " + "max_pool, " * 7 + "dense {units}, dropout {rate}")
    with pytest.raises(InputError, match=r"10 trials in a row failed; the last: (.|\n)*another --workdir"):
        search.search(config, tmp_path / "study", trials=2)
    states = [trial["state"] for trial in json.loads((tmp_path / "study" / "search.json").read_text())["trials"]]
    assert states == ["fail"] * search.FAILURES_IN_A_ROW
    assert caplog.text.count(" failed: ") == search.FAILURES_IN_A_ROW
    assert "Traceback" not in caplog.text


@pytest.mark.full
def test_an_interrupted_trial_resumes_from_its_checkpoint(tmp_path, monkeypatch):
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
    assert sorted(resumed.intermediate_values) == [1, 2]  # the epoch before the interrupt counts for the pruner too
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


@pytest.mark.full
def test_training_refuses_a_config_that_declares_a_search(tmp_path):
    result = commands.run("main", *FLAGS, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 2
    assert "declares a search: run python -m fer_jax.search" in result.stderr


@pytest.mark.full
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


def make_grid(**fields):
    """Returns the config of a grid of 12 points, one epoch each."""
    config = make_config(
        ("width choice 4 6 8", "optim.name choice adam sgd", "optim.learning_rate choice 1e-3 1e-2"),
        layers="conv {width} relu, flatten, dense 8",
    )
    config.search.update({"sampler": "grid", "pruner": "none"})
    config.update_from_flattened_dict({"train.epochs": 1, **fields})
    return config


def score(values):
    return {"epoch": 1, "validation_accuracy": values.model.layers.count("8") / 10}


def fake_training(monkeypatch, *, before=lambda: None):
    """Has trials scored without training; `before` is called first."""

    def trained(filled, workdir, on_epoch):
        with workdir_lib.lock(workdir):
            before()
            (workdir / "config.json").write_text("{}")
        return score(filled)

    monkeypatch.setattr(train, "train", trained)


def finished_points(study):
    return sorted(tuple(t.params.items()) for t in study.trials if t.state.name in ("COMPLETE", "PRUNED"))


@pytest.mark.full
def test_a_grid_that_is_resumed_has_every_point_once(tmp_path, monkeypatch):
    calls = itertools.count()

    def interrupted():
        if next(calls) in (3, 8):
            raise KeyboardInterrupt

    fake_training(monkeypatch, before=interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search.search(make_grid(), tmp_path / "study", trials=99)
    found = finished_points(search.search(make_grid(), tmp_path / "study", trials=99))
    assert len(found) == len(set(found)) == 12


TWO = """
import sys, time
sys.path.insert(0, "tests")
import test_search
from fer_jax import search, train, workdir
kind, folder = sys.argv[1:]
def trained(filled, path, on_epoch):
    with workdir.lock(path):
        time.sleep(0.2)
        (path / "config.json").write_text("{}")
    return test_search.score(filled)
train.train = trained
config = test_search.make_grid() if kind == "grid" else test_search.make_config(start=("width 8", "rate 0.25"))
search.search(config, folder, trials=12)
"""


@pytest.mark.full
@pytest.mark.parametrize("kind", ["grid", "tpe"])
def test_processes_that_start_together_share_a_study(kind, tmp_path):
    command = [sys.executable, "-c", TWO, kind, str(tmp_path / "study")]
    processes = [
        subprocess.Popen(command, cwd=commands.ROOT, env=commands.environment(), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    trials = json.loads((tmp_path / "study" / "search.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 12
    assert len({trial["workdir"] for trial in trials}) == 12
    if kind == "tpe":
        starts = [trial for trial in trials if (trial["params"]["width"], trial["params"]["rate"]) == (8, 0.25)]
        assert [trial["number"] for trial in starts] == [0]


@pytest.mark.full
def test_a_study_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    fake_training(monkeypatch)
    search.search(make_config(), tmp_path / "study", trials=1)
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda data: dataclasses.replace(load(data), fingerprint="sha256:other"))
    with pytest.raises(
        InputError, match=r"study holds a search on other data: fingerprint sha256:.*, now sha256:other"
    ):
        search.search(make_config(), tmp_path / "study", trials=2)


@pytest.mark.full
def test_a_trial_that_breaks_does_not_end_the_search(tmp_path, monkeypatch, caplog):
    calls = itertools.count()

    def breaks():
        if next(calls) == 0:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")

    fake_training(monkeypatch, before=breaks)
    study = search.search(make_config(), tmp_path / "study", trials=2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "trial 0 failed: RuntimeError: RESOURCE_EXHAUSTED: out of memory (traceback in" in caplog.text
    assert "Traceback" not in caplog.text and "and more" not in caplog.text
    assert "and more" in (tmp_path / "study" / search.TRACEBACKS).read_text()


@pytest.mark.full
def test_a_journal_that_was_cut_off_in_a_line_resumes(tmp_path, monkeypatch):
    fake_training(monkeypatch)
    search.search(make_config(), tmp_path / "study", trials=1)
    with (tmp_path / "study" / study_lib.JOURNAL).open("a") as file:
        file.write('{"op_code": 4, "wor')
    for trials in (2, 3):
        assert len(search.search(make_config(), tmp_path / "study", trials=trials).trials) == trials
