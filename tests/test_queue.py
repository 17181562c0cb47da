"""The queue of the reports' rows: its order, what it skips and resumes, how it pauses, and that it runs alone."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import commands
import numpy as np
import pytest
import reports_modules

from fer_jax.datasets import facts

HERE = reports_modules.HERE
LIMIT_SECONDS = 120  # of a wait; a loaded machine is slow


@pytest.fixture(scope="module")
def modules():
    with reports_modules.imported() as modules:
        yield modules


@pytest.fixture
def rows(modules, monkeypatch):
    """Some rows and an order of them in place of the reports'."""
    row = modules.systems.Row
    rows = {
        "long": row("R1", "a long one", "cnn.py:model_3"),
        "last": row("R1", "a network", "cnn.py:model_1"),
        "search": row("R1", "a search", "r3_search.py", kind="search", trials=9),
        "first": row("R1", "another", "cnn.py:model_2"),
        "both": row("R1", "an ensemble", kind="ensemble", members=(("first", 2),)),
        "weighty": row("R1", "ImageNet weights", "resnet50.py:r2"),
    }
    monkeypatch.setattr(modules.systems, "ROWS", rows)
    order = (("first", 0), ("both", 0), ("missing", 0), ("weighty", 0), ("first", 1))
    monkeypatch.setattr(modules.systems, "ORDER", order)
    monkeypatch.setattr(modules.systems, "EPOCH_SECONDS", {"long": 720.0, "last": 72.0})
    monkeypatch.setattr(modules.schedule.fetch, "find", lambda _: None)
    return rows


