import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from scipy import special
from sklearn.metrics import confusion_matrix
from sklearn.utils.class_weight import compute_class_weight

from fer_jax import optim, steps

K, SIDE, RATE = 3, 4, 0.2
COUNTS = np.array([8, 4, 2])  # faces of each class
WEIGHTS = compute_class_weight("balanced", classes=np.arange(K), y=np.repeat(np.arange(K), COUNTS)).astype(np.float32)


class Linear(nn.Module):
    """The smallest network with what a step handles: dropout, statistics where asked, and a kernel with a bias."""

    dropout: float = 0.0
    batch_norm: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        x = image.reshape(image.shape[0], -1) / 255.0
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(K, name="dense")(nn.Dropout(self.dropout, deterministic=not train)(x))


def make_batch(n=8, seed=0, padding=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (n, SIDE, SIDE, 1), dtype=np.uint8),
        "label": rng.integers(0, K, n).astype(np.int32),
        "mask": (np.arange(n) < n - padding).astype(np.float32),
    }


def make(model, tx=None, *, key=7, parts=1, **loss):
    """Returns (initial state, jitted train step)."""
    tx = tx or optim.scale_by_rate(optax.constant_schedule(RATE))
    phase = tiny.make_phase(model, tx, (SIDE, SIDE, 1), **{"train.accumulate_steps": parts})
    state = steps.init_state(phase, jax.random.key(0))
    return state, jax.jit(steps.make_train_step(phase, tiny.make_objective(COUNTS, **loss), key=jax.random.key(key)))


def by_hand(state, batch, *, smoothing=0.0, weights=None, l2=0.0, scale=1.0):
    """One step of gradient descent on the linear network, in NumPy; returns (kernel, bias, sums)."""
    kernel, bias = (np.asarray(state.params["dense"][name], float) for name in ("kernel", "bias"))
    real = batch["mask"] == 1
    x, labels = batch["image"][real].reshape(real.sum(), -1) / 255, batch["label"][real]
    probs = special.softmax(x @ kernel + bias, axis=1)
    targets = np.eye(K)[labels] * (1 - smoothing) + smoothing / K
    of_face = np.ones(len(labels)) if weights is None else weights[labels]
    loss = (of_face * -(targets * np.log(probs)).sum(1)).mean() + l2 * (kernel**2).sum()
    slope = of_face[:, None] * (probs - targets) / len(labels)
    kernel, bias = (kernel - RATE * scale * (x.T @ slope + 2 * l2 * kernel), bias - RATE * scale * slope.sum(0))
    correct = (probs.argmax(1) == labels).sum()
    return kernel, bias, {"loss": loss * len(labels), "count": len(labels), "accuracy": correct}


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({}, {}),
        ({"label_smoothing": 0.3}, {"smoothing": 0.3}),
        ({"class_weights": "balanced"}, {"weights": WEIGHTS}),
        ({"l2": 0.05}, {"l2": 0.05}),
        (
            {"label_smoothing": 0.1, "class_weights": "balanced", "l2": 0.02},
            {"smoothing": 0.1, "weights": WEIGHTS, "l2": 0.02},
        ),
    ],
    ids=["plain", "smoothing", "class weights", "l2", "all"],
)
def test_a_step_is_gradient_descent_on_the_loss_by_hand(options, reference):
    state, step = make(Linear(), **options)
    for seed in range(3):
        batch = make_batch(seed=seed, padding=seed)  # what stands in the padding counts for nothing
        kernel, bias, expected = by_hand(state, batch, **reference)
        state, sums = step(state, batch)
        np.testing.assert_allclose(state.params["dense"]["kernel"], kernel, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.params["dense"]["bias"], bias, rtol=1e-4, atol=1e-6)
        assert sums.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(sums[name], value, rtol=1e-5)
        assert int(state.step) == seed + 1


