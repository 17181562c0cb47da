"""benchmarks/gpu: what is cut comes back whole, and a run that is cut off ends elsewhere as it would have here."""

import json
import pathlib
import sys
import time
import types

import numpy as np
import pytest

from fer_jax import config as config_lib
from fer_jax import scoring
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks" / "gpu"))
sys.path.append(str(pathlib.Path(__file__).parents[1] / "experiments" / "reports"))
import collect
import pieces
import runfiles
import systems
import train_rows

SCORES = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


@pytest.fixture
def files(tmp_path):
    """Three files of noise, 1,000 bytes each, which no zip makes smaller."""
    for number in range(3):
        (tmp_path / f"file{number}").write_bytes(np.random.default_rng(number).bytes(1000))
    return [tmp_path / f"file{number}" for number in range(3)]


def test_pieces_are_small_and_come_back_whole(files, monkeypatch, tmp_path):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 900)
    out, back = tmp_path / "out", tmp_path / "back"
    out.mkdir()
    assert pieces.write(out, [{f"a/{path.name}": path for path in files}]) == [True]
    assert len(list(out.iterdir())) == 4 and max(path.stat().st_size for path in out.iterdir()) == 900
    pieces.read(out, back)
    for path in files:
        assert (back / "a" / path.name).read_bytes() == path.read_bytes()
    (out / "results.zip.3").rename(tmp_path / "last")
    with pytest.raises(InputError, match=r"a piece of results[.]zip is missing or corrupt"):
        pieces.read(out, back)
    (tmp_path / "last").rename(out / "results.zip.3")
    (out / "results.zip.1").unlink()
    with pytest.raises(InputError, match=r"a piece of results[.]zip is missing or corrupt"):
        pieces.read(out, back)


