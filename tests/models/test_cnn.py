import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from fer_jax import config as config_lib
from fer_jax import models, params
from fer_jax.errors import InputError
from fer_jax.models import stack

CONFIG_FILE = pathlib.Path(__file__).parents[2] / "configs" / "cnn.py"

# total, trainable, statistics: as R1's notebook prints them
COUNTS = {
    "model_1": (1_469_031, 1_468_583, 448),
    "model_2": (1_469_031, 1_468_583, 448),
    "model_3": (5_868_743, 5_867_847, 896),
    "model_4": (1_977_447, 1_976_999, 448),
    "model_5": (2_357_351, 2_356_391, 960),
    "model_6": (813_671, 813_223, 448),
}
LEAKY = (
    "conv 8 5x3 valid, leaky_relu 0.1, batch_norm, avg_pool, conv 16 relu, max_pool, conv 12 2x2, batch_norm, relu,"
    " dropout 0.3, global_avg_pool, dense 10, leaky_relu 0.2"
)


def make(layers, **fields):
    section = config_lib.get_default().model
    section.update(layers=layers, **fields)
    return models.make(section, 7)


def shapes(model):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 48, 48, 1), jnp.uint8), train=False))


def draw(model, seed=0):
    """Draws variables with statistics and scales that are not the initial ones."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, (2 / np.prod(shape.shape[:-1])) ** 0.5, shape.shape)
        return rng.uniform(0.5, 2, shape.shape) if name in ("scale", "var") else rng.normal(0, 0.2, shape.shape)

    drawn = jax.tree_util.tree_map_with_path(leaf, shapes(model))
    return jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), drawn)


def draw_faces(n=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 48, 48, 1), dtype=np.uint8)


@pytest.mark.parametrize("name", COUNTS)
def test_r1_networks_have_the_published_parameter_counts(name):
    variables = shapes(models.make(config_lib.load(f"{CONFIG_FILE}:{name}").model, 7))
    trainable, stored = params.count(variables["params"]), params.count(variables["batch_stats"])
    assert (trainable + stored, trainable, stored) == COUNTS[name]


def r1_in_keras(keras, pools, second_padding="same"):
    layers = keras.layers
    stack = [keras.Input((48, 48, 1))]
    for filters, pool in zip((32, 64, 128), pools, strict=True):
        stack += [
            layers.Conv2D(filters, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(filters, 3, padding=second_padding, activation="relu"),
            layers.MaxPooling2D(2, strides=2) if pool == "max" else layers.AveragePooling2D(2, strides=2),
            layers.Dropout(0.0),
        ]
    head = [layers.Flatten(), layers.Dense(256, activation="relu"), layers.Dropout(0.0), layers.Dense(7)]
    return keras.Sequential(stack + head)


def leaky_in_keras(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.Conv2D(8, (5, 3)),
            layers.LeakyReLU(negative_slope=0.1),
            layers.BatchNormalization(),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(12, 2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Dense(7),
        ]
    )


def r1_layers(name):
    text = config_lib.load(f"{CONFIG_FILE}:{name}").model.layers
    return text.replace("dropout 0.25", "dropout 0.0").replace("dropout 0.5", "dropout 0.0")


PAIRS = {
    "model_1": (lambda: r1_layers("model_1"), lambda keras: r1_in_keras(keras, ("max",) * 3)),
    "model_2": (lambda: r1_layers("model_2"), lambda keras: r1_in_keras(keras, ("max", "avg", "avg"))),
    "model_6": (
        lambda: r1_layers("model_6"),
        lambda keras: r1_in_keras(keras, ("max", "avg", "avg"), "valid"),
    ),
    "leaky": (lambda: LEAKY.replace("0.3", "0.0"), leaky_in_keras),
}


def copy_to_keras(variables, network):
    """Copies by layer name: every weight on both sides is used once."""
    weighted = {layer.name: layer for layer in network.layers if layer.weights}
    assert weighted.keys() == variables["params"].keys()
    for name, layer in weighted.items():
        leaves = {**variables["params"][name], **variables["batch_stats"].get(name, {})}
        order = ("scale", "bias", "mean", "var") if "scale" in leaves else ("kernel", "bias")
        assert leaves.keys() == set(order)
        layer.set_weights([np.asarray(leaves[leaf]) for leaf in order])


def assert_near(ours, theirs, rtol=1e-4):
    np.testing.assert_allclose(ours, theirs, atol=rtol * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize("name", PAIRS)
def test_a_network_computes_what_keras_computes(keras, name):
    keras.utils.clear_session()  # automatic names count from the start again
    layers, in_keras = PAIRS[name][0](), PAIRS[name][1](keras)
    model = make(layers, scaling="unit")
    variables, faces = draw(model), draw_faces()
    copy_to_keras(variables, in_keras)
    scaled = faces.astype(np.float32) / 255
    logits = jax.jit(model.apply, static_argnames="train")(variables, faces, train=False)
    assert_near(logits, in_keras(scaled, training=False).numpy())
    if name not in ("model_6", "leaky"):  # training differs from inference in dropout and the statistics alone
        return
    apply = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    logits, changed = apply(variables, faces)
    assert_near(logits, in_keras(scaled, training=True).numpy())
    for layer, statistics in changed["batch_stats"].items():
        *_, mean, variance = in_keras.get_layer(layer).get_weights()
        assert_near(statistics["mean"], mean)
        assert_near(statistics["var"], variance)


@pytest.mark.parametrize(
    ("scaling", "scaled"),
    [("raw", lambda x: x), ("unit", lambda x: x / 255), ("symmetric", lambda x: x / 127.5 - 1)],
)
def test_scaling_is_done_inside(scaling, scaled):
    model = make("flatten", scaling=scaling)
    variables, faces = draw(model), draw_faces()
    dense = jax.tree.map(np.asarray, variables["params"]["dense"])
    expected = scaled(faces.astype(float)).reshape(4, -1) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(model.apply(variables, faces, train=False), expected, rtol=1e-3, atol=1e-3)


def test_bfloat16_computes_near_float32_and_keeps_parameters_and_logits():
    half, full = make(LEAKY, dtype="bfloat16"), make(LEAKY)
    variables, faces = draw(full), draw_faces()
    for tree in (shapes(half), shapes(full)):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    exact, rounded = (
        np.asarray(jax.jit(model.apply, static_argnames="train")(variables, faces, train=False))
        for model in (full, half)
    )
    assert rounded.dtype == np.float32
    assert_near(rounded, exact, rtol=0.05)
    assert np.abs(rounded - exact).max() > 1e-5 * np.abs(exact).max()


def float64_logits(features, dense):
    kernel, bias = (np.asarray(dense[leaf], np.float64) for leaf in ("kernel", "bias"))
    return np.asarray(features, np.float64) @ kernel + bias


def test_bfloat16_computes_its_logits_in_float32():
    model = make("flatten", dtype="bfloat16")
    variables, faces = draw(model), draw_faces()
    features = jnp.asarray(faces / 255, jnp.bfloat16).reshape(4, -1)
    logits = model.apply(variables, faces, train=False)
    np.testing.assert_allclose(logits, float64_logits(features, variables["params"]["dense"]), rtol=0, atol=1e-4)


def test_a_backbones_head_computes_its_logits_in_float32():
    section = config_lib.get_default().model
    section.update(name=tiny.NAME, head="global_avg_pool", size_px=32, dtype="bfloat16")
    network = models.make(section, 7)
    variables, faces = draw(network), draw_faces()
    features = network.apply(variables, faces, train=False, method="features")
    assert features.dtype == jnp.bfloat16
    logits = network.apply(variables, features, train=False, method="classify")
    assert logits.dtype == jnp.float32
    expected = float64_logits(features, variables["params"]["head"]["dense"])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_dropout_acts_in_training_alone():
    model = make("flatten, dropout 0.5")
    variables, faces = draw(model), draw_faces()
    outputs = [model.apply(variables, faces, train=False) for _ in range(2)]
    trained = [model.apply(variables, faces, train=True, rngs={"dropout": jax.random.key(k)}) for k in range(2)]
    np.testing.assert_array_equal(*outputs)
    assert not np.allclose(*trained)


def test_pools_drop_what_is_left_over_at_the_edge():
    model = make("max_pool, flatten")
    model_shape = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 7, 5, 1), jnp.uint8), train=False))
    assert model_shape["params"]["dense"]["kernel"].shape == (3 * 2, 7)


def test_words_may_be_left_out_and_lines_count_as_commas():
    assert stack.parse("conv 64\nflatten") == stack.parse("conv 64 3x3 same linear, flatten")
    assert stack.parse("conv 8 relu 5x3 valid, flatten") == stack.parse(" conv 8 valid 5x3 relu,, flatten\n")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("", "model.layers is empty"),
        (" , \n", "model.layers is empty"),
        ("conv 32 relu, dense 4", "model.layers has none of flatten, global_avg_pool, cfc"),
        ("conv, flatten", "'conv' needs a number of filters or units, as in 'conv 64'"),
        ("conv 0, flatten", "'conv 0' needs a number"),
        ("flatten, dense relu 4", "'dense relu 4' needs a number of filters or units, as in 'dense 64'"),
        ("conv 8 3x3 gelu, flatten", "'conv 8 3x3 gelu': cannot read 'gelu'"),
        ("flatten, dense 8 same", "'dense 8 same': cannot read 'same'"),
        ("conv 8 3x, flatten", "cannot read '3x'"),
        ("flatten, dropout", "'dropout' needs one number from 0 to under 1, as in 'dropout 0.25'"),
        ("flatten, dropout 1", "'dropout 1' needs one number"),
        ("flatten, dropout half", "'dropout half' needs one number"),
        ("flatten, leaky_relu 0.1 0.2", "'leaky_relu 0.1 0.2' needs one number"),
        ("convolution 8, flatten", "unknown layer 'convolution 8'; known are conv, dense"),
        ("max_pool 3, flatten", "'max_pool 3': max_pool takes no further words"),
    ],
)
def test_a_wrong_specification_is_refused_by_name(layers, message):
    with pytest.raises(InputError) as caught:
        make(layers)
    assert message in str(caught.value)


def test_one_pool_too_many_is_refused():
    with pytest.raises(InputError, match="avg_pool gets a map of 1x1: one pool too many"):
        shapes(make(", ".join(6 * ["avg_pool"] + ["flatten"])))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "vgg"}, "model.name is 'vgg'; known are cnn"),
        ({"dtype": "float16"}, "model.dtype is 'float16'; known are float32, bfloat16"),
        ({"scaling": "tf"}, "model.scaling is 'tf'; known are auto, raw, unit, symmetric"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(fields, message):
    with pytest.raises(InputError) as caught:
        make("flatten", **fields)
    assert message in str(caught.value)