@pytest.mark.parametrize(("parts", "backend"), [(2, "cpu"), (4, "cpu"), (8, "cpu"), (4, "gpu")])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(parts, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)  # a loop of the program, but on a CPU
    state, step = make(Linear(), parts=parts, label_smoothing=0.1, class_weights="balanced", l2=0.02)
    for seed in range(3):
        batch = make_batch(seed=seed, padding=3 * seed)  # parts with fewer real faces, and without any
        kernel, bias, expected = by_hand(state, batch, smoothing=0.1, weights=WEIGHTS, l2=0.02)
        state, sums = step(state, batch)
        np.testing.assert_allclose(state.params["dense"]["kernel"], kernel, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.params["dense"]["bias"], bias, rtol=1e-4, atol=1e-6)
        assert int(state.step) == seed + 1
        for name, value in expected.items():
            np.testing.assert_allclose(sums[name], value, rtol=1e-5)


@pytest.mark.full
def test_parts_draw_their_own_dropout_and_move_the_statistics_one_after_another():
    batch = make_batch()
    batch["label"][:], batch["image"][:] = 0, 255  # one white face
    state, step = make(Linear(dropout=0.5), parts=8)
    one, _ = make(Linear(dropout=0.5))
    changes = np.asarray(step(state, batch)[0].params["dense"]["kernel"] - one.params["dense"]["kernel"])
    # By one mask for all, a row would move wholly or not at all.
    assert len(np.unique(np.round(np.abs(changes[:, 0]), 6))) > 2
    state, step = make(Linear(batch_norm=True), parts=2)
    batch = make_batch()
    after, _ = step(state, batch)
    (statistics,) = after.batch_stats.values()
    x = batch["image"].reshape(8, -1) / 255
    mean = 0.9 * 0.1 * x[0::2].mean(0) + 0.1 * x[1::2].mean(0)
    np.testing.assert_allclose(statistics["mean"], mean, rtol=1e-4)


def test_a_step_is_keras_train_on_batch(keras):
    state, step = make(Linear(), label_smoothing=0.1, class_weights="balanced", l2=0.02)
    dense = keras.layers.Dense(K, kernel_regularizer=keras.regularizers.L2(0.02))
    network = keras.Sequential([keras.Input((SIDE, SIDE, 1)), keras.layers.Flatten(), dense])
    network.compile(
        keras.optimizers.SGD(RATE), keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    )
    dense.set_weights([np.asarray(state.params["dense"][name]) for name in ("kernel", "bias")])
    for seed in range(2):
        batch = make_batch(seed=seed)
        theirs = network.train_on_batch(
            batch["image"] / np.float32(255), np.eye(K)[batch["label"]], class_weight=dict(enumerate(WEIGHTS.tolist()))
        )
        state, sums = step(state, batch)
        if seed == 0:  # Keras reports the mean over the batches so far
            np.testing.assert_allclose(sums["loss"] / sums["count"], theirs, rtol=1e-5)
    for name, weights in zip(("kernel", "bias"), dense.get_weights(), strict=True):
        np.testing.assert_allclose(state.params["dense"][name], weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.0])
def test_the_plateaus_scale_multiplies_the_learning_rate(scale):
    state, step = make(Linear())
    batch = make_batch()
    kernel, bias, _ = by_hand(state, batch, scale=scale)
    state, _ = step(state.replace(lr_scale=jnp.float32(scale)), batch)
    np.testing.assert_allclose(state.params["dense"]["kernel"], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.params["dense"]["bias"], bias, rtol=1e-4, atol=1e-6)
    assert float(state.lr_scale) == scale


def test_dropout_is_drawn_from_the_key_and_the_step():
    state, step = make(Linear(dropout=0.5))
    batch = make_batch()

    def loss(some_step, number):
        return float(some_step(state.replace(step=jnp.int32(number)), batch)[1]["loss"])

    assert loss(step, 5) == loss(step, 5)
    assert len({loss(step, number) for number in range(6)}) == 6
    _, other = make(Linear(dropout=0.5), key=8)
    assert loss(other, 5) != loss(step, 5)


def test_statistics_move_towards_those_of_the_batch():
    state, step = make(Linear(batch_norm=True))
    batch = make_batch()
    x = batch["image"].reshape(8, -1) / 255
    after, _ = step(state, batch)
    (statistics,) = after.batch_stats.values()
    np.testing.assert_allclose(statistics["mean"], 0.1 * x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * x.var(0), rtol=1e-4)