@pytest.fixture
def options(modules, tmp_path):
    line = ["--data_path", "x", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    return modules.run.parse(line)


@pytest.fixture
def done(modules, monkeypatch):
    """Stubs the training: what was asked for, the names of rows that fail, and changes of the records by row."""
    asked, failing, changes = [], set(), {}

    def add(name, seed, options):
        asked.append((name, seed))
        if name in failing:
            raise modules.run.InputError("no")
        workdir = modules.running.workdir(name, seed, options)
        workdir.mkdir(parents=True, exist_ok=True)
        for split in ("validation", "test"):
            (workdir / f"evaluation-{split}.json").write_text("{}")
        row = modules.systems.ROWS[name]
        config = modules.runfiles.config_lib.to_dict(modules.systems.get_config(row)) if row.config else None
        record = {"row": name, "seed": seed, "fields": {}, "config": config, "seconds": 360.0, "epochs": 5}
        record |= {"kind": "train", "platform": "cpu", "packages": None, "trials": row.trials}
        record |= {"data_fingerprint": facts.FINGERPRINT, "synthetic": False}
        record["scores"] = {split: {"confusion": [[1]]} for split in ("validation", "test")}
        record |= changes.get(name, {})
        modules.runfiles.write(options.out, record | {"members": members_of(name)})

    def members_of(name):
        return [{"row": row, "seed": seed} for row, seed in modules.systems.members(modules.systems.ROWS[name])]

    monkeypatch.setattr(modules.jobs, "add", add)
    return asked, failing, changes


def wait_for(condition):
    """Waits until a condition holds."""
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_every_row_of_the_order_exists(modules):
    assert [name for name, _ in modules.systems.ORDER if name not in modules.systems.ROWS] == []


def test_the_order_names_each_run_once_and_none_that_needs_a_download(modules):
    rows = {name: row for name, row in modules.systems.ROWS.items() if name in dict(modules.systems.ORDER)}
    assert len(set(modules.systems.ORDER)) == len(modules.systems.ORDER)
    assert [name for name, row in rows.items() if getattr(modules.systems.weights_of(row), "url", "")] == []
    assert {name for name, _ in modules.systems.ORDER} <= set(modules.systems.EPOCH_SECONDS)


def test_rows_run_in_their_order_then_the_shortest_and_ensembles_after_their_members(modules, rows, options, done):
    asked, *_ = done
    assert modules.run.run_queue(options) == []
    assert asked == [("first", 0), ("first", 1), ("both", 0), ("last", 0), ("long", 0)]


def test_finished_rows_are_skipped(modules, rows, options, done):
    asked, *_ = done
    modules.jobs.add("last", 0, options)
    modules.jobs.add("first", 0, options)
    asked.clear()
    modules.run.run_queue(options)
    assert asked == [("first", 1), ("both", 0), ("long", 0)]
    asked.clear()
    modules.run.run_queue(options)
    assert asked == []


def test_a_run_file_of_an_earlier_version_of_a_row_is_run_again(modules, rows, options, done):
    asked, *_ = done
    config = {"optim": {"learning_rate": 0.5}}
    record = {"row": "last", "seed": 0, "kind": "train", "platform": "gpu", "packages": None, "fields": {}}
    record |= {"config": config, "seconds": 1.0, "epochs": 1, "data_fingerprint": facts.FINGERPRINT}
    modules.runfiles.write(options.out, record)
    modules.run.run_queue(options)
    assert ("last", 0) in asked


def test_a_failed_row_does_not_stop_the_others_and_is_not_tried_again(modules, rows, options, done, capsys):
    asked, failing, _ = done
    failing.add("first")
    assert modules.run.run_queue(options) == ["first", "first"]
    assert asked == [("first", 0), ("first", 1), ("last", 0), ("long", 0)]
    assert "error: first: no" in capsys.readouterr().err


@pytest.mark.usefixtures("rows")
def test_a_fault_in_a_row_does_not_stop_the_others(modules, options, done, monkeypatch, capsys):
    asked, *_ = done
    add = modules.jobs.add

    def add_or_err(name, seed, options):
        if name == "last":
            raise KeyError("a fault")
        add(name, seed, options)

    monkeypatch.setattr(modules.jobs, "add", add_or_err)
    assert modules.run.run_queue(options) == ["last"]
    assert asked == [("first", 0), ("first", 1), ("both", 0), ("long", 0)]
    err = capsys.readouterr().err
    assert "error: last: KeyError: 'a fault'" in err and "Traceback" in err


@pytest.mark.parametrize(
    "case",
    [
        ({"packages": {"jaxlib": "0.10.2"}}, "computed with jaxlib 0.10.2"),
        ({"scores": {"test": {"confusion": None}}}, "no confusion matrix of test"),
        ({"config": None}, "config: not recorded"),
        ({"seed": 9}, "it is missing"),
    ],
)
@pytest.mark.usefixtures("rows")
def test_a_row_that_ended_and_does_not_count_has_failed(modules, options, done, capsys, case):
    asked, _, changes = done
    changes["last"], reason = case
    assert modules.run.run_queue(options) == ["last"]
    assert asked.count(("last", 0)) == 1
    assert f"error: last: it has ended, but its run file does not count: {reason}" in capsys.readouterr().err


@pytest.mark.usefixtures("rows")
def test_an_ensemble_waits_for_members_whose_run_files_count(modules, options, done):
    asked, _, changes = done
    changes["first"] = {"packages": {"jaxlib": "0.10.2"}}
    assert modules.run.run_queue(options) == ["first", "first"]
    assert ("both", 0) not in asked
    (both,) = [job for job in modules.schedule.left(options) if job.name == "both"]
    assert both.obstacle == "needs its members in --runs first: first"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--reports R1", "first 0, both 0, weighty 0, last 0, long 0"),
        ("--seeds 2", "first 0, both 0, weighty 0, first 1, last 0, long 0, last 1, long 1, weighty 1"),
        ("--rows search,long,first", "first 0, long 0, search 0"),
    ],
)
@pytest.mark.usefixtures("rows")
def test_named_rows_come_by_value_per_hour_and_searches_only_by_name(modules, options, line, wanted):
    flags = ["--data_path", "x", "--runs", options.runs, "--out", str(options.out), *line.split()]
    left = modules.schedule.left(modules.run.parse(flags))
    assert ", ".join(f"{job.name} {job.seed}" for job in left) == wanted


