"""What the two Inception networks promise beside their parity with Keras; shapes only, so nothing is compiled."""

import jax
import numpy as np
import pytest
import reference

from fer_jax.errors import InputError
from fer_jax.models import keras_layers

# name -> channels of its maps, and its parameters without the classifier (Keras's documentation)
FACTS = {"inception_v3": (2048, 21_802_784), "inception_resnet_v2": (1536, 54_336_736)}


def trace(name, size_px, **fields):
    """Returns the shapes of the maps and of the backbone's variables."""
    model = reference.network(name, head="global_avg_pool", **fields)

    def maps_of(net, faces):
        return net.backbone(net.preprocess(faces).astype(net.backbone.dtype), train=False)

    faces = np.zeros((2, size_px, size_px, 1), np.uint8)
    maps, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), faces, method=maps_of))
    return maps, {kind: tree["backbone"] for kind, tree in variables.items()}


@pytest.mark.full
@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize(("size_px", "cells"), [(75, 1), pytest.param(299, 8, marks=pytest.mark.full)])
def test_maps_have_the_published_shape_in_the_dtype_of_the_config(name, size_px, cells):
    maps, _ = trace(name, size_px, dtype="bfloat16")
    assert (maps.shape, maps.dtype) == ((2, cells, cells, FACTS[name][0]), "bfloat16")


@pytest.mark.full
@pytest.mark.parametrize("name", FACTS)
def test_layers_bear_the_names_and_leaves_of_keras(name):
    _, variables = trace(name, 75)
    kinds = {layer.name: layer.kind for layer in keras_layers.order(name) if layer.kind != "Dense"}
    norms = {layer for layer, kind in kinds.items() if kind == "BatchNormalization"}
    expected = {layer: {"bias"} if layer in norms else {"kernel"} for layer in kinds}
    for layer in expected:
        if layer.startswith("block"):  # the ends of the residual branches have no normalization but a bias
            expected[layer] = {"kernel", "bias"}
    assert {layer: set(leaves) for layer, leaves in variables["params"].items()} == expected
    statistics = {layer: set(leaves) for layer, leaves in variables["batch_stats"].items()}
    assert statistics == {layer: {"mean", "var"} for layer in norms}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == FACTS[name][1]


@pytest.mark.parametrize("name", FACTS)
def test_faces_under_75_pixels_are_refused(name):
    model = reference.network(name)
    with pytest.raises(InputError, match=r"74x74.*set model\.size_px to 75"):
        model.init(jax.random.key(0), np.zeros((1, 74, 74, 1), np.uint8), train=False)
    with pytest.raises(InputError, match=r"model\.size_px is 48; .* needs 75 or more"):
        reference.network(name, size_px=48)
