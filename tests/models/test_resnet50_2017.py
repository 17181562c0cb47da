"""Keras's ResNet50 files of 2017, written here with their names of layers and weights, in today's network."""

import h5py
import jax
import numpy as np
import pytest
import reference

from fer_jax import pretrained
from fer_jax.errors import InputError

# Of Keras on TensorFlow with this numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SIZE_PX = 64
WEIGHTS = {
    "Conv2D": ("W", "b"),
    "Dense": ("W", "b"),
    "BatchNormalization": ("gamma", "beta", "running_mean", "running_std"),  # the last is the variance all the same
}
LEAVES = {"W": "kernel", "b": "bias", "gamma": "scale", "beta": "bias", "running_mean": "mean", "running_std": "var"}


@pytest.fixture(scope="module")
def theirs(keras):
    """The network as it was built in 2017, letter by letter, with today's epsilon and padding of the pool."""
    layers = keras.layers
    keras.backend.clear_session()

    def conv_norm(x, stage, branch, filters, size=1, *, strides=1, active=True):
        x = layers.Conv2D(filters, size, strides, padding="same", name=f"res{stage}_branch{branch}")(x)
        x = layers.BatchNormalization(epsilon=1.001e-5, name=f"bn{stage}_branch{branch}")(x)
        return layers.Activation("relu")(x) if active else x

    def block(x, stage, filters, strides=None):
        y = conv_norm(x, stage, "2a", filters, strides=strides or 1)
        y = conv_norm(y, stage, "2b", filters, 3)
        y = conv_norm(y, stage, "2c", 4 * filters, active=False)
        x = conv_norm(x, stage, "1", 4 * filters, strides=strides, active=False) if strides else x
        return layers.Activation("relu")(layers.add([y, x]))

    faces = layers.Input((SIZE_PX, SIZE_PX, 3))
    x = layers.Conv2D(64, 7, strides=2, name="conv1")(layers.ZeroPadding2D(3)(faces))
    x = layers.Activation("relu")(layers.BatchNormalization(epsilon=1.001e-5, name="bn_conv1")(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage, (letters, filters) in enumerate((("abc", 64), ("abcd", 128), ("abcdef", 256), ("abc", 512)), 2):
        for letter in letters:
            x = block(x, f"{stage}{letter}", filters, {"a": 1 if stage == 2 else 2}.get(letter))
    logits = layers.Dense(11, name="fc1000")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(faces, [x, logits])
    reference.randomize(model)
    for layer in model.layers:
        if layer.name.endswith("branch2c") and layer.name.startswith("bn"):
            layer.gamma.assign(0.5 * layer.gamma)  # full-size branches let rounding grow over the blocks
    return model


def write(path, model, *, top, change=lambda name: name):
    """Writes the layout of 2017 by hand: every layer in `layer_names`, weights as `res2a_branch2a_W:0`."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if top or type(layer).__name__ != "Dense"]
        file.attrs["layer_names"] = [change(layer.name).encode() for layer in layers]
        for layer in layers:
            name = change(layer.name)
            group = file.create_group(name)
            names = [f"{name}_{weight}:0" for weight in WEIGHTS.get(type(layer).__name__, ())]
            group.attrs["weight_names"] = [weight.encode() for weight in names]
            for weight, array in zip(names, layer.get_weights(), strict=True):
                group[weight] = array
    return path


def load(path, *, top):
    network = reference.network("resnet50", 11, head="imagenet" if top else "global_avg_pool")
    face = np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), face, train=False))
    return network, pretrained.load(str(path), "resnet50", shapes)


@pytest.mark.full
@pytest.mark.parametrize("top", [False, True])
def test_the_files_network_and_ours_are_the_same_function(theirs, tmp_path, top):
    network, merged = load(write(tmp_path / "x.h5", theirs, top=top), top=top)
    assert merged.refused == {} and len(merged.loaded) == 318 + 2 * top
    assert set(merged.new) == (set() if top else {"head/dense/kernel", "head/dense/bias"})
    variables = {"params": merged.params, "batch_stats": merged.batch_stats}
    faces = reference.draw_faces(SIZE_PX)
    maps, logits = theirs(faces[..., ::-1].astype("float32") - np.float32([103.939, 116.779, 123.68]))
    reference.assert_varied(maps)
    reference.assert_close(reference.maps(network, variables, faces), maps)
    if top:
        reference.assert_close(reference.apply(network, variables, faces, train=False), logits)


def test_every_weight_is_that_of_the_file(theirs, tmp_path):
    weights = pretrained.read(write(tmp_path / "x.h5", theirs, top=True), "resnet50")
    assert weights.models[0] == "resnet50" and weights.refused == {}
    weighted = [layer for layer in theirs.layers if layer.weights]
    ours = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "fc1000": "predictions"}
    for layer in weighted:
        if layer.name not in ours:
            stage, branch = layer.name.removeprefix("res").removeprefix("bn").split("_branch")
            kind = "bn" if layer.name.startswith("bn") else "conv"
            block, part = "_abcdef".index(stage[1]), {"1": 0, "2a": 1, "2b": 2, "2c": 3}[branch]
            ours[layer.name] = f"conv{stage[0]}_block{block}_{part}_{kind}"
    assert set(weights.layers) == set(ours.values())
    for layer in weighted:
        found = weights.layers[ours[layer.name]]
        for name, array in zip(WEIGHTS[type(layer).__name__], layer.get_weights(), strict=True):
            np.testing.assert_array_equal(found[LEAVES[name]], array, err_msg=layer.name)


def test_a_name_that_is_not_of_2017_is_refused_with_the_lists(theirs, tmp_path):
    path = write(
        tmp_path / "x.h5", theirs, top=False, change=lambda name: name.replace("res2c_branch2a", "res2d_branch2a")
    )
    with pytest.raises(
        InputError, match="conv2_block3_1_conv: it is not in the file; res2d_branch2a: the model has no"
    ):
        load(path, top=False)


def test_another_network_is_not_given_their_names(theirs, tmp_path):
    weights = pretrained.read(write(tmp_path / "x.h5", theirs, top=False), "resnet101")
    assert "res2a_branch2a" in weights.layers and weights.models == ("resnet50",)
