"""EfficientNet-Lite0, which Keras has not: against one made of Keras's layers, and with its real weights."""

import jax
import numpy as np
import pytest
import reference
from PIL import Image
from sklearn import datasets

from fer_jax import models, params, pretrained

NAME = "efficientnet_lite0"
DAISY, PALACE = 985, 698  # of ImageNet's 1000 classes
# kernel, strides, expansion, channels of each block (Google's table of B0, its repeats written out)
BLOCKS = {
    "1a": (3, 1, 1, 16),
    "2a": (3, 2, 6, 24),
    "2b": (3, 1, 6, 24),
    "3a": (5, 2, 6, 40),
    "3b": (5, 1, 6, 40),
    "4a": (3, 2, 6, 80),
    "4b": (3, 1, 6, 80),
    "4c": (3, 1, 6, 80),
    "5a": (5, 1, 6, 112),
    "5b": (5, 1, 6, 112),
    "5c": (5, 1, 6, 112),
    "6a": (5, 2, 6, 192),
    "6b": (5, 1, 6, 192),
    "6c": (5, 1, 6, 192),
    "6d": (5, 1, 6, 192),
    "7a": (3, 1, 6, 320),
}


def build(keras, size_px):
    """Builds Lite0 of Keras's layers with random weights; it takes what our preprocessing gives."""
    layers = keras.layers

    def norm(x, name, *, active=True):
        x = layers.BatchNormalization(name=name, epsilon=1e-3, momentum=0.99)(x)
        return layers.ReLU(max_value=6)(x) if active else x

    def conv(x, name, filters, size=1, strides=1):
        return layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=name)(x)

    keras.backend.clear_session()
    faces = layers.Input((size_px, size_px, 3))
    x = norm(conv(faces, "stem_conv", 32, 3, 2), "stem_bn")
    for block, (size, strides, expand, filters) in BLOCKS.items():
        start, channels = x, x.shape[-1]
        if expand > 1:
            x = norm(conv(x, f"block{block}_expand_conv", channels * expand), f"block{block}_expand_bn")
        depthwise = layers.DepthwiseConv2D(size, strides, padding="same", use_bias=False, name=f"block{block}_dwconv")
        x = norm(depthwise(x), f"block{block}_bn")
        x = norm(conv(x, f"block{block}_project_conv", filters), f"block{block}_project_bn", active=False)
        if block[1] != "a":
            x = layers.Add()([x, start])
    model = keras.Model(faces, norm(conv(x, "top_conv", 1280), "top_bn"))
    reference.randomize(model)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.gamma.assign(4 * layer.gamma)  # so that maps reach the 6 of ReLU6
    reference.calibrate(model, scaled(reference.draw_faces(size_px, count=16)))
    return model


def scaled(faces):
    return (faces.astype(np.float32) - 127) / 128


@pytest.mark.full
@pytest.mark.parametrize("size_px", [48, 65])
def test_features_equal_those_of_keras_layers_at_even_and_odd_sizes(keras, size_px):
    theirs, faces = build(keras, size_px), reference.draw_faces(size_px)
    variables = reference.variables(theirs, NAME)
    assert set(variables["params"]["backbone"]) == {layer.name for layer in theirs.layers if layer.get_weights()}
    expected = theirs(scaled(faces), training=False)
    reference.assert_varied(expected)
    reference.assert_close(reference.maps(reference.network(NAME), variables, faces), expected)


@pytest.mark.full
def test_running_statistics_after_a_training_step_equal_those_of_keras_layers(keras):
    theirs, faces = build(keras, 64), reference.draw_faces(64, count=4)
    before = reference.variables(theirs, NAME)
    changed = reference.train(reference.network(NAME), before, faces)
    theirs(scaled(faces), training=True)
    reference.assert_same_change(before, changed, reference.variables(theirs, NAME))


def shapes_of(network):
    size_px = models.row(NAME).native_px
    return jax.eval_shape(
        lambda: network.init(jax.random.key(0), np.zeros((1, size_px, size_px, 3), np.uint8), train=False)
    )


def test_it_has_the_published_number_of_parameters():
    """4.65 million (Google's table; PyTorch counts the trained ones); the statistics are two for each channel."""
    shapes = shapes_of(reference.network(NAME))
    assert params.count(shapes["params"]) == 4_652_008


def load_photo(file):
    """Returns the middle of a photo as ImageNet is evaluated: 224 of 256 pixels of its shorter side, bicubic."""
    photo = Image.fromarray(datasets.load_sample_image(file))
    side = int(min(photo.size) * 224 / 256)
    left, top = ((length - side) // 2 for length in photo.size)
    middle = photo.crop((left, top, left + side, top + side))
    return np.asarray(middle.resize((224, 224), Image.Resampling.BICUBIC))


@pytest.mark.full
def test_the_real_weights_see_a_daisy_and_a_palace(tmp_path):
    """The figures are those of PyTorch's network (efficientnet-lite-pytorch 0.1.0) on these pixels."""
    network = reference.network(NAME)
    merged = pretrained.load("imagenet", NAME, shapes_of(network), cache_dir=tmp_path, top=True)
    assert merged.new == ()
    variables = {"params": merged.params, "batch_stats": merged.batch_stats}
    photos = np.stack([load_photo("flower.jpg"), load_photo("china.jpg")])
    probs = np.asarray(jax.nn.softmax(reference.apply(network, variables, photos, train=False)))
    assert probs.argmax(axis=1).tolist() == [DAISY, PALACE]
    np.testing.assert_allclose(probs.max(axis=1), [0.3268, 0.3596], atol=0.003)
