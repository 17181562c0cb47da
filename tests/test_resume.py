"""A run that is killed and started again ends with the same bits as one that was left alone."""

import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
import time

import commands
import jax
import numpy as np
import pytest
import tiny

from fer_jax import checkpoint, metric_writers, train
from fer_jax.errors import InputError

EPOCHS = 6
FULL = pytest.mark.full
AUGMENT = ("--config.augment.rotate_degrees=10", "--config.augment.flip_horizontal=0.5", "--config.augment.erase=0.3")


def last_step(workdir):
    try:
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0
    except (FileNotFoundError, ValueError):
        return 0


def kill_inside_an_epoch(flags, workdir):
    """Starts a run and kills it after a checkpoint, between two epochs' ends."""
    process = commands.start("main", *flags, f"--workdir={workdir}")
    deadline = time.time() + 300
    while time.time() < deadline and process.poll() is None:
        step = last_step(workdir)
        if step > 2 * commands.STEPS_PER_EPOCH and step % commands.STEPS_PER_EPOCH not in (0, 10):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return last_step(workdir)


def final_state(workdir):
    """Returns all arrays of the last training state: parameters, statistics, optimizer."""
    checkpoints = checkpoint.Checkpoints(workdir)
    assert checkpoints.step("latest") == EPOCHS * commands.STEPS_PER_EPOCH
    folder = workdir / "checkpoints" / "latest" / str(checkpoints.step("latest")) / "tree"
    import orbax.checkpoint as ocp

    return ocp.StandardCheckpointer().restore(folder.absolute())


def scores(workdir):
    """Returns what metrics.jsonl holds but times."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second", "steps_per_second", "data_wait_share", "peak_memory_mib")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


@pytest.mark.full
@pytest.mark.parametrize("feeder", ["tfdata", "resident"])
def test_a_killed_run_ends_with_the_same_bits(feeder, tmp_path):
    flags = (*commands.SMALL, *AUGMENT, f"--config.train.epochs={EPOCHS}", f"--config.data.feeder={feeder}")
    whole = commands.run("main", *flags, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    killed_at = kill_inside_an_epoch(flags, tmp_path / "killed")
    assert 2 * commands.STEPS_PER_EPOCH < killed_at < EPOCHS * commands.STEPS_PER_EPOCH
    resumed = commands.run("main", *flags, f"--workdir={tmp_path / 'killed'}")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from step" in resumed.stderr
    one, two = final_state(tmp_path / "whole"), final_state(tmp_path / "killed")
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))

    assert scores(tmp_path / "whole") == scores(tmp_path / "killed")


@pytest.mark.parametrize(
    ("feeder", "steps_per_dispatch"),
    [pytest.param("tfdata", 1, marks=FULL), ("resident", 1), pytest.param("resident", 2, marks=FULL)],
)
def test_a_run_resumes_in_the_middle_of_an_epoch_with_the_same_bits(tmp_path, feeder, steps_per_dispatch):
    fields = {
        "model.name": "cnn",
        "model.layers": "conv 4 relu, batch_norm, max_pool, dropout 0.1, flatten",
        "model.size_px": 16,
        "augment.flip_horizontal": 0.5,
        "data.feeder": feeder,
        "train.steps_per_dispatch": steps_per_dispatch,
        "log.every_steps": 2,
    }
    in_epochs = tiny.make_config(tmp_path / "cache", **fields)
    in_steps = tiny.make_config(tmp_path / "cache", **fields, **{"train.checkpoint_every_steps": 3})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train.train(in_epochs, whole)
    train.train(in_steps, cut)
    assert scores(whole) == scores(cut)
    kept = sorted(int(folder.name) for folder in (cut / "checkpoints" / "latest").iterdir())
    assert kept == [19, 22]  # the second line of metrics.jsonl after step 15 of 22 stands at step 11 + 8
    shutil.rmtree(cut / "checkpoints" / "latest" / "22")
    train.train(in_epochs, cut)
    assert scores(whole) == scores(cut)
    one, two = (checkpoint.Checkpoints(folder) for folder in (whole, cut))
    states = [ckpt.restore("latest", None)[0] for ckpt in (one, two)]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.full
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of a running process is Linux's")
@pytest.mark.parametrize("most_bytes", [20_000, 1_000])
def test_a_disk_that_is_full_in_mid_run_gives_one_message_and_loses_nothing(tmp_path, most_bytes):
    flags = (*commands.SMALL, "--config.data.feeder=resident", f"--config.train.epochs={EPOCHS}")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert commands.run("main", *flags, f"--workdir={whole}").returncode == 0
    with commands.start("main", *flags, f"--workdir={cut}", stderr=subprocess.PIPE) as process:
        next(line for line in process.stderr if line.startswith("epoch 2/"))
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
        stderr = process.stderr.read()
        assert process.wait(60) == 2, stderr
    assert "Traceback" not in stderr and stderr.count("no space left") == 1
    assert stderr.splitlines()[-1].startswith("error: ")
    resumed = commands.run("main", *flags, f"--workdir={cut}")
    assert resumed.returncode == 0 and "resuming from step" in resumed.stderr, resumed.stderr
    assert scores(cut) == scores(whole)
    jax.tree.map(np.testing.assert_array_equal, final_state(cut), final_state(whole))


def test_a_disk_without_room_for_the_records_is_named(tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(metric_writers.HistoryCsv, "write", write)
    config = tiny.make_config(tmp_path / "cache", **{"train.epochs": 1})
    with pytest.raises(InputError, match=r"no space left on the disk for the records of .*run: make room"):
        train.train(config, tmp_path / "run")


def test_a_command_says_that_the_disk_is_full():
    raising = "def main():\n    raise OSError(28, 'No space left on device', 'report.html')\n"
    text = f"from fer_jax import command\n{raising}command.run(lambda: main())"
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    expected = "error: no space left on the disk for report.html: make room and rerun the same command\n"
    assert result.stderr == expected
