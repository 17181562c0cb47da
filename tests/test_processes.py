"""One training on several devices and in several processes: same results, common stops, and an end when one is lost."""

import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import time

import commands
import jax
import numpy as np
import pytest
import tiny

from fer_jax import checkpoint, wiring
from fer_jax import run as run_lib
from fer_jax import train as trainer
from fer_jax.errors import InputError
from fer_jax.runtime import processes

# Sums over the faces of a batch are added in another order.
TOLERANCE = 1e-5


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(workdir, *flags, devices=1, count=1, **environment):
    """Starts a training; returns its processes, which tell what they say on stderr."""
    joined = ("--multi_process", f"--coordinator_address=127.0.0.1:{free_port()}", f"--num_processes={count}")
    joined += ("--heartbeat_seconds=5", "--join_seconds=60")
    environment = commands.environment() | {"JAX_NUM_CPU_DEVICES": str(devices)} | environment
    flags = (*commands.SMALL, "--config.augment.flip_horizontal=0.5", "--workdir", workdir, *flags)
    return [
        subprocess.Popen(
            commands.command("main", *flags, *((*joined, f"--process_id={number}") if count > 1 else ())),
            cwd=commands.ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip


def end(started, seconds=300):
    """Waits for processes; returns their exit codes and what each has said."""
    try:
        said = [process.communicate(timeout=seconds)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


def train(workdir, *flags, **where):
    codes, said = end(start(workdir, *flags, **where))
    assert set(codes) == {0}, "\n".join(said)
    return said


def history(workdir):
    with open(workdir / "history.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def wait_for_epochs(workdir, count):
    """Waits until so many epochs are over; all but the last one are saved then."""
    deadline = time.monotonic() + 120
    while not (workdir / "history.csv").exists() or len(history(workdir)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def latest(workdir):
    """Returns the arrays of the latest checkpoint, which may be of several processes."""
    with contextlib.closing(checkpoint.Checkpoints(workdir)) as ckpt:
        return ckpt.restore("latest", None)[0]


def assert_same_scores(one, two):
    for left, right in zip(history(one), history(two), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert float(left[name]) == pytest.approx(float(right[name]), rel=TOLERANCE), name
        for name in ("train_accuracy", "validation_accuracy"):
            assert left[name] == right[name], name  # counts of the same faces


def assert_scored_alike_on_one_device(workdir):
    flags = ("--split=validation", "--checkpoint=latest", "--explain=none")
    assert commands.run("evaluate", "--workdir", workdir, *flags).returncode == 0
    scores = json.loads((workdir / "evaluation-validation.json").read_text())
    assert scores["accuracy"] == float(history(workdir)[-1]["validation_accuracy"])
    assert scores["loss"] == pytest.approx(float(history(workdir)[-1]["validation_loss"]), rel=TOLERANCE)


@pytest.mark.full
@pytest.mark.parametrize("feeder", ["resident", "tfdata"])
def test_losses_and_counts_are_those_of_one_device(tmp_path, feeder):
    """A run of one device, of four, and one whose checkpoints go from 2 processes x 2 devices to one device.

    All prepare the faces and keep compiled programs in one new cache at once.
    """
    flags = (
        f"--config.data.feeder={feeder}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        "--config.train.epochs=2",
    )
    running = [*start(tmp_path / "1", *flags), *start(tmp_path / "4", *flags, devices=4)]
    running += start(tmp_path / "2x2", *flags[:2], "--config.train.epochs=1", devices=2, count=2)
    codes, said = end(running)
    assert codes == [0] * 4, "\n".join(said)
    assert "epoch 1/1" in said[2] and "epoch" not in said[3]  # process 0 speaks for all
    assert_same_scores(tmp_path / "1", tmp_path / "4")
    assert_scored_alike_on_one_device(tmp_path / "2x2")
    train(tmp_path / "2x2", *flags)
    assert_same_scores(tmp_path / "1", tmp_path / "2x2")
    facts = (tmp_path / "2x2" / "run.json").read_text()
    assert '"processes": 2' in facts and '"device": "4 x ' in facts


@pytest.mark.full
def test_a_checkpoint_of_one_device_is_resumed_in_several_processes(tmp_path):
    train(tmp_path / "alone", "--config.train.epochs=2", devices=2)
    train(tmp_path / "many", "--config.train.epochs=1")
    train(tmp_path / "many", "--config.train.epochs=2", devices=2, count=2)
    assert_same_scores(tmp_path / "alone", tmp_path / "many")
    assert_scored_alike_on_one_device(tmp_path / "many")


@pytest.mark.full
def test_a_signal_to_one_process_saves_the_same_step_in_all_and_the_run_resumes_bit_identically(tmp_path):
    flags = ("--config.train.epochs=6", "--config.data.feeder=resident", "--config.train.shard_optimizer")
    train(tmp_path / "whole", *flags, count=2)
    running = start(tmp_path / "stopped", *flags, count=2)
    wait_for_epochs(tmp_path / "stopped", 2)
    running[1].send_signal(signal.SIGTERM)
    codes, said = end(running, 60)
    assert codes == [143, 143], "\n".join(said)
    steps = [re.findall(r"stopped at step (\d+)", text) for text in said]
    assert len(steps[0]) == 1 and steps[0] == steps[1]
    train(tmp_path / "stopped", *flags, count=2)
    jax.tree.map(np.testing.assert_array_equal, *(latest(tmp_path / name) for name in ("whole", "stopped")))


@pytest.mark.full
def test_an_optimizer_in_shares_trains_alike_in_less_memory_and_is_resumed_whole(tmp_path):
    assert jax.device_count() == 2
    network = {"model.name": "cnn", "model.layers": "conv 8 relu, max_pool, flatten, dense 9 relu", "model.size_px": 16}
    states = {}
    for name, split, epochs in (("whole", False, 2), ("shares", True, 1), ("shares", False, 2)):
        config = tiny.make_config(tmp_path, **network, **{"train.shard_optimizer": split, "train.epochs": epochs})
        run = run_lib.build(config)
        states[split] = wiring.init_state(run, run.phases[0])
        trainer.train(config, tmp_path / name)
    assert_same_scores(tmp_path / "whole", tmp_path / "shares")
    sizes = {
        split: sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state.opt_state))
        for split, state in states.items()
    }
    assert sizes[True] < 0.52 * sizes[False]
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(states[True].params))


@pytest.mark.full
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_others_with_one_message(tmp_path, victim):
    running = start(tmp_path / "run", "--config.train.epochs=400", count=2)
    wait_for_epochs(tmp_path / "run", 2)
    running[victim].kill()
    codes, said = end(running, 60)
    assert (codes[victim], codes[1 - victim]) == (-signal.SIGKILL, 1), said[1 - victim]
    lines = [line for line in said[1 - victim].splitlines() if not line.startswith(("epoch ", "  rate"))]
    assert [line for line in lines if "lost another process" in line] == lines[-1:]
    assert not re.search(r"Traceback|Check failure|    @ ", said[1 - victim])
    assert latest(tmp_path / "run")


@pytest.mark.full
def test_bad_input_of_one_process_ends_all(tmp_path):
    """Only process 0 looks at the workdir's lock."""
    alone = start(tmp_path / "run", "--config.train.epochs=400")
    wait_for_epochs(tmp_path / "run", 1)
    codes, said = end(start(tmp_path / "run", "--config.train.epochs=400", count=2), 120)
    alone[0].kill()
    end(alone)
    assert codes == [2, 1], "\n".join(said)
    assert "is training in" in said[0] or "another process" in said[0]


def test_without_a_cluster_the_flags_are_named(tmp_path):
    ended = commands.run("main", *commands.SMALL, "--multi_process", "--workdir", tmp_path / "a")
    assert ended.returncode == 2 and "the environment names no cluster" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.full
def test_who_waits_in_vain_says_where(tmp_path):
    flags = ("--multi_process", "--num_processes=2", "--process_id=1", "--join_seconds=1")
    address = f"127.0.0.1:{free_port()}"
    ended = commands.run("main", *commands.SMALL, *flags, "--coordinator_address", address, "--workdir", tmp_path / "a")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"error: not all processes joined at {address} within 1 s: start all of them with the same address"
    ]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("10.0.0.1:1234", 2, 2), "--process_id is 2: with 2 processes give 0 to 1"),
        (("10.0.0.1", 2, 1), "--coordinator_address is '10.0.0.1': give HOST:PORT"),
        ((None, None, None, 0), "--heartbeat_seconds and --join_seconds must be 1 or more"),
    ],
)
def test_what_cannot_join_is_said(arguments, message):
    options = {"heartbeat_seconds": arguments[3]} if len(arguments) > 3 else {}
    with pytest.raises(InputError, match=re.escape(message)):
        processes.join(*arguments[:3], **options)
    assert not processes.are_many()