def test_the_initial_state_holds_arrays_alone():
    phase = tiny.make_phase(Linear(batch_norm=True), optax.adam(0.1), (SIDE, SIDE, 1))
    state = steps.init_state(phase, jax.random.key(0))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert (int(state.step), state.step.dtype) == (0, jnp.int32)
    assert (float(state.lr_scale), state.lr_scale.dtype) == (1.0, jnp.float32)
    assert state.variables == {"params": state.params, "batch_stats": state.batch_stats}
    other = steps.init_state(phase, jax.random.key(1))
    assert (state.params["dense"]["kernel"] != other.params["dense"]["kernel"]).all()


@pytest.mark.full
@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.full), 2])
def test_two_devices_compute_what_one_does(make_shardings, parts):
    """Batch normalization and dropout over all devices' faces, not over each device's."""
    assert jax.device_count() == 2
    model = Linear(dropout=0.3, batch_norm=True)
    state, step = make(model, optax.adam(0.01), parts=parts, label_smoothing=0.1, l2=0.01)
    ends = []
    for count in (1, 2):
        batch_sharding, replicated = make_shardings(count)
        here, total = jax.device_put(state, replicated), 0.0
        for seed in range(4):
            here, sums = step(here, jax.device_put(make_batch(seed=seed), batch_sharding))
            total += float(sums["loss"])
        assert len(here.params["dense"]["kernel"].sharding.device_set) == count
        ends.append((jax.device_get(here), total))
    (one, loss_of_one), (two, loss_of_two) = ends
    assert abs(loss_of_one - loss_of_two) < 1e-5 * loss_of_one
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)


def test_an_eval_step_judges_by_the_plain_loss_over_the_real_faces():
    model = Linear(dropout=0.5, batch_norm=True)
    state, _ = make(model)
    batch = make_batch(n=12, padding=5)
    sums, probs = jax.jit(steps.make_eval_step(model, classes=K))(state.variables, batch)
    kernel, bias = (np.asarray(state.params["dense"][name], float) for name in ("kernel", "bias"))
    x = batch["image"].reshape(12, -1) / 255 / np.sqrt(1 + 1e-5)  # the initial statistics: mean 0, variance 1
    expected = special.softmax(x @ kernel + bias, axis=1)
    np.testing.assert_allclose(probs, expected, rtol=1e-4)
    assert probs.dtype == np.float32
    labels = batch["label"][:7]
    np.testing.assert_allclose(sums["loss"], -np.log(expected[np.arange(7), labels]).sum(), rtol=1e-4)
    assert int(sums["count"]) == 7
    matrix = confusion_matrix(labels, expected[:7].argmax(1), labels=range(K))
    np.testing.assert_array_equal(sums["confusion"], matrix)


def test_sharpness_aware_gradients_are_those_of_the_worst_neighbour():
    """Against two evaluations by hand: at the parameters, and at a distance of the radius up the gradient."""
    radius, batch, model = 0.3, make_batch(), Linear()
    fields = {"optim.sam_radius": radius}
    tx = optim.scale_by_rate(optax.constant_schedule(RATE))
    phase = tiny.make_phase(model, tx, (SIDE, SIDE, 1), **fields)
    state = steps.init_state(phase, jax.random.key(0))
    step = jax.jit(steps.make_train_step(phase, tiny.make_objective(COUNTS), key=jax.random.key(7)))
    kernel, bias = (np.asarray(state.params["dense"][name], float) for name in ("kernel", "bias"))
    first = by_hand(state, batch)
    slopes = [(kernel - first[0]) / RATE, (bias - first[1]) / RATE]
    length = np.sqrt(sum((slope**2).sum() for slope in slopes))
    moved = {"kernel": kernel + radius * slopes[0] / length, "bias": bias + radius * slopes[1] / length}
    neighbour = state.replace(params={"dense": moved})
    second = by_hand(neighbour, batch)
    found, sums = step(state, batch)
    np.testing.assert_allclose(
        found.params["dense"]["kernel"], kernel + second[0] - moved["kernel"], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(found.params["dense"]["bias"], bias + second[1] - moved["bias"], rtol=1e-4, atol=1e-6)
    assert float(sums["loss"]) == pytest.approx(first[2]["loss"], rel=1e-5)
    assert abs(second[0] - moved["kernel"] - first[0] + kernel).max() > 1e-3  # the two gradients differ
