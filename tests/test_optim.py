import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax import config as config_lib
from fer_jax import optim
from fer_jax.errors import InputError

SHAPES = {"kernel": (5, 4), "bias": (4,)}
LENGTH = {"steps_per_epoch": 10, "epochs": 10}


def settings(**fields):
    section = config_lib.get_default().optim
    section.update(fields)
    return section


def schedule(steps_per_epoch=10, epochs=8, **fields):
    return optim.make_schedule(settings(**fields), steps_per_epoch=steps_per_epoch, epochs=epochs)


def draw(seed, steps=None, scale=1.0):
    """Draws values of the shapes of a dense layer, or a list of them."""
    rng = np.random.default_rng(seed)
    drawn = [
        {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}
        for _ in range(steps or 1)
    ]
    return drawn if steps else drawn[0]


def follow(gradients, **fields):
    """Returns the parameters after updates with the given gradients."""
    tx, _ = optim.make(settings(**fields), **LENGTH)
    params = {"dense": jax.tree.map(jnp.asarray, draw(0))}
    state, update = tx.init(params), jax.jit(tx.update)
    for gradient in gradients:
        updates, state = update({"dense": gradient}, state, params)
        params = optax.apply_updates(params, updates)
    return params["dense"]


def follow_keras(keras, optimizer, gradients):
    variables = {name: keras.Variable(value, name=name) for name, value in draw(0).items()}
    optimizer.build(list(variables.values()))
    optimizer.exclude_from_weight_decay(var_list=[variables["bias"]])
    for gradient in gradients:
        tensors = [keras.ops.convert_to_tensor(gradient[name]) for name in variables]
        optimizer.apply_gradients(zip(tensors, variables.values(), strict=True))
    return {name: variable.numpy() for name, variable in variables.items()}


def assert_near(ours, theirs, rtol=2e-5):
    for name in SHAPES:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, atol=1e-6)


def test_exponential_is_keras_staircase(keras):
    lr_fn = schedule(schedule="exponential", learning_rate=3e-3, decay_rate=0.9, decay_steps=20)
    reference = keras.optimizers.schedules.ExponentialDecay(3e-3, decay_steps=20, decay_rate=0.9, staircase=True)
    steps = [0, 1, 19, 20, 21, 39, 40, 199, 200, 1000]
    np.testing.assert_allclose([lr_fn(s) for s in steps], [float(reference(s)) for s in steps], rtol=1e-5)
    assert lr_fn(19) == lr_fn(0) > lr_fn(20)


def test_constant_is_constant():
    lr_fn = schedule(learning_rate=0.02)
    assert [float(lr_fn(s)) for s in (0, 7, 10**6)] == [0.02] * 3


def test_cosine_warms_up_from_zero_to_the_peak_and_falls_to_zero():
    lr_fn = schedule(schedule="cosine", learning_rate=0.4, warmup_epochs=1.5)
    rates = np.array([lr_fn(s) for s in range(81)])
    assert rates[0] == 0
    assert np.isclose(rates[15], 0.4)
    assert abs(rates[80]) < 1e-7
    assert (np.diff(rates[:16]) > 0).all()
    assert (np.diff(rates[15:]) < 0).all()
    np.testing.assert_allclose(np.diff(rates[:16]), 0.4 / 15, rtol=1e-4)
    np.testing.assert_allclose(rates[15:], 0.2 * (1 + np.cos(np.pi * np.arange(66) / 65)), atol=1e-6)


