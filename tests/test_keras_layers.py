"""The table of Keras's layers against Keras itself."""

import json
import pathlib

import jax
import numpy as np
import pytest

from fer_jax import config as config_lib
from fer_jax import models
from fer_jax.models import keras_layers

NAMES = tuple(json.loads(pathlib.Path(keras_layers.__file__).with_suffix(".json").read_text()))
SMALLEST_PX = 75  # that all of them take; the layers do not depend on it
# Keras's name of a weight -> ours, where they differ
LEAVES = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}


@pytest.fixture(scope="module")
def theirs(keras, request):
    """Keras's network of one name, its layers named as in a fresh session."""
    keras.backend.clear_session()
    builders = {key.lower(): value for key, value in vars(keras.applications).items() if key[0].isupper()}
    build = builders[request.param.replace("_", "")]
    return request.param, build(weights=None, input_shape=(SMALLEST_PX, SMALLEST_PX, 3))


@pytest.mark.full
@pytest.mark.parametrize("theirs", NAMES, indirect=True)
def test_the_table_lists_the_weighted_layers_of_keras_in_their_order(theirs):
    name, model = theirs
    expected = [
        (layer.name, type(layer).__name__, number) for number, layer in enumerate(model.layers) if layer.weights
    ]
    assert [tuple(layer) for layer in keras_layers.order(name)] == expected


@pytest.mark.full
@pytest.mark.parametrize("theirs", [name for name in NAMES if name in models.BACKBONES], indirect=True)
def test_our_variables_have_the_shapes_of_the_layers_that_the_table_pairs_them_with(theirs):
    name, model = theirs
    expected = {}
    for layer, (ours, kind, _) in zip([x for x in model.layers if x.weights], keras_layers.order(name), strict=True):
        if kind == "Normalization":  # preprocessing, which holds no variables here
            continue
        shapes = {weight.name.split("/")[-1]: tuple(weight.shape) for weight in layer.weights}
        if kind == "DepthwiseConv2D":
            height, width, channels, multiplier = shapes["kernel"]
            shapes["kernel"] = (height, width, multiplier, channels)
        expected[ours] = {LEAVES.get(leaf, leaf): shape for leaf, shape in shapes.items()}
    assert shapes_of(name) == expected


def shapes_of(name):
    """Returns {layer: {leaf: shape}} of our network with its ImageNet classifier."""
    section = config_lib.get_default().model
    section.update({"name": name, "head": "imagenet"})
    network = models.make(section, 1000)
    faces = np.zeros((1, SMALLEST_PX, SMALLEST_PX, 3), np.uint8)
    found = {}
    for part in jax.eval_shape(lambda: network.init(jax.random.key(0), faces, train=False)).values():
        for variables in part.values():
            for layer, leaves in variables.items():
                found.setdefault(layer, {}).update({leaf: array.shape for leaf, array in leaves.items()})
    return found


def test_vggfaces_resnet50_has_the_layers_of_resnet50_without_numbers():
    names = [layer.name for layer in keras_layers.order("resnet50")]
    assert [layer.name for layer in keras_layers.order("vggface_resnet50")] == names
    assert {layer.number for layer in keras_layers.order("vggface_resnet50")} == {None}


def test_the_table_has_nothing_on_a_network_that_keras_has_not():
    assert keras_layers.order("cnn") == ()
