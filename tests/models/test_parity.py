"""Every pretrained network against Keras's own, with random weights."""

import jax
import numpy as np
import pytest
import reference

from fer_jax import models, params

NAMES = tuple(name for name in models.BACKBONES if name in reference.KERAS)
# Even, odd; the smallest that the family takes and a little more.
SIZES = {"inception_v3": (76, 97), "inception_resnet_v2": (76, 97)}
# Networks whose graph in Keras depends on the size it is built for.
SIZED = tuple(name for name in NAMES if name.startswith("efficientnet"))
TRAINED_PX = 96


def draw_faces(size_px, count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


def assert_close(ours, theirs, tolerance=1e-4):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def features(model, variables, faces):
    with jax.default_matmul_precision("highest"):
        return model.apply(
            variables, faces, train=False, method=lambda net, x, train: net.backbone(net.preprocess(x), train=train)
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_features_equal_those_of_keras_at_even_and_odd_sizes(keras, name):
    model = reference.network(name, head="global_avg_pool")
    theirs = None if name in SIZED else reference.build(keras, name)
    for size_px in SIZES.get(name, (48, 65)):
        theirs = reference.build(keras, name, size_px) if name in SIZED else theirs
        faces = draw_faces(size_px)
        expected = theirs(reference.preprocessed(keras, name, faces), training=False)
        assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.abs(expected).max()  # else equality proves nothing
        assert_close(features(model, reference.variables(theirs, name), faces), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_those_of_keras_at_the_native_size(keras, name):
    size_px = models.row(name).native_px
    theirs = reference.build(keras, name, size_px, top=True)
    faces = draw_faces(size_px, count=1)
    expected = theirs(reference.preprocessed(keras, name, faces), training=False)
    with jax.default_matmul_precision("highest"):
        ours = reference.network(name).apply(reference.variables(theirs, name), faces, train=False)
    assert_close(ours, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("vgg")])
def test_running_statistics_after_a_training_step_equal_those_of_keras(keras, name):
    model = reference.network(name, head="global_avg_pool")
    if hasattr(model.backbone, "drop_connect"):
        model = model.clone(backbone=model.backbone.clone(drop_connect=0.0))
    theirs = reference.build(keras, name, TRAINED_PX)
    faces = draw_faces(TRAINED_PX, count=4)
    variables = reference.variables(theirs, name)
    theirs(reference.preprocessed(keras, name, faces), training=True)
    with jax.default_matmul_precision("highest"):
        _, changed = model.apply(
            variables,
            faces,
            train=True,
            mutable=["batch_stats"],
            method=lambda net, x, train: net.backbone(net.preprocess(x), train=train),
        )
    after = reference.variables(theirs, name)["batch_stats"]
    for layer, values in after["backbone"].items():
        before = variables["batch_stats"]["backbone"][layer]
        for leaf, expected in values.items():
            assert_close(changed["batch_stats"]["backbone"][layer][leaf] - before[leaf], expected - before[leaf], 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_counts_equal_those_of_keras(keras, name):
    """Keras counts the seven constants of EfficientNet's normalization layer too."""
    theirs = getattr(keras.applications, reference.KERAS[name])(weights=None)
    model = reference.network(name)
    size_px = models.row(name).native_px
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, size_px, size_px, 3), np.uint8), train=False)
    )
    constants = sum(layer.count_params() for layer in theirs.layers if type(layer).__name__ == "Normalization")
    assert params.count(shapes) == theirs.count_params() - constants