def test_cosine_without_warm_up_starts_at_the_peak():
    lr_fn = schedule(schedule="cosine", learning_rate=0.4)
    np.testing.assert_allclose([lr_fn(0), lr_fn(40)], [0.4, 0.2], rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("rule", ["constant", "exponential"])
def test_adam_is_keras_adam_for_large_and_tiny_gradients(keras, rule, scale):
    gradients = draw(1, 12, scale)
    rate = 0.01
    if rule == "exponential":
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, decay_steps=4, decay_rate=0.5, staircase=True)
    theirs = follow_keras(keras, keras.optimizers.Adam(rate, epsilon=1e-7), gradients)
    fields = {"learning_rate": 0.01, "schedule": rule, "decay_steps": 4, "decay_rate": 0.5}
    assert_near(follow(gradients, name="adam", **fields), theirs)


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_is_keras_sgd_with_momentum(keras, nesterov):
    gradients = draw(2, 12)
    theirs = follow_keras(keras, keras.optimizers.SGD(0.05, momentum=0.8, nesterov=nesterov), gradients)
    ours = follow(gradients, name="sgd", learning_rate=0.05, momentum=0.8, nesterov=nesterov)
    assert_near(ours, theirs)


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum_under_a_rate_that_changes_is_keras(keras, nesterov):
    gradients = draw(2, 12)
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=4, decay_rate=0.1, staircase=True)
    theirs = follow_keras(keras, keras.optimizers.SGD(rate, momentum=0.8, nesterov=nesterov), gradients)
    fields = {"schedule": "exponential", "decay_steps": 4, "decay_rate": 0.1}
    ours = follow(gradients, name="sgd", learning_rate=0.05, momentum=0.8, nesterov=nesterov, **fields)
    assert_near(ours, theirs)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_rate_that_the_plateau_cuts_acts_as_keras_does(keras, name):
    gradients, rates = draw(2, 9), [0.05] * 3 + [0.005] * 6
    optimizer = keras.optimizers.SGD(0.05, momentum=0.8) if name == "sgd" else keras.optimizers.Adam(0.05, epsilon=1e-7)
    variables = {key: keras.Variable(value, name=key) for key, value in draw(0).items()}
    optimizer.build(list(variables.values()))
    tx, _ = optim.make(settings(name=name, learning_rate=0.05, momentum=0.8, nesterov=False), **LENGTH)
    params = {"dense": jax.tree.map(jnp.asarray, draw(0))}
    state = tx.init(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        tensors = [keras.ops.convert_to_tensor(gradient[key]) for key in variables]
        optimizer.apply_gradients(zip(tensors, variables.values(), strict=True))
        updates, state = tx.update({"dense": gradient}, state, params, lr_scale=rate / 0.05)
        params = optax.apply_updates(params, updates)
    assert_near(params["dense"], {key: variable.numpy() for key, variable in variables.items()})


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_weight_decay_of_sgd_is_keras_and_outside_the_velocity(keras, momentum):
    gradients = draw(3, 8)
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=3, decay_rate=0.5, staircase=True)
    theirs = follow_keras(keras, keras.optimizers.SGD(rate, momentum=momentum, weight_decay=0.5), gradients)
    fields = {"schedule": "exponential", "decay_steps": 3, "decay_rate": 0.5, "weight_decay": 0.5}
    ours = follow(gradients, name="sgd", learning_rate=0.05, momentum=momentum, nesterov=False, **fields)
    assert_near(ours, theirs)


def test_weight_decay_is_keras_adamw_without_the_biases(keras):
    gradients = draw(3, 8)
    theirs = follow_keras(keras, keras.optimizers.AdamW(0.01, weight_decay=0.5, epsilon=1e-7), gradients)
    assert_near(follow(gradients, learning_rate=0.01, weight_decay=0.5), theirs)


