"""Checkpoints survive what happens to disks."""

import gc
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import checkpoint
from fer_jax.errors import InputError

# Orbax leaves the other half of a read or write that failed to be collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collect_inside_the_test():
    yield
    gc.collect()


def make_tree(value):
    return {"kernel": jnp.full((400, 400), value), "step": jnp.int32(value)}


def abstract():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), make_tree(0))


def save_steps(folder, steps):
    with_steps = checkpoint.Checkpoints(folder)
    for step in steps:
        with_steps.save("latest", step, make_tree(step), {"epoch": step})
    with_steps.close()


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def restored_step(folder):
    tree, meta = checkpoint.Checkpoints(folder).restore("latest", abstract())
    assert int(tree["step"]) == meta["epoch"]
    np.testing.assert_array_equal(tree["kernel"], make_tree(meta["epoch"])["kernel"])
    return meta["epoch"]


def test_latest_keeps_two_and_restores_the_newest(tmp_path):
    save_steps(tmp_path, (1, 2, 3))
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints" / "latest").iterdir())
    assert kept == [2, 3]
    assert restored_step(tmp_path) == 3


def test_best_and_latest_are_apart(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save("best", 1, make_tree(1), {"epoch": 1})
    checkpoints.save("latest", 5, make_tree(5), {"epoch": 5})
    checkpoints.save("best", 6, make_tree(6), {"epoch": 6})
    checkpoints.close()
    assert checkpoint.Checkpoints(tmp_path).step("latest") == 5
    assert checkpoint.Checkpoints(tmp_path).meta("best") == {"epoch": 6}


def test_without_a_checkpoint(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    assert checkpoints.step("latest") is None
    with pytest.raises(InputError, match=r"no checkpoint in .*train first"):
        checkpoints.restore("best", abstract())


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_still_works(tmp_path):
    save_steps(tmp_path, (1, 2))
    folder = tmp_path / "checkpoints" / "latest" / "2"
    broken = largest_file(folder)
    with broken.open("r+b") as file:
        file.truncate(broken.stat().st_size // 2)
    with pytest.raises(InputError, match=rf"{folder} is damaged.*delete that folder.*from step 1"):
        checkpoint.Checkpoints(tmp_path).restore("latest", abstract())
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    assert restored_step(tmp_path) == 1


@pytest.mark.parametrize("change", ["another shape", "another tree"])
def test_a_checkpoint_of_another_model_or_version_is_refused_and_its_deletion_is_not_advised(tmp_path, change):
    save_steps(tmp_path, (1,))
    other = abstract()
    if change == "another tree":
        other["velocity"] = other.pop("kernel")
    else:
        other["kernel"] = jax.ShapeDtypeStruct((7,), jnp.float32, sharding=other["kernel"].sharding)
    with pytest.raises(InputError, match=r"another model or another version.*left as it is") as caught:
        checkpoint.Checkpoints(tmp_path).restore("latest", other)
    assert "delete" not in str(caught.value)


def test_a_write_that_fails_gives_one_message_and_loses_nothing(tmp_path):
    save_steps(tmp_path, (1, 2))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    noise = {"kernel": jax.random.normal(jax.random.key(0), (400, 400)), "step": jnp.int32(3)}
    try:
        with pytest.raises(InputError, match=r"could not save checkpoint 3.*no space left.*make room"):
            checkpoints.save("latest", 3, noise, {"epoch": 3})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert restored_step(tmp_path) == 2
    save_steps(tmp_path, (3,))
    assert restored_step(tmp_path) == 3


def test_check_space(tmp_path):
    checkpoint.check_space(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(InputError, match="make room"):
        checkpoint.check_space(tmp_path, 2**60)