def test_a_group_without_room_is_left_out_whole_and_later_ones_come_back(files, monkeypatch, tmp_path):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 700)  # 2,800 in all
    small = tmp_path / "small"
    small.write_text("small")
    groups = [{"one": files[0]}, {"two": files[1], "three": files[2]}, {"small": small}]
    assert pieces.write(tmp_path, groups) == [True, False, True]
    pieces.read(tmp_path, tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["one", "small"]


def test_values_that_half_precision_cannot_hold_stay_as_they_are():
    kernel, variance = np.linspace(-2, 2, 9, dtype=np.float32), np.array([1.0, 7e4], np.float32)
    assert train_rows.halve(kernel).dtype == np.float16
    np.testing.assert_allclose(train_rows.halve(kernel), kernel, rtol=2**-11)
    np.testing.assert_array_equal(train_rows.halve(variance), variance)


def test_the_rows_need_no_weights_and_first_seeds_come_first():
    options = types.SimpleNamespace(rows=None, seeds=2)
    found = train_rows.jobs(options)
    names = [name for name, seed in found if seed == 0]
    assert found == [(name, seed) for seed in (0, 1) for name in names]
    assert names[:2] == ["r4_model_1", "r4_model_2"]
    for name in names:
        assert systems.ROWS[name].kind == "train"
        assert not systems.get_config(systems.ROWS[name]).model.weights
    options.rows = ["r1_efficientnetb0"]
    with pytest.raises(InputError, match="r1_efficientnetb0 cannot be trained here; known are r4_model_1"):
        train_rows.jobs(options)
    assert "r1_efficientnetb0" not in names and {"r1_model_3", "r5_adam"} <= set(names)


@pytest.fixture
def make_options(tmp_path, monkeypatch):
    """Makes the options of a call on some machine; the only row is a tiny one on drawn faces."""

    def make_config(name, seed, options):
        config = config_lib.get_default()
        config.model.layers = "conv 4 relu, batch_norm, max_pool, flatten, dropout 0.2, dense 8 relu"
        config.data.update({"name": "drawn_faces", "drawn_size": "tiny", "feeder": "resident"})
        config.train.update({"batch_size": 64, "epochs": 2})
        config.seed = seed
        return config

    monkeypatch.setattr(train_rows, "make_config", make_config)
    monkeypatch.setattr(train_rows, "jobs", lambda options: [("tiny", 0)])

    def make(machine):
        folders = {name: tmp_path / machine / name for name in ("work", "out")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return types.SimpleNamespace(**folders, resume=tmp_path / "resume", records=tmp_path, dry_run=False, workers=1)

    return make


@pytest.mark.full
def test_a_run_that_is_cut_off_ends_on_another_machine(make_options, monkeypatch, tmp_path):
    later = time.monotonic() + 3600
    with monkeypatch.context() as patch:
        patch.setattr(train_rows, "RESERVE_SECONDS", 7200.0)  # so that no second epoch fits
        assert train_rows.train_rows(make_options("first"), later) == []
    home, first, second = tmp_path / "home", make_options("first"), make_options("second")
    assert collect.collect(first.out, home, first.resume) == []
    assert train_rows.train_rows(second, later) == []
    assert collect.collect(second.out, home, second.resume) == ["tiny/seed0"]
    assert json.loads((second.resume / "done.json").read_text()) == ["tiny/seed0"]
    assert not (second.resume / "unfinished").exists()
    starts = [json.loads(line) for line in (home / "tiny/seed0/startup.jsonl").read_text().splitlines()]
    assert [start["epoch"] for start in starts] == [1, 2], "the second machine takes up after the first epoch"

    whole = make_options("whole")
    whole.resume = tmp_path / "nothing"
    train_rows.train_rows(whole, later)
    histories = [workdir_lib.read_history(path) for path in (home / "tiny/seed0", whole.work / "runs/tiny/seed0")]
    assert [[epoch[key] for key in SCORES] for epoch in histories[0]] == [
        [epoch[key] for key in SCORES] for epoch in histories[1]
    ]
    scored = json.loads((home / "tiny/seed0/evaluation-test.json").read_text())
    again = scoring.evaluate(home / "tiny/seed0", split="test")
    assert again["loss"] == pytest.approx(scored["loss"], rel=1e-2), "the checkpoint is made of halves"
    assert again["epoch"] == scored["epoch"] and again["n"] == 140

    # What is finished is brought back once, and not run again there or on yet another machine.
    monkeypatch.setattr(train_rows, "run_one", lambda *_: pytest.fail("run again"))
    for options in (second, make_options("third")):
        train_rows.train_rows(options, later)
        assert collect.collect(options.out, home, second.resume) == []
        assert json.loads((second.resume / "done.json").read_text()) == ["tiny/seed0"]


@pytest.mark.full
def test_a_row_that_has_a_run_file_is_not_run(make_options, monkeypatch):
    name, seed = next(iter(runfiles.done(runfiles.read())))
    options, ran = make_options("first"), []
    options.records = runfiles.FOLDER
    monkeypatch.setattr(train_rows, "jobs", lambda options: [(name, seed), (name, 9)])
    monkeypatch.setattr(train_rows, "run_one", lambda name, seed, *_: ran.append((name, seed)))
    train_rows.train_rows(options, time.monotonic() + 3600)
    assert ran == [(name, 9)]


def test_states_that_are_being_written_stay_where_they_are(make_options):
    options = make_options("first")
    folder = train_rows.workdir("tiny", 0, options)
    for kind in ("best", "latest"):
        (folder / "checkpoints" / kind / "4").mkdir(parents=True)
        (folder / "checkpoints" / kind / "4" / "array").write_text("a")
    (folder / "config.json").write_text("{}")
    for states in (False, True):
        train_rows.export(options, [], [], states=states)
        collect.collect(options.out, options.work / "home", options.resume)
        assert (options.resume / "unfinished").exists() == states


def test_a_row_that_fails_does_not_stop_the_others(make_options, monkeypatch):
    def run_one(name, seed, options, deadline):
        if name == "bad":
            raise ValueError("a fault")
        ran.append(name)

    ran, options = [], make_options("first")
    monkeypatch.setattr(train_rows, "jobs", lambda options: [("bad", 0), ("good", 0)])
    monkeypatch.setattr(train_rows, "run_one", run_one)
    assert train_rows.train_rows(options, time.monotonic() + 3600) == ["bad/seed0"]
    assert ran == ["good"]


@pytest.mark.full
def test_runs_that_share_a_device_end_and_one_that_fails_says_why(tmp_path, capsys):
    rng = np.random.default_rng(0)
    lines = ["emotion,pixels,Usage"] + [
        f"{number % 7},{' '.join(map(str, rng.integers(0, 256, 2304)))},{usage}"
        for usage, count in (("Training", 105), ("PublicTest", 35), ("PrivateTest", 35))
        for number in range(count)
    ]
    (tmp_path / "fer2013.csv").write_text("\n".join(lines))
    (tmp_path / "work" / "runs" / "r3_mlp_flax").mkdir(parents=True)
    (tmp_path / "work" / "runs" / "r3_mlp_flax" / "seed1").write_text("no folder")
    line = ["--out", tmp_path / "out", "--work", tmp_path / "work", "--data", tmp_path, "--resume", tmp_path / "none"]
    options = train_rows.parse(
        [*map(str, line), "--dry_run", "--workers", "2", "--seeds", "2", "--rows", "r3_mlp_flax"]
    )
    for folder in (options.out, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    assert train_rows.train_rows(options, time.monotonic() + 3600) == ["r3_mlp_flax/seed1"]
    assert collect.collect(options.out, tmp_path / "home", tmp_path / "resume") == ["r3_mlp_flax/seed0"]
    run = json.loads((tmp_path / "home" / "r3_mlp_flax" / "seed0" / "run.json").read_text())
    assert run["runs_at_once"] == 2 and run["data_fingerprint"]
    shown = capsys.readouterr()
    assert "r3_mlp_flax 0: validation accuracy" in shown.out
    assert "r3_mlp_flax/seed1: exit status" in shown.err and "seed1" in shown.err.split("the end of")[1]


def test_the_time_limit_ends_what_runs_inside():
    with pytest.raises(train_rows.OutOfTime), train_rows.time_limit(time.monotonic() + 0.05):
        while True:
            time.sleep(0.01)
    with train_rows.time_limit(time.monotonic() + 0.1):
        pass
    time.sleep(0.2)  # it is off


def test_a_run_that_stops_is_closed_even_where_the_time_ends_meanwhile():
    closed = []
    with pytest.raises(train_rows.OutOfTime), train_rows.time_limit(time.monotonic() + 0.1):
        try:
            train_rows.stop()
        finally:
            time.sleep(0.2)
            closed.append(True)
    assert closed


def test_a_run_without_a_checkpoint_to_continue_from_is_not_carried(make_options):
    options = make_options("first")
    folder = train_rows.workdir("tiny", 0, options)
    (folder / "checkpoints" / "best" / "4").mkdir(parents=True)
    (folder / "checkpoints" / "latest" / "4.orbax-checkpoint-tmp").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    train_rows.export(options, [], [])
    collect.collect(options.out, options.work / "home", options.resume)
    assert not (options.resume / "unfinished").exists()


def test_the_share_of_the_peak_is_of_dense_operations(monkeypatch):
    """A row of one framework at a known speed: 100 images/s of batch 10 are 10 steps a second."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "benchmarks" / "speed"))
    import speed

    rounds = {kind: [{"fer_jax": {"images": 100, "seconds": 1.0}}] for kind in speed.benchmark.summary.KINDS}
    monkeypatch.setattr(speed.benchmark, "measure", lambda *_: ({}, rounds))
    monkeypatch.setattr(speed.in_fer_jax, "step_flops", lambda spec, kind: 1e12)
    monkeypatch.setattr(speed.rows_lib, "describe", lambda config: {"batch": 10, "size_px": 48, "dtype": "bfloat16"})
    device = types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3", platform="gpu")
    monkeypatch.setattr(speed.jax, "devices", lambda: [device])
    options = types.SimpleNamespace(platform="gpu")
    found = speed.measure("r1_model_2", "bfloat16", None, options)
    # 10 steps of 1 TFLOP a second, on a card whose data sheet says 1,979 TFLOP/s with sparsity of one half.
    assert found["steps"]["train"]["model_flops_utilization"]["fer_jax"] == pytest.approx(10 / (1979 / 2), rel=1e-3)
    assert "| r1_model_2 | bfloat16 | 10 | train | 100.000 | - | 1.0% | - | - |" in speed.table({"one": found})
    device.device_kind = "another card"
    assert not speed.measure("r1_model_2", "bfloat16", None, options)["steps"]["train"]["model_flops_utilization"]
