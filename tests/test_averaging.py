"""Averages of variables: against NumPy and optax, evaluated and kept next to the raw ones, and resumed."""

import jax
import numpy as np
import optax
import pytest
import tiny

from fer_jax import averaging, checkpoint, inference, scoring, train
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError
from fer_jax.runtime import interrupts


def test_the_moving_average_by_hand():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 3))
    mean, expected = {"w": np.zeros(3, np.float32)}, np.zeros(3)
    for step, value in enumerate(values, 1):
        mean = averaging.move(mean, {"w": value.astype(np.float32)}, np.int32(step), 0.95)
        keep = min(0.95, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * value
    np.testing.assert_allclose(mean["w"], expected, rtol=1e-4, atol=1e-6)


def test_frozen_variables_stay_what_they_are():
    weights = {"w": np.float32([0.1, 1e-20, 3e7])}
    moved = averaging.move(weights, weights, np.int32(5), 0.999)
    assert (np.asarray(moved["w"]) == weights["w"]).all()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run with an average, and one without."""
    root = tmp_path_factory.mktemp("runs")
    make = lambda **fields: tiny.make_config(root / "cache", **{"optim.learning_rate": 0.01, **fields})  # noqa: E731
    config = make(**{"train.ema_decay": 0.9, "log.norms": True, "optim.clip_norm": 1.0})
    train.train(config, root / "ema")
    train.train(make(**{"optim.clip_norm": 1.0}), root / "plain")
    return root, config


@pytest.mark.full
def test_an_average_changes_nothing_of_training(runs):
    root, _ = runs
    raw, plain = (inference.load(root / name, "latest", "raw").variables for name in ("ema", "plain"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(raw), jax.device_get(plain))


@pytest.mark.full
def test_both_are_scored_and_the_average_is_what_is_used(runs):
    root, _ = runs
    history = workdir_lib.read_history(root / "ema")
    best = max(history, key=lambda epoch: epoch["validation_accuracy"])
    scores = {
        which: scoring.evaluate(root / "ema", split="validation", variables=which)
        for which in ("auto", "average", "raw")
    }
    assert scores["auto"]["loss"] == scores["average"]["loss"] != scores["raw"]["loss"]
    assert scores["auto"]["variables"] == "average" and scores["raw"]["variables"] == "raw"
    assert scores["auto"]["loss"] == pytest.approx(best["validation_loss"], rel=1e-5)
    assert scores["raw"]["loss"] == pytest.approx(best["validation_raw_loss"], rel=1e-5)
    assert (root / "ema/evaluation-validation-raw.html").exists()


@pytest.mark.full
def test_norms_are_logged(runs):
    root, config = runs
    history = workdir_lib.read_history(root / "ema")
    assert "train_grad_norm" not in workdir_lib.read_history(root / "plain")[0]
    state, _ = checkpoint.Checkpoints(root / "ema").restore("latest", None)
    squares = [float((np.asarray(leaf, np.float64) ** 2).sum()) for leaf in jax.tree.leaves(state["params"])]
    # The mean over an epoch of a norm that hardly moves is near the last.
    assert history[-1]["train_param_norm"] == pytest.approx(np.sqrt(sum(squares)), rel=0.1)
    # Adam's steps are near the rate in each of n parameters.
    count = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    limit = config.optim.learning_rate * np.sqrt(count)
    assert 0.1 * limit < history[-1]["train_update_norm"] < 1.5 * limit
    assert history[-1]["train_grad_norm"] > 0


@pytest.mark.full
def test_a_stopped_run_with_an_average_ends_with_the_same_bits(runs, tmp_path):
    root, config = runs

    def stop(epoch, _):
        if epoch == 1:
            raise interrupts.Stopped(2)

    with pytest.raises(interrupts.Stopped):
        train.train(config, tmp_path / "run", on_epoch=stop)
    train.train(config, tmp_path / "run")
    once, twice = (
        checkpoint.Checkpoints(folder).restore("latest", None)[0] for folder in (root / "ema", tmp_path / "run")
    )
    assert "average" in once
    jax.tree.map(np.testing.assert_array_equal, once, twice)


@pytest.mark.full
def test_a_run_without_an_average_says_so(runs):
    with pytest.raises(InputError, match=r"plain has no averaged variables: .* train\.ema_decay"):
        inference.load(runs[0] / "plain", variables="average")


@pytest.mark.full
def test_schedule_free_is_evaluated_at_its_average(tmp_path):
    config = tiny.make_config(
        tmp_path / "cache",
        **{
            "optim.name": "schedule_free",
            "optim.args": "b1=0.8",
            "train.epochs": 1,
            "optim.freeze": ("backbone/stem.*",),
        },
    )
    train.train(config, tmp_path / "run")
    state, _ = checkpoint.Checkpoints(tmp_path / "run").restore("latest", None)
    found = jax.device_get(inference.load(tmp_path / "run", "latest").variables["params"])
    z = state["opt_state"]["z"]
    for path, y in jax.tree_util.tree_leaves_with_path(state["params"]):
        keys = [one.key for one in path]
        place, x = z, found
        for key in keys:
            place, x = (place or {}).get(key), x[key]
        expected = y if place is None else (y - 0.2 * place) / 0.8
        np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-6, err_msg="/".join(keys))
    (epoch,) = workdir_lib.read_history(tmp_path / "run")
    assert epoch["validation_loss"] != epoch["validation_raw_loss"]


def test_an_average_is_of_one_kind(tmp_path):
    config = tiny.make_config(tmp_path / "cache", **{"optim.name": "schedule_free", "train.ema_decay": 0.9})
    with pytest.raises(InputError, match=r"schedule_free already averages .* train\.ema_decay"):
        train.train(config, tmp_path / "run")


def test_the_optimizer_of_optax_is_what_runs():
    """The first steps of schedule_free with a constant rate, against optax's own composition."""
    from fer_jax import config as config_lib
    from fer_jax import optim

    section = config_lib.get_default().optim
    section.update({"name": "schedule_free", "learning_rate": 0.1})
    tx, _ = optim.make(section, steps_per_epoch=10, epochs=1)
    reference = optax.contrib.schedule_free_adamw(0.1, weight_decay=0.0, state_dtype=None)
    params = {"kernel": np.ones((2, 3), np.float32)}
    ours = theirs = params
    state, their_state = tx.init(params), reference.init(params)
    for seed in range(5):
        grads = {"kernel": np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)}
        updates, state = tx.update(grads, state, ours, lr_scale=1.0)
        ours = optax.apply_updates(ours, updates)
        updates, their_state = reference.update(grads, their_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    np.testing.assert_allclose(ours["kernel"], theirs["kernel"], rtol=1e-5)