def test_weight_decay_shrinks_kernels_alone():
    still = [{name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}]
    before, after = draw(0), follow(still, name="sgd", learning_rate=0.1, weight_decay=0.5)
    np.testing.assert_allclose(after["kernel"], 0.95 * before["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(after["bias"], before["bias"])


def test_lion_is_keras_lion(keras):
    gradients = draw(6, 5)
    theirs = follow_keras(keras, keras.optimizers.Lion(0.01, beta_1=0.8, beta_2=0.99, weight_decay=0.1), gradients)
    assert_near(follow(gradients, name="lion", learning_rate=0.01, momentum=0.8, weight_decay=0.1), theirs)


def orthogonal(matrix):
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


@pytest.mark.parametrize(("shape", "scale"), [((3, 3, 4, 8), 1.0), ((4, 8), 2**0.5), ((8, 4), 1.0)])
def test_muon_steps_along_the_nearest_orthogonal_matrix(shape, scale):
    """Jordan et al. 2024: five Newton-Schulz iterations bring the singular values to about 1, by 0.7 to 1.2."""
    gradient = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    tx, _ = optim.make(settings(name="muon", learning_rate=0.5), **LENGTH)
    params = {"layer": {"kernel": jnp.zeros(shape)}}
    updates, _ = tx.update({"layer": {"kernel": jnp.asarray(gradient)}}, tx.init(params), params)
    step = np.asarray(updates["layer"]["kernel"]).reshape(-1, shape[-1]) / (-0.5 * scale)
    assert 0.6 < np.linalg.svd(step, compute_uv=False).min() <= np.linalg.svd(step, compute_uv=False).max() < 1.3
    wanted = orthogonal(gradient.reshape(step.shape))
    assert np.sum(step * wanted) > 0.97 * np.linalg.norm(step) * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("fields", "reference"),
    [
        ({"name": "adamw", "weight_decay": 0.1}, lambda: optax.adamw(0.05, weight_decay=0.1, mask=kernels)),
        ({"name": "adamw", "args": "b1=0.8, b2=0.95,eps=1e-3"}, lambda: optax.adam(0.05, 0.8, 0.95, 1e-3)),
        ({"name": "lion", "args": "b2=0.9"}, lambda: optax.lion(0.05, 0.9, 0.9, weight_decay=0.0)),
        (
            {"name": "muon", "args": "ns_steps=3", "nesterov": False},
            lambda: optax.contrib.muon(0.05, ns_steps=3, beta=0.9, nesterov=False),
        ),
    ],
    ids=["adamw", "adamw args", "lion args", "muon args"],
)
def test_the_table_gives_what_optax_composes(fields, reference):
    gradients, params = draw(7, 4), draw(0)
    ours, tx = follow(gradients, learning_rate=0.05, **fields), reference()
    state = tx.init(params)
    for one in gradients:
        updates, state = tx.update(one, state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), ours, params)


def kernels(params):
    return {name: name == "kernel" for name in params}


def test_muon_leaves_biases_to_adam_and_decays_kernels(keras):
    gradients = draw(7, 4)
    ours = follow(gradients, name="muon", learning_rate=0.05, nesterov=False, weight_decay=0.1)
    theirs = follow_keras(keras, keras.optimizers.Adam(0.05, epsilon=1e-8), gradients)
    np.testing.assert_allclose(ours["bias"], theirs["bias"], rtol=1e-4, atol=1e-6)
    still = [jax.tree.map(np.zeros_like, draw(0))] * 3
    decayed = follow(still, name="muon", learning_rate=0.1, weight_decay=0.5)
    np.testing.assert_allclose(decayed["kernel"], draw(0)["kernel"] * 0.95**3, rtol=1e-5)


@pytest.mark.parametrize("scale", [100.0, 1e-3])
def test_clipping_is_keras_global_clipnorm(keras, scale):
    gradients = draw(4, 5, scale)
    theirs = follow_keras(keras, keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0), gradients)
    ours = follow(gradients, name="sgd", learning_rate=0.1, nesterov=False, clip_norm=1.0)
    assert_near(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adamax"}, "optim.name is 'adamax'; known are adam, adamw, lion, muon, schedule_free, sgd"),
        ({"args": "b2"}, "optim.args has 'b2': give name=number, separated by commas"),
        ({"args": "b2=nan"}, "optim.args has 'b2=nan': give name=number"),
        ({"args": "beta=1"}, "optim.args: adam has no number 'beta'; it has b1 (0.9), b2 (0.999), eps (1e-07)"),
        ({"name": "sgd", "args": "b1=0.5"}, "optim.args: sgd has no number 'b1'; it has none"),
        ({"name": "schedule_free", "args": "b1=0"}, "optim.args: b1 of schedule_free is 0.0: give more than 0"),
        ({"schedule": "linear"}, "optim.schedule is 'linear'; known are constant, exponential, cosine"),
        ({"plateau": {"factor": 2.0}}, "optim.plateau.factor is 2.0: give 0 to under 1"),
        ({"schedule": "cosine", "warmup_epochs": 10.0}, "optim.warmup_epochs is 10.0, but train.epochs is 10"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(InputError) as caught:
        optim.make(settings(**fields), steps_per_epoch=5, epochs=10)
    assert message in str(caught.value)