def write_run(modules, name, options, *, fields=None, jaxlib="0.12.0.1"):
    """Writes the start of a training of a row's first seed; returns its workdir."""
    workdir = modules.running.workdir(name, 0, options)
    workdir.mkdir(parents=True)
    config = modules.systems.get_config(modules.systems.ROWS[name])
    config.update_from_flattened_dict({"data.path": "x", "data.feeder": "resident", "seed": 0, **(fields or {})})
    (workdir / "config.json").write_text(json.dumps(modules.runfiles.config_lib.to_dict(config)))
    (workdir / "run.json").write_text(json.dumps({"platform": "cpu", "packages": {"jaxlib": jaxlib}}))
    return workdir


@pytest.mark.parametrize(
    ("run", "moved"),
    [
        ({}, False),
        ({"fields": {"train.keep_compiled": True}}, False),  # without effect on a result
        ({"fields": {"optim.learning_rate": 0.5}}, True),
        ({"jaxlib": "0.10.2"}, True),
    ],
)
@pytest.mark.usefixtures("rows")
def test_a_workdir_of_an_earlier_version_of_its_row_is_moved_aside(modules, options, monkeypatch, run, moved):
    monkeypatch.setitem(modules.jobs.KINDS, "train", lambda *_: None)
    for number in (1, 2):
        workdir = write_run(modules, "last", options, **run)
        modules.jobs.add("last", 0, options)
        assert workdir.exists() != moved
        assert workdir.with_name(f"seed0.old-{number}").exists() == moved
        if not moved:
            break
    assert modules.run.collect(options) == []  # what was moved aside has no seed


@pytest.mark.usefixtures("rows")
def test_a_member_of_another_config_than_its_row_is_refused(modules, options, monkeypatch):
    monkeypatch.setattr(modules.running, "has_ended", lambda *_: True)
    write_run(modules, "first", options, fields={"optim.learning_rate": 0.5})
    with pytest.raises(modules.run.InputError, match=r"optim.learning_rate: 0.5, now .*run first again first"):
        modules.jobs.add("both", 0, options)


