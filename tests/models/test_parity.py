"""The pretrained networks against Keras's own, with random weights.

Of a family one network is compared at all sizes, in training and with its classifier; the others, which differ in the
number and the width of their blocks, at one size. tests/test_keras_layers.py compares all layers of all networks.
"""

import jax
import numpy as np
import pytest
import reference

from fer_jax import models, params

# Of MobileNetV2 we have torchvision's, another function under the same names of layers.
NAMES = tuple(name for name in models.BACKBONES if name in reference.KERAS and name != "mobilenet_v2")
FIRST = tuple(name for name in NAMES if any(name == names[0] for names in models.FAMILIES.values()))
# Even, odd; the smallest that the family takes and a little more.
SIZES = {"inception_v3": (76, 97), "inception_resnet_v2": (76, 97)}
# Networks whose graph in Keras depends on the size it is built for.
SIZED = tuple(name for name in NAMES if name.startswith("efficientnet"))
# So that the last maps have some pixels: statistics of a handful of values magnify rounding.
TRAINED_PX = {"inception_v3": 139, "inception_resnet_v2": 139}


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_those_of_keras_at_even_and_odd_sizes(keras, name):
    model = reference.network(name, head="global_avg_pool", classes=7)
    theirs = None if name in SIZED else reference.build(keras, name)
    for size_px in SIZES.get(name, (48, 65))[: None if name in FIRST else 1]:
        theirs = reference.build(keras, name, size_px) if name in SIZED else theirs
        faces = reference.draw_faces(size_px)
        expected = theirs(reference.preprocessed(keras, name, faces), training=False)
        reference.assert_varied(expected)
        variables = reference.imported(theirs, name, model, size_px)
        reference.assert_close(reference.maps(model, variables, faces), expected)


@pytest.mark.parametrize("name", FIRST)
def test_logits_equal_those_of_keras_at_the_native_size(keras, name):
    size_px = models.row(name).native_px
    theirs = reference.build(keras, name, size_px, top=True)
    faces = reference.draw_faces(size_px, count=1)
    expected = theirs(reference.preprocessed(keras, name, faces), training=False)
    model = reference.network(name)
    variables = reference.imported(theirs, name, model, size_px)
    reference.assert_close(reference.apply(model, variables, faces, train=False), expected)


@pytest.mark.parametrize("name", [name for name in FIRST if name != "vgg16"])
def test_running_statistics_after_a_training_step_equal_those_of_keras(keras, name):
    model = reference.network(name, head="global_avg_pool")
    size_px = TRAINED_PX.get(name, 96)
    theirs = reference.build(keras, name, size_px)
    faces = reference.draw_faces(size_px, count=4)
    variables = reference.variables(theirs, name)
    changed = reference.train(model, variables, faces)
    theirs(reference.preprocessed(keras, name, faces), training=True)
    reference.assert_same_change(variables, changed, reference.variables(theirs, name))


@pytest.mark.parametrize("name", FIRST)
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
