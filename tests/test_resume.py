"""A run that is killed and started again ends with the same bits as one that was left alone."""

import json
import signal
import time

import commands
import jax
import numpy as np
import pytest

from fer_jax import checkpoint

EPOCHS = 6
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


@pytest.mark.slow
@pytest.mark.parametrize("feeder", ["tfdata", "resident"])
def test_a_killed_run_ends_with_the_same_bits(feeder, tmp_path):
    flags = (*commands.SMALL, *AUGMENT, f"--config.train.epochs={EPOCHS}", f"--config.data.feeder={feeder}")
    whole = commands.run("main", *flags, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    killed_at = kill_inside_an_epoch(flags, tmp_path / "killed")
    assert 2 * commands.STEPS_PER_EPOCH < killed_at < EPOCHS * commands.STEPS_PER_EPOCH
    resumed = commands.run("main", *flags, f"--workdir={tmp_path / 'killed'}")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step" in resumed.stderr
    one, two = final_state(tmp_path / "whole"), final_state(tmp_path / "killed")
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))

    def scores(workdir):
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        timed = ("seconds", "images_per_second", "steps_per_second", "data_wait_share", "peak_memory_mib")
        return [{name: value for name, value in row.items() if name not in timed} for row in rows]

    assert scores(tmp_path / "whole") == scores(tmp_path / "killed")