def test_what_is_left_is_printed_with_its_hours(modules, rows, options, done):
    workdir = modules.running.workdir("first", 0, options)
    workdir.mkdir(parents=True)
    epochs = [
        {"kind": "epoch", "step": n, "epoch": n, "seconds": seconds}
        for n, seconds in enumerate((900.0, 180.0, 180.0), 1)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    left = {(job.name, job.seed): job for job in modules.schedule.left(options)}
    assert ("missing", 0) not in left
    assert left["first", 0].hours == pytest.approx(47 * 180 / 3600)  # a median: the first epoch also compiles
    assert left["first", 0].source == "measured, 3 epochs"
    assert left["last", 0].hours == pytest.approx(50 * 72 / 3600)
    assert left["last", 0].source == "estimated"
    assert left["first", 1].hours is None
    assert left["both", 0].obstacle == "needs its members in --runs first: first"
    assert "--fetch resnet50 --to" in left["weighty", 0].obstacle
    text = modules.schedule.describe(list(left.values()))
    assert "6 runs left, about 13.3 h" in text
    assert "first, seed 0: 2.4 h (measured, 3 epochs)" in text
    modules.run.run_queue(options)
    left = {(job.name, job.seed): job for job in modules.schedule.left(options)}
    assert list(left) == [("weighty", 0)]


def test_another_seed_that_has_ended_measures_a_row(modules, rows, options):
    found = {"last": [{"seed": 0, "seconds": 500.0, "epochs": 50}]}
    hours, source = modules.schedule.hours_left("last", 1, found, options)
    assert (hours, source) == (pytest.approx(500 / 3600), "measured, seed 0")


def test_the_queue_waits_before_a_row_while_the_file_is_there(modules, rows, options, done, monkeypatch):
    asked, *_ = done
    pause = modules.running.pause_file(options)
    pause.parent.mkdir(parents=True)
    pause.touch()

    def sleep(_):
        assert asked == []
        pause.unlink()

    monkeypatch.setattr(modules.processes.time, "sleep", sleep)
    modules.run.run_queue(options)
    assert len(asked) == 5
    assert not pause.exists()


QUEUE = """
import sys, time
sys.path.insert(0, {folder!r})
import run, running
options = run.parse(["--data_path", "x", "--runs", {runs!r}, "--out", {out!r}])
with running.lock("first", 0, options) as is_ours:
    print(is_ours, flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_queue_has_is_passed_over(modules, rows, options, done, capsys):
    asked, *_ = done
    script = QUEUE.format(folder=str(HERE), runs=options.runs, out=str(options.out))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], env=commands.environment(), **pipes) as other:
        assert other.stdout.readline() == "True\n"
        modules.run.run_queue(options)
        assert ("first", 0) not in asked and {("first", 1), ("last", 0), ("long", 0)} <= set(asked)
        assert "first, seed 0: another queue is running it" in capsys.readouterr().out
        other.communicate("")
    modules.run.run_queue(options)
    assert asked.count(("first", 0)) == 1


def test_a_run_that_another_queue_has_just_recorded_is_not_run_again(modules, rows, options, done, monkeypatch):
    asked, *_ = done
    wait = modules.processes.wait

    def record_meanwhile(pause):
        if not asked:
            modules.run._try("first", 0, options)
        wait(pause)

    monkeypatch.setattr(modules.processes, "wait", record_meanwhile)
    modules.run.run_queue(options)
    assert asked.count(("first", 0)) == 1


def test_rows_that_need_weights_are_never_run_whole_with_random_ones(modules):
    with pytest.raises(modules.run.InputError, match="never use random weights"):
        modules.run.parse(["--data_path", "x", "--weights", "random"])


def test_unknown_rows_and_missing_data_are_named(modules):
    with pytest.raises(modules.run.InputError, match="r9_model; reports are R1, R2"):
        modules.run.parse(["--data_path", "x", "--rows", "r9_model"])
    with pytest.raises(modules.run.InputError, match="--data_path"):
        modules.run.parse([])


def test_other_faces_than_the_challenges_are_refused_before_a_row_is_run_whole(modules, options, done, monkeypatch):
    asked, *_ = done
    monkeypatch.setattr(modules.run.datasets, "load", lambda _: types.SimpleNamespace(fingerprint="sha256:0"))
    monkeypatch.setattr(sys, "argv", ["run.py", "--data_path", "x", "--runs", options.runs, "--out", str(options.out)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(modules.run.InputError, match="sha256:0, and whole rows are of FER-2013's sha256:66"):
        modules.run.main()
    assert asked == []


def state_of(process):
    """Returns the letter of a process's state in Linux: T where it is stopped."""
    return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_a_running_command_stops_while_the_file_is_there(tmp_path):
    pause, pid_file, go = (tmp_path / name for name in ("PAUSE", "pid", "go"))
    child = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
    child += f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)"
    code = "import pathlib, sys, processes; processes.POLL_SECONDS = 0.05\n"
    code += f"sys.exit(processes.run([sys.executable, '-c', {child!r}], cwd='.', pause=pathlib.Path({str(pause)!r})))"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=HERE)
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text())
        process = int(pid_file.read_text())
        assert os.sched_getscheduler(process) == os.SCHED_IDLE
        assert os.sched_getscheduler(parent.pid) == os.SCHED_OTHER
        pause.touch()
        wait_for(lambda: state_of(process) == "T")
        go.touch()
        pause.unlink()
        assert parent.wait(LIMIT_SECONDS) == 0
    finally:
        parent.kill()


@linux
@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM"])
def test_a_command_ends_with_the_process_that_started_it(tmp_path, signal_name):
    pid_file = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(600)"
    code = "import pathlib, signal, sys, processes; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    code += (
        f"processes.run([sys.executable, '-c', {child!r}], cwd='.', pause=pathlib.Path({str(tmp_path / 'PAUSE')!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=HERE)
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text())
        process = pathlib.Path(f"/proc/{pid_file.read_text()}")
        parent.send_signal(getattr(signal, signal_name))
        parent.wait(LIMIT_SECONDS)
        wait_for(lambda: not process.exists() or state_of(process.name) == "Z")
    finally:
        parent.kill()


