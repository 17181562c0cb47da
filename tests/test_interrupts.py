"""Ctrl-C and SIGTERM: what is trained is saved, and the process ends, whatever holds it."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import commands
import jax
import numpy as np
import pytest
import tiny

from fer_jax import checkpoint, train
from fer_jax.runtime import interrupts

EPOCHS = 4
NETWORK = {
    "model.name": "cnn",
    "model.layers": "conv 4 relu, batch_norm, max_pool, dropout 0.1, flatten",
    "model.size_px": 16,
    "augment.flip_horizontal": 0.5,
    "log.every_steps": 5,
}


@pytest.fixture(autouse=True)
def heard():
    """Has this process, and those that it starts, hear Ctrl-C, which a shell has programs in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def states_of(folder):
    ckpt = checkpoint.Checkpoints(folder)
    states, _ = ckpt.restore("latest", None)
    ckpt.close()
    return states


def scores(workdir):
    """Returns what metrics.jsonl holds but times and memory."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second", "steps_per_second", "data_wait_share", "peak_memory_mib")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def assert_same_runs(one, two):
    assert scores(one) == scores(two)
    jax.tree.map(np.testing.assert_array_equal, states_of(one), states_of(two))


@pytest.mark.full
@pytest.mark.parametrize(("signum", "feeder"), [(signal.SIGINT, "tfdata"), (signal.SIGTERM, "resident")])
def test_a_signal_ends_a_training_after_its_step_and_the_same_command_resumes_it(tmp_path, signum, feeder):
    flags = (*commands.SMALL, "--config.augment.flip_horizontal=0.5", f"--config.data.feeder={feeder}")
    flags += (f"--config.train.epochs={EPOCHS}", "--config.log.every_steps=7")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert commands.run("main", *flags, f"--workdir={whole}").returncode == 0
    with commands.start("main", *flags, f"--workdir={cut}", stderr=subprocess.PIPE) as process:
        next(line for line in process.stderr if line.startswith("epoch 2/"))
        process.send_signal(signum)
        said = process.stderr.read()
        assert process.wait(60) == 128 + signum, said
    assert "rerun the same command to resume" in said and "Traceback" not in said
    resumed = commands.run("main", *flags, f"--workdir={cut}")
    assert resumed.returncode == 0 and "resuming from step" in resumed.stderr, resumed.stderr
    assert_same_runs(whole, cut)


@pytest.mark.parametrize(
    "moment", ["step", *(pytest.param(moment, marks=pytest.mark.full) for moment in ("evaluation", "end of an epoch"))]
)
def test_at_any_moment_the_run_resumes_with_the_same_bits(tmp_path, monkeypatch, moment):
    config = tiny.make_config(tmp_path / "cache", **NETWORK, **{"train.epochs": 3})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train.train(config, whole)

    def interrupting(function, at):
        calls = iter(range(100))

        def wrapped(*args, **kwargs):
            result = function(*args, **kwargs)
            if next(calls) == at:
                signal.raise_signal(signal.SIGINT)
            return result

        return wrapped

    on_epoch = None
    with monkeypatch.context() as patch:
        if moment == "step":  # the 14th step of epochs of 11
            patch.setattr(train.writer_lib.Writer, "step", interrupting(train.writer_lib.Writer.step, 12))
        elif moment == "evaluation":
            patch.setattr(train.writer_lib.Writer, "end_epoch", interrupting(train.writer_lib.Writer.end_epoch, 1))
        else:
            on_epoch = interrupting(lambda epoch, scores: None, 0)
        with pytest.raises(
            interrupts.Stopped, match=r"and saved in .*cut: rerun the same command to resume"
        ) as stopped:
            train.train(config, cut, on_epoch=on_epoch)
    assert stopped.value.exit_code == 130
    expected = {"step": "at step 14, in epoch 2", "evaluation": "at step 22, in epoch 2"}
    assert expected.get(moment, "at step 12, in epoch 2") in str(stopped.value)
    train.train(config, cut)
    assert_same_runs(whole, cut)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handlers are put back"


@pytest.mark.full
def test_an_error_after_a_signal_does_not_lead_to_the_next_run(tmp_path):
    def prune(epoch, scores):
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("pruned")

    with pytest.raises(interrupts.Stopped, match="stopped; the run ended with ValueError: pruned") as stopped:
        train.train(tiny.make_config(tmp_path / "cache", **NETWORK), tmp_path / "run", on_epoch=prune)
    assert stopped.value.exit_code == 143


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.stop("stopped"):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def program(text):
    """Starts a program that a command runs, and waits until it says that it works."""
    text = "import sys\nfrom fer_jax import command\nfrom fer_jax.runtime import interrupts\n" + text
    with subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "works\n"
            yield process
        finally:
            process.kill()


SWALLOWS = """
interrupts.GRACE_SECONDS = 0.5
def main():
    import time
    print("works", flush=True)
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
command.run(lambda: main())
"""
BLOCKED = """
interrupts.GRACE_SECONDS = 0.5
def main():
    import hashlib
    print("works", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # some minutes outside of Python, as a compiler takes
command.run(lambda: main())
"""
INTERRUPTED = """
def main():
    print("works", flush=True)
    raise KeyboardInterrupt
command.run(lambda: main())
"""
DEFERS = """
def main():
    import time
    with interrupts.stop("nothing is saved") as stop:
        stop.defer()
        print("works", flush=True)
        while True:
            time.sleep(600)
command.run(lambda: main())
"""


@pytest.mark.parametrize(
    ("text", "signum"), [(SWALLOWS, signal.SIGINT), (BLOCKED, signal.SIGINT), (BLOCKED, signal.SIGTERM)]
)
def test_what_has_nothing_to_save_ends_though_python_is_kept_from_it(text, signum):
    with program(text) as process:
        process.send_signal(signum)
        assert process.wait(30) == 128 + signum
        assert process.stderr.read() == "stopped\n"


IMPORTS = """
import pathlib, tempfile
interrupts.GRACE_SECONDS = 600
def main():
    folder = tempfile.mkdtemp()
    pathlib.Path(folder, "slow.py").write_text(
        "import time\\nprint('works', flush=True)\\n"
        "while True:\\n    try: time.sleep(600)\\n    except KeyboardInterrupt: pass\\n"
    )
    sys.path.insert(0, folder)
    import slow
command.run(lambda: main())
"""
LOSES_THEN_TRAINS = """
import weakref
interrupts.GRACE_SECONDS = 1.5
def main():
    import signal, time
    class Kept: pass
    kept = Kept()
    reference = weakref.ref(kept, lambda _: signal.raise_signal(signal.SIGINT))  # what a callback raises is lost
    print("works", flush=True)
    del kept
    with interrupts.stop("nothing is saved") as stop:
        stop.defer()
        while not stop.asks():
            time.sleep(0.01)
        time.sleep(0.2)
        stop.end("saved")
command.run(lambda: main())
"""


def test_a_signal_during_an_import_ends_at_once():
    with program(IMPORTS) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert process.stderr.read() == "stopped\n"


def test_a_signal_that_is_lost_before_a_training_stops_it():
    with program(LOSES_THEN_TRAINS) as process:
        assert process.wait(30) == 130
        assert process.stderr.read().splitlines()[-1] == "saved"


def test_a_second_signal_ends_at_once():
    with program(DEFERS) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("stopping: the current step is finished and saved")
        time.sleep(1.0)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "nothing is saved\n"


def test_the_echo_of_a_signal_is_no_second_one():
    with program(LOSES_THEN_TRAINS.replace("signal.raise_signal(signal.SIGINT)", "None")) as process:
        time.sleep(0.5)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        assert process.wait(30) == 130
        assert process.stderr.read().splitlines()[-1] == "saved"


def test_an_interrupted_command_promises_nothing_that_it_did_not_save():
    with program(INTERRUPTED) as process:
        assert process.wait(30) == 130 and process.stderr.read() == "stopped\n"
