import dataclasses
import json
import types

import numpy as np
import pytest

from fer_jax import patience
from fer_jax.errors import InputError

MODES = {"validation_accuracy": "max", "validation_macro_f1": "max", "validation_loss": "min"}
PEAK = 1e-3
NAN = float("nan")

# Multiples of 1/64, which Keras's 32-bit comparison holds exactly, so that ties are ties on both sides.
HAND_MADE = {
    "rises": np.arange(12) / 64,
    "falls": np.arange(12)[::-1] / 64,
    "flat": np.full(15, 0.5),
    "up and down": np.array([1, 5, 3, 6, 2, 2, 7, 1, 1, 1, 1, 8, 0, 0, 0, 0]) / 64,
    "NaN": np.array([4, NAN, 5, NAN, NAN, NAN, 3, 6, NAN, NAN, NAN, NAN, NAN]) / 64,
}


def sequences():
    yield from HAND_MADE.values()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        values = (rng.integers(0, 20, 40) + rng.integers(-2, 3) * np.arange(40) // 4) / 64
        values[1:][rng.random(39) < 0.05 * (seed % 3)] = NAN
        yield values


def one_of(rng, **choices):
    return {name: rng.choice(values).item() for name, values in choices.items()}


def stopping_cases():
    for number, values in enumerate(sequences()):
        for monitor in MODES:
            rng = np.random.default_rng((number, len(monitor)))
            fields = one_of(rng, patience_epochs=[1, 2, 3, 7], min_delta=[0.0, 1 / 64, 3 / 64])
            yield patience.EarlyStopping(monitor, **fields), values


def plateau_cases():
    for number, values in enumerate(sequences()):
        for monitor in MODES:
            rng = np.random.default_rng((number, len(monitor), 1))
            fields = one_of(
                rng,
                patience_epochs=[1, 2, 3, 5],
                factor=[0.1, 0.5, 0.9],
                min_delta=[0.0, 1 / 64, 3 / 64],
                cooldown_epochs=[0, 1, 2, 4],
                min_scale=[0.0, 0.03, 0.25],
            )
            yield patience.Plateau(monitor, **fields), values


def run_stopping(stopping, values):
    """Returns (epochs run, best epoch)."""
    for epoch, value in enumerate(values, 1):
        stopping.update(epoch, {stopping.monitor: float(value)})
        if stopping.stop:
            break
    return epoch, stopping.best_epoch


def test_early_stopping_stops_and_chooses_as_keras_does(keras):
    stopped = 0
    for stopping, values in stopping_cases():
        reference = keras.callbacks.EarlyStopping(
            "metric", patience=stopping.patience_epochs, min_delta=stopping.min_delta, mode=MODES[stopping.monitor]
        )
        model = types.SimpleNamespace(stop_training=False)
        reference.set_model(model)
        reference.on_train_begin()
        for epoch, value in enumerate(values):
            reference.on_epoch_end(epoch, {"metric": value})
            if model.stop_training:
                break
        stopped += model.stop_training
        assert run_stopping(stopping, values) == (epoch + 1, reference.best_epoch + 1), (stopping, values)
    assert stopped > 30


def test_plateau_cuts_the_rate_as_keras_does(keras):
    cuts = 0
    for plateau, values in plateau_cases():
        reference = keras.callbacks.ReduceLROnPlateau(
            "metric",
            factor=plateau.factor,
            patience=plateau.patience_epochs,
            mode=MODES[plateau.monitor],
            min_delta=plateau.min_delta,
            cooldown=plateau.cooldown_epochs,
            min_lr=plateau.min_scale * PEAK,
        )
        optimizer = types.SimpleNamespace(learning_rate=PEAK)
        reference.set_model(types.SimpleNamespace(optimizer=optimizer))
        reference.on_train_begin()
        for epoch, value in enumerate(values):
            reference.on_epoch_end(epoch, {"metric": value})
            optimizer.learning_rate = np.float32(optimizer.learning_rate)
            scale = plateau.update({plateau.monitor: float(value)})
            # atol: Keras's rate is 32 bits, which run out after 38 cuts to a tenth
            assert np.isclose(PEAK * scale, optimizer.learning_rate, rtol=1e-5, atol=1e-30), (plateau, values)
        cuts += scale < 1
    assert cuts > 50


def through_json(waiting):
    saved = json.loads(json.dumps(patience.state(waiting)))
    fresh = dataclasses.replace(waiting, **dict.fromkeys(patience.state(waiting)))
    patience.restore(fresh, saved)
    return fresh


def test_a_restored_rule_resumes_as_if_nothing_had_happened():
    for plain, values in [*stopping_cases(), *plateau_cases()]:
        restored = through_json(plain)
        for epoch, value in enumerate(values, 1):
            scores = {plain.monitor: float(value)}
            place = (epoch,) if isinstance(plain, patience.EarlyStopping) else ()
            assert plain.update(*place, scores) == restored.update(*place, scores)
            restored = through_json(restored)
        assert patience.state(restored) == patience.state(plain)


def test_patience_zero_never_stops_but_keeps_the_best():
    stopping = patience.EarlyStopping("validation_accuracy")
    assert run_stopping(stopping, np.array([0.1, 0.4, 0.3] + 50 * [0.2])) == (53, 2)


def test_patience_zero_never_cuts():
    plateau = patience.Plateau("validation_loss")
    assert {plateau.update({"validation_loss": 1.0}) for _ in range(50)} == {1.0}


def test_a_first_nan_is_not_the_best():
    stopping = patience.EarlyStopping("validation_accuracy", patience_epochs=3)
    assert run_stopping(stopping, np.array([NAN, 0.2, 0.1])) == (3, 2)


def test_a_first_nan_is_not_the_plateaus_best():
    """Keras 3 takes it as the best, which nothing is better than."""
    plateau = patience.Plateau("validation_loss", patience_epochs=2, factor=0.5)
    scales = [plateau.update({"validation_loss": value}) for value in (NAN, 3.0, 2.0, 1.0, 0.5)]
    assert scales == [1.0] * 5


def test_the_best_is_the_first_of_the_best_values_and_never_a_nan():
    for values in sequences():
        for monitor, mode in MODES.items():
            best = patience.Best(monitor)
            improved = [epoch for epoch, value in enumerate(values, 1) if best.update(epoch, {monitor: float(value)})]
            assert best.epoch == improved[-1] == (np.nanargmax if mode == "max" else np.nanargmin)(values) + 1


def test_unknown_monitors_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'accuracy' cannot be monitored; known are validation_accuracy"):
        patience.direction("accuracy")