def write_noise(path, faces=700):
    """Writes a fer2013.csv of so many faces of noise."""
    rng, usages = np.random.default_rng(0), ("Training",) * 5 + ("PublicTest", "PrivateTest")
    lines = (
        f"{i % 7},{' '.join(map(str, rng.integers(0, 256, 48 * 48)))},{usages[i // 7 % 7]}\n" for i in range(faces)
    )
    path.write_text("emotion,pixels,Usage\n" + "".join(lines))


SMALL_ROWS = """
import sys
sys.path.insert(0, {here!r})
import run, systems
data = run.config_lib.get_default().data
data.path = "fer2013.csv"
run.datasets.facts.FINGERPRINT = run.datasets.load(data).fingerprint  # noise in place of the challenge's faces
row = systems.Row
fields = {{"model.layers": "flatten, dense 9 relu", "train.epochs": 40, "train.early_stopping.patience_epochs": 0}}
systems.ROWS = {{
    "broken": row("R3", "a network of unknown layers", "r3_mlp.py", fields={{"model.layers": "dense 9 sigmund"}}),
    "small": row("R3", "a small network", "r3_mlp.py", fields=fields),
    "both": row("R3", "an ensemble of it", kind="ensemble", members=(("small", 2),)),
    "joined": row("R3", "an average of it", "r3_ensemble.py", kind="average", members=(("small", 2),)),
}}
run.command.run(run.main)
"""
SMOKE_RUNS = ("both/seed0", "joined/seed0", "small/seed0", "small/seed1")


