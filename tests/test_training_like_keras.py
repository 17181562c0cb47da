"""Steps of training against Keras's own, from the same weights on the same batches."""

import jax
import numpy as np
import tiny

from fer_jax import config as config_lib
from fer_jax import models, optim, steps

LAYERS = "conv 8 relu, batch_norm, conv 8 relu, max_pool, conv 12 relu, batch_norm, avg_pool, flatten, dense 16 relu"
STEPS = 20


def in_keras(keras, params):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(12, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(7),
        ]
    )
    for kind, stem in ((layers.Conv2D, "conv2d"), (layers.Dense, "dense")):
        for number, layer in enumerate(layer for layer in model.layers if isinstance(layer, kind)):
            ours = params[f"{stem}_{number}" if number else stem]
            layer.set_weights([np.asarray(ours["kernel"]), np.asarray(ours["bias"])])
    rate = keras.optimizers.schedules.ExponentialDecay(3e-3, decay_steps=8, decay_rate=0.5, staircase=True)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_the_losses_of_twenty_steps_are_those_of_keras(keras):
    config = config_lib.get_default()
    config.model.layers = LAYERS
    config.optim.update({"schedule": "exponential", "learning_rate": 3e-3, "decay_steps": 8, "decay_rate": 0.5})
    model = models.make(config.model, 7)
    tx, _ = optim.make(config.optim, steps_per_epoch=10, epochs=2)
    phase = tiny.make_phase(model, tx)
    state = steps.init_state(phase, jax.random.key(0))
    theirs = in_keras(keras, state.params)
    step = jax.jit(steps.make_train_step(phase, tiny.make_objective(), key=jax.random.key(1)))
    rng, losses = np.random.default_rng(0), []
    for _ in range(STEPS):
        label = rng.integers(0, 7, 32).astype(np.int32)
        image = np.clip(rng.normal(100 + 10 * label, 40, (48, 48, 1, 32)).transpose(3, 0, 1, 2), 0, 255).astype(
            np.uint8
        )
        state, sums = step(state, {"image": image, "label": label, "mask": np.ones(32, np.float32)})
        losses.append((float(sums["loss"]) / 32, float(theirs.train_on_batch(image.astype(np.float32), label))))
        theirs.reset_metrics()
    ours, keras_losses = np.array(losses).T
    assert keras_losses[-1] < 0.9 * keras_losses[0]
    np.testing.assert_allclose(ours, keras_losses, rtol=5e-3)
