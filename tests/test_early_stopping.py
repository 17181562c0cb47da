"""Early stopping, the plateau and the choice of the checkpoint in whole runs, on validation scores that are given."""

import functools
import json

import jax
import numpy as np
import pytest
import tiny

from fer_jax import checkpoint, inference, losses, metrics, train
from fer_jax import run as run_lib
from fer_jax import workdir as workdir_lib
from fer_jax.errors import InputError
from fer_jax.report import records

NAN = float("nan")
TWO_PHASES = {"optim.freeze": ("backbone",), "optim.fine_tune.learning_rate": 5e-4}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Trains with the given validation scores, one of each an epoch; returns what `train` returns."""

    def run(accuracies, losses=None, folder="run", **fields):
        losses = losses or [1.0] * len(accuracies)
        scores = [
            {"loss": loss, "accuracy": accuracy, "macro_f1": accuracy}
            for loss, accuracy in zip(losses, accuracies, strict=True)
        ]
        given = iter(scores)
        monkeypatch.setattr(metrics, "summarize", lambda sums: next(given))
        config = tiny.make_config(tmp_path / "cache", **{"train.epochs": len(scores), **fields})
        return train.train(config, tmp_path / folder)

    return run


@pytest.fixture
def epochs(tmp_path):
    return lambda: [epoch["epoch"] for epoch in workdir_lib.read_history(tmp_path / "run")]


def meta(folder, kind):
    return checkpoint.Checkpoints(folder / "run").meta(kind)


@pytest.mark.full
def test_the_plateaus_floor_in_the_second_phase_is_of_its_own_rate(run, tmp_path):
    plateau = {"optim.plateau.patience_epochs": 1, "optim.plateau.min_learning_rate": 1e-4}
    run([0.5] * 6, **TWO_PHASES, **plateau, **{"optim.fine_tune.after_epochs": 2})
    rates = [epoch["learning_rate"] for epoch in workdir_lib.read_history(tmp_path / "run")]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 1e-4, 1e-4], rel=1e-5)


@pytest.mark.full
def test_each_phase_stops_by_its_own_best_and_the_checkpoint_is_the_best_of_all(run, epochs, tmp_path):
    fields = {"optim.fine_tune.after_epochs": 2, "train.early_stopping.patience_epochs": 2}
    best = run([0.9, 0.9, 0.5, 0.6, 0.7, 0.8], **TWO_PHASES, **fields)
    assert epochs() == [1, 2, 3, 4, 5, 6]
    assert best["epoch"] == meta(tmp_path, "best")["epoch"] == 1


@pytest.mark.full
def test_the_best_epoch_is_found_where_epochs_were_left_out(run, epochs):
    fields = {"optim.fine_tune.after_epochs": 5, "train.early_stopping.patience_epochs": 1}
    scores = [0.4, 0.3, 0.5, 0.6]  # epochs 1, 2, 6, 7: the first phase stops after its second epoch
    best = run(scores, **TWO_PHASES, **fields, **{"train.epochs": 7})
    assert epochs() == [1, 2, 6, 7]
    assert (best["epoch"], best["validation_accuracy"]) == (7, 0.6)
    assert run(scores, **TWO_PHASES, **fields, **{"train.epochs": 7}) == best  # complete: nothing is left to train


@pytest.mark.full
@pytest.mark.parametrize(
    ("accuracies", "fields"),
    [
        ([0.5, 0.4, 0.3], {}),
        ([0.5, 0.9, 0.6, 0.6, 0.6], {"train.early_stopping.patience_epochs": 2}),
        (
            [0.5, 0.54, 0.58, 0.7],
            {"train.early_stopping.patience_epochs": 2, "train.early_stopping.min_delta": 0.1},
        ),
        (
            [0.4, 0.3, 0.5, 0.4],
            {
                **TWO_PHASES,
                "train.epochs": 9,
                "optim.fine_tune.after_epochs": 5,
                "train.early_stopping.patience_epochs": 1,
            },
        ),
    ],
)
def test_the_report_tells_where_a_run_ends(run, tmp_path, accuracies, fields):
    run(accuracies, **fields)
    folder = tmp_path / "run"
    history, config = workdir_lib.read_history(folder), workdir_lib.read_config(folder)
    assert records.unfinished(history, config) == ""
    for count in range(1, len(history)):  # what a run that is stopped after an epoch has
        reached = f"epoch {history[count - 1]['epoch']} of {config['train']['epochs']}"
        assert records.unfinished(history[:count], config) == reached


@pytest.mark.full
@pytest.mark.parametrize("loss", [NAN, float("inf")])
def test_a_validation_loss_that_is_no_number_ends_the_run_and_is_not_saved(run, tmp_path, loss):
    with pytest.raises(InputError, match=r"validation loss is (nan|inf) in epoch 2.*another --workdir"):
        run([0.3, 0.4, 0.5], [1.0, loss, 1.0])
    assert meta(tmp_path, "latest")["epoch"] == meta(tmp_path, "best")["epoch"] == 1


@pytest.mark.full
def test_the_latest_checkpoint_says_whose_variables_were_put_back(run, tmp_path):
    run([0.5, 0.9, 0.6, 0.6, 0.6], **{"train.early_stopping.patience_epochs": 2})
    loaded = [inference.load(tmp_path / "run", kind) for kind in ("latest", "best")]
    jax.tree.map(np.testing.assert_array_equal, *(model.variables for model in loaded))
    latest, best = (model.meta for model in loaded)
    assert latest["epoch"] == best["epoch"] == 2
    assert latest["scores"] == best["scores"]
    assert latest["scores"]["validation_accuracy"] == 0.9
    assert meta(tmp_path, "latest")["epoch"] == 4  # where a run that is started again stands


@pytest.mark.full
def test_a_phase_that_ends_leaves_its_best_variables_to_the_next(run, tmp_path):
    patience = {"train.early_stopping.patience_epochs": 3}
    first = {"optim.freeze": ("backbone",), **patience}
    run([0.5, 0.9, 0.6], folder="first", **first)
    # At a rate of nearly 0 nothing moves, so that the second phase, whose epoch is the best, shows what it began with.
    second = {"optim.fine_tune.after_epochs": 3, "optim.fine_tune.learning_rate": 1e-30}
    run([0.5, 0.9, 0.6, 0.95], **first, **second)
    after, before = (inference.load(tmp_path / folder, "best") for folder in ("run", "first"))
    assert (before.meta["epoch"], after.meta["epoch"]) == (2, 4)
    same = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-20)
    jax.tree.map(same, before.variables["params"], after.variables["params"])


@pytest.mark.full
def test_early_stopping_may_watch_another_metric_than_the_checkpoint(run, epochs, tmp_path):
    early_stopping = {"train.early_stopping.patience_epochs": 2, "train.early_stopping.monitor": "validation_loss"}
    run([0.1, 0.2, 0.3, 0.4], [1.0, 1.1, 1.2, 1.3], **early_stopping)
    assert epochs() == [1, 2, 3]
    assert meta(tmp_path, "best")["epoch"] == 3
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["train"]["monitor"] == "validation_accuracy"


@pytest.mark.full
def test_the_checkpoint_ignores_the_tolerance_of_early_stopping(run, tmp_path):
    run([0.5, 0.55, 0.52], **{"train.early_stopping.patience_epochs": 3, "train.early_stopping.min_delta": 0.1})
    assert meta(tmp_path, "best")["epoch"] == 2


def test_an_unknown_metric_of_early_stopping_is_refused(run):
    with pytest.raises(InputError, match="'accuracy' cannot be monitored; known are validation_accuracy"):
        run([0.1], **{"train.early_stopping.monitor": "accuracy"})


def test_class_weights_follow_what_an_epoch_shows(tmp_path):
    """Disgust is 1.5% of FER-2013: weighed by the split and shown as often as the others, it would carry 63%."""
    fields = {"data.min_class_share": 1 / 7, "loss.class_weights": "balanced"}
    config = tiny.make_config(tmp_path / "cache", **fields)
    counts = run_lib.build(config).sampler.class_counts
    np.testing.assert_allclose(losses.class_weights(config.loss, counts), np.ones(7), rtol=1e-6)