def start(folder, *flags):
    """Starts run.py with small rows, on faces of noise; returns its process."""
    code = SMALL_ROWS.format(here=str(HERE))
    line = [sys.executable, "-c", code, "--data_path", "fer2013.csv", "--runs", "runs", "--out", "out", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(line, cwd=folder, env=commands.environment() | {"PYTHONPATH": str(commands.ROOT)}, **pipes)


def test_collecting_writes_the_files_of_all_runs_that_have_ended(modules, rows, options, monkeypatch):
    for name, seed, split in (
        ("last", 0, "test"),
        ("first", 7, "test"),
        ("weighty", 0, "validation"),
        ("gone", 0, "test"),
    ):
        workdir = modules.running.workdir(name, seed, options)
        workdir.mkdir(parents=True)
        (workdir / f"evaluation-{split}.json").write_text("{}")
    record = {"fields": {}, "config": None, "seconds": 1.0, "epochs": 1}
    monkeypatch.setattr(modules.jobs, "collect", lambda name, seed, _: record | {"row": name, "seed": seed})
    assert modules.run.collect(options) == []
    assert sorted(path.name for path in options.out.iterdir()) == ["first-7.json", "last-0.json"]


def test_a_searchs_first_and_best_trials_are_trained_again_with_other_seeds(modules, tmp_path, monkeypatch):
    row, options = modules.systems.ROWS["r3_search"], modules.run.parse(["--data_path", "x", "--runs", str(tmp_path)])
    config = modules.systems.get_config(row)
    _, first = modules.jobs.space.parse(config.search)
    best = {**first, "filters_6": 320, "optim.learning_rate": 2e-3}
    folder, trained = tmp_path / "whole" / "r3_search" / "seed0", {}
    trials = [
        {"number": n, "state": "complete", "value": 0.4 + n / 100, "params": params, "workdir": f"trial-{n}"}
        for n, params in enumerate((first, first, best))
    ]
    trials[0] |= {"state": "fail", "value": None, "workdir": "trial-1"}  # cut off, and taken up again as trial 1
    found_by_search = {"trials": trials, "best": trials[2], "config": {}}

    def run_module(module, options, *flags):
        workdir = pathlib.Path(flags[flags.index("--workdir") + 1])
        workdir.mkdir(parents=True, exist_ok=True)
        if module == "search":
            assert flags[-2:] == ("--trials", row.trials)
            (workdir / "search.json").write_text(json.dumps(found_by_search))
            for trial in trials[1:]:
                (workdir / trial["workdir"]).mkdir()
                (workdir / trial["workdir"] / "metrics.jsonl").write_text(
                    '{"kind": "epoch", "epoch": 1, "step": 9, "seconds": 30.0}\n'
                )
        elif module == "main":
            trained[str(workdir.relative_to(folder))] = dict(flag.split("=", 1) for flag in flags if "=" in str(flag))
        else:
            accuracy = {"start": 40, "best": 50}.get(workdir.parent.name, 0) + int(workdir.name[-1])
            (workdir / "evaluation-validation.json").write_text(json.dumps({"accuracy": accuracy}))

    monkeypatch.setattr(modules.running, "run_module", run_module)
    monkeypatch.setattr(modules.runfiles, "collect", lambda name, seed, workdir, **extra: extra)
    found = modules.jobs.explore("r3_search", row, 0, options)
    assert found["start"] == {"params": first, "value": trials[1]["value"]}
    assert (found["trials"], found["cut_off"], found["seconds"]) == (2, 0, 60)
    assert found["again"] == {"start": [41, 42], "best": [51, 52]}
    assert set(trained) == {"start/seed1", "start/seed2", "best/seed1", "best/seed2"}
    start, best = (trained[f"{what}/seed2"] for what in ("start", "best"))
    changed = {name for name in best if start.get(name) != best[name]}
    assert changed == {"--config.model.layers", "--config.optim.learning_rate"}
    assert best["--config.seed"] == "2"
    assert best["--config.train.epochs"] == start["--config.train.epochs"] == "4"


@pytest.mark.parametrize(("best", "made"), [(None, []), (20, []), (30, ["validation", "test"])])
def test_scores_of_an_earlier_checkpoint_are_made_again(modules, options, tmp_path, best, made):
    for split in ("validation", "test"):
        (tmp_path / f"evaluation-{split}.json").write_text(json.dumps({"step": 20}))
    if best:
        (tmp_path / "checkpoints" / "best" / str(best)).mkdir(parents=True)
    asked = []
    modules.running.score(tmp_path, options, asked.append)
    assert asked == made


@pytest.mark.full
def test_a_killed_queue_resumes_and_loses_nothing(modules, tmp_path):
    write_noise(tmp_path / "fer2013.csv")
    metrics = tmp_path / "runs" / "whole" / "small" / "seed0" / "metrics.jsonl"
    checkpoints = metrics.parent / "checkpoints" / "latest"
    first = start(tmp_path, "--rows", "small")
    wait_for(lambda: list(checkpoints.glob("*/_CHECKPOINT_METADATA")) and '"epoch"' in metrics.read_text())
    first.kill()
    first.communicate()
    assert metrics.read_text().count('"epoch", ') < 40
    second = start(tmp_path, "--rows", "small")
    out, _ = second.communicate(timeout=600)
    assert second.returncode == 0, out
    record = json.loads((tmp_path / "out" / "small-0.json").read_text())
    assert [epoch["epoch"] for epoch in record["history"]] == list(range(1, 41))
    assert record["data_fingerprint"].startswith("sha256:")
    assert record["scores"]["test"]["n"] == 70
    third = start(tmp_path, "--rows", "small")
    out, _ = third.communicate(timeout=600)
    assert third.returncode == 0
    assert "0 runs left" in out


@pytest.mark.full
def test_smoke_runs_are_short_and_leave_the_test_split_and_the_tables_alone(tmp_path):
    write_noise(tmp_path / "fer2013.csv")
    ran = start(tmp_path, "--budget", "smoke")
    out, _ = ran.communicate(timeout=600)
    assert ran.returncode == 2
    assert "broken failed" in out
    folder = tmp_path / "runs" / "smoke"
    scored = sorted(str(path.relative_to(folder)) for path in folder.rglob("evaluation-*.json"))
    assert scored == [f"{row}/evaluation-validation.json" for row in SMOKE_RUNS]
    assert len((folder / "small" / "seed0" / "history.csv").read_text().splitlines()) == 2
    assert not (tmp_path / "out").exists()
