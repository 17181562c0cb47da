"""Checkpoints survive what happens to disks."""

import gc
import pathlib
import re
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import checkpoint, integrity
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
    assert checkpoint.Checkpoints(tmp_path).meta("best") == {"epoch": 6, "step": 6}


def test_without_a_checkpoint(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    assert checkpoints.step("latest") is None
    with pytest.raises(InputError, match=r"no checkpoint in .*train first"):
        checkpoints.restore("best", abstract())


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path, caplog):
    save_steps(tmp_path, (1, 2))
    folder = tmp_path / "checkpoints" / "latest" / "2"
    broken = largest_file(folder)
    with broken.open("r+b") as file:
        file.truncate(broken.stat().st_size // 2)
    assert restored_step(tmp_path) == 1
    assert re.search(rf"{folder} is corrupt.*going back to the one before it, of step 1", caplog.text)
    shutil.rmtree(tmp_path / "checkpoints" / "latest" / "1")
    with pytest.raises(InputError, match=rf"{folder} is corrupt.*delete that folder, then train again"):
        checkpoint.Checkpoints(tmp_path).restore("latest", abstract())


def flip(path, bit):
    """Flips a bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def noise(step):
    key = jax.random.key(step)
    return {
        "kernel": jax.random.normal(key, (40, 40)),
        "half": jax.random.normal(key, (30,), jnp.bfloat16),
        "step": jnp.int32(step),
    }


@pytest.mark.parametrize("kind", ["best", "latest"])
def test_a_flipped_bit_is_refused_or_harmless(tmp_path, kind, caplog):
    checkpoints = checkpoint.Checkpoints(tmp_path / "whole")
    for step in (1, 2):
        checkpoints.save(kind, step, noise(step), {"epoch": step, "scores": {"accuracy": 0.5 + step}})
    checkpoints.close()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), noise(0))
    newest = pathlib.Path("checkpoints", kind, "2")
    names = [path.relative_to(tmp_path / "whole") for path in sorted((tmp_path / "whole" / newest).rglob("*"))]
    names = [name for name in names if (tmp_path / "whole" / name).is_file() and "commit" not in name.name]
    rng = np.random.default_rng(0)
    refused = went_back = 0
    for number, name in enumerate(names):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        size = (folder / name).stat().st_size
        if not size:
            continue
        flip(folder / name, int(rng.integers(8 * size)))
        caplog.clear()
        try:
            tree, meta = checkpoint.Checkpoints(folder).restore(kind, like)
        except InputError as error:
            assert str(folder / newest) in str(error)
            refused += 1
            continue
        jax.tree.map(np.testing.assert_array_equal, tree, noise(meta["step"]))
        assert meta == {"epoch": meta["step"], "scores": {"accuracy": 0.5 + meta["step"]}, "step": meta["step"]}
        if meta["step"] == 1:
            assert kind == "latest"
            assert "going back to the one before it, of step 1" in caplog.text
            went_back += 1
    assert (refused if kind == "best" else went_back) >= 2  # the metadata and at least an array


@pytest.mark.parametrize("kind", ["best", "latest"])
def test_changed_numbers_that_orbax_reads_without_complaint_are_found(tmp_path, kind, caplog, monkeypatch):
    with monkeypatch.context() as patch:  # a step whose arrays are complete files of other numbers
        checksums = integrity.checksums
        patch.setattr(integrity, "checksums", lambda tree: checksums({**tree, "kernel": tree["kernel"] + 1}))
        checkpoints = checkpoint.Checkpoints(tmp_path)
        checkpoints.save(kind, 2, make_tree(2), {"epoch": 2})
        checkpoints.close()
    with pytest.raises(InputError, match=r"is corrupt .changed since saving: kernel"):
        checkpoint.Checkpoints(tmp_path).restore(kind, abstract())


def test_a_corrupt_best_is_refused_though_an_older_one_is_there(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save("best", step, make_tree(step), {"epoch": step})
    checkpoints.close()
    folder = tmp_path / "checkpoints" / "best" / "2"
    flip(folder / "meta" / "metadata", 8 * 3)
    with pytest.raises(InputError, match=rf"{folder} is corrupt.*previous best one, of step 1"):
        checkpoint.Checkpoints(tmp_path).restore("best", abstract())
    shutil.rmtree(folder)
    assert int(checkpoint.Checkpoints(tmp_path).restore("best", abstract())[0]["step"]) == 1


@pytest.mark.parametrize("reading", ["metadata", "arrays", "checksums"])
@pytest.mark.parametrize("kind", ["best", "latest"])
def test_what_another_process_finds_corrupt_is_corrupt_here_too(tmp_path, kind, reading, caplog, monkeypatch):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(kind, step, make_tree(step), {"epoch": step})
    checkpoints.close()
    corrupt = iter([reading == what for what in ("metadata", "arrays", "checksums")])
    asked = []

    def gather(flag):
        asked.append(flag)
        return np.array([flag, next(corrupt, False)])

    monkeypatch.setattr(integrity, "gather", gather)
    folder, checkpoints = tmp_path / "checkpoints" / kind / "2", checkpoint.Checkpoints(tmp_path)
    reason = rf"{folder} is corrupt \(process 1 cannot use what it reads of it\)"
    if kind == "best":
        with pytest.raises(InputError, match=reason):
            checkpoints.restore(kind, abstract())
    else:
        tree, meta = checkpoints.restore(kind, abstract())
        assert (int(tree["step"]), meta["step"]) == (1, 1)
        assert re.search(f"{reason}: going back to the one before it, of step 1", caplog.text)
        assert checkpoints.step(kind) == 1
    assert not any(asked)


def test_corruption_found_here_is_reported_to_the_other_processes(tmp_path, monkeypatch):
    save_steps(tmp_path, (1, 2))
    folder, asked = tmp_path / "checkpoints" / "latest" / "2", []
    flip(folder / "meta" / "metadata", 8 * 3)
    monkeypatch.setattr(integrity, "gather", lambda flag: asked.append(flag) or np.array([flag, False]))
    assert restored_step(tmp_path) == 1
    assert asked == [True, False, False, False]  # of step 2 the metadata; of step 1 these, the arrays, the checksums


def test_a_step_that_is_saved_again_is_replaced_and_so_are_those_after_it(tmp_path):
    save_steps(tmp_path, (2, 3))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save("latest", 2, make_tree(7), {"epoch": 7})
    checkpoints.close()
    assert checkpoint.Checkpoints(tmp_path).step("latest") == 2
    assert restored_step(tmp_path) == 7


@pytest.mark.parametrize("change", ["another shape", "another tree"])
def test_a_checkpoint_of_another_model_or_version_is_refused_and_its_deletion_is_not_advised(tmp_path, change):
    save_steps(tmp_path, (1,))
    other = abstract()
    if change == "another tree":
        other["velocity"] = other.pop("kernel")
    else:
        other["kernel"] = jax.ShapeDtypeStruct((7,), jnp.float32, sharding=other["kernel"].sharding)
    with pytest.raises(InputError, match=r"another model or another version.*not changed") as caught:
        checkpoint.Checkpoints(tmp_path).restore("latest", other)
    assert "delete" not in str(caught.value)


def test_a_write_that_fails_gives_one_message_and_loses_nothing(tmp_path):
    save_steps(tmp_path, (1, 2))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    noise = {"kernel": jax.random.normal(jax.random.key(0), (400, 400)), "step": jnp.int32(3)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(InputError, match=r"could not save checkpoint 3.*no space left.*make room"):
            checkpoints.save("latest", 3, noise, {"epoch": 3})
            checkpoints.wait()
        with pytest.raises(InputError, match=r"^could not save checkpoint 3") as caught:  # and not that of 4
            checkpoints.save("latest", 3, noise, {"epoch": 3})
            checkpoints.save("best", 4, noise, {"epoch": 4})
        assert str(caught.value).count("could not save") == 1
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
