"""The two networks of VGGFace as keras-vggface built them, written here anew, through files as it published them."""

import jax
import numpy as np
import pytest
import reference

from fer_jax import params, pretrained
from fer_jax.errors import InputError
from fer_jax.models import keras_layers
from fer_jax.pretrained import registry

# Of Keras on TensorFlow with this numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
RESNET50 = "vggface_resnet50"
# Blue, green, red: what keras-vggface's preprocess_input subtracts in its versions 1 (VGG16) and 2 (ResNet50).
MEANS = {"vgg16": (93.5940, 104.7624, 129.1863), RESNET50: (91.4953, 103.8827, 131.0912)}
SIZES = (48, 65)  # even, odd
TRAINED_PX = 96


def build_resnet50(keras):
    """Builds the network of Malli's file, with dots for the slashes of its names, which Keras 3 does not allow."""
    layers = keras.layers
    keras.backend.clear_session()

    def conv_norm(x, name, filters, kernel, strides=1):
        x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=name)(x)
        return layers.BatchNormalization(name=f"{name}.bn")(x)

    def block(x, name, filters, strides, projected):
        y = layers.ReLU()(conv_norm(x, f"{name}_1x1_reduce", filters, 1, strides))
        y = layers.ReLU()(conv_norm(y, f"{name}_3x3", filters, 3))
        y = conv_norm(y, f"{name}_1x1_increase", 4 * filters, 1)
        x = conv_norm(x, f"{name}_1x1_proj", 4 * filters, 1, strides) if projected else x
        return layers.ReLU()(layers.Add()([y, x]))

    faces = layers.Input((None, None, 3))
    x = layers.ReLU()(conv_norm(faces, "conv1.7x7_s2", 64, 7, strides=2))
    x = layers.MaxPooling2D(3, strides=2)(x)
    for stage, filters, blocks in ((2, 64, 3), (3, 128, 4), (4, 256, 6), (5, 512, 3)):
        for number in range(1, blocks + 1):
            strides = 2 if number == 1 and stage > 2 else 1
            x = block(x, f"conv{stage}_{number}", filters, strides, projected=number == 1)
    model = keras.Model(faces, x)
    reference.randomize(model)
    return model


def build(keras, name):
    return build_resnet50(keras) if name == RESNET50 else reference.build(keras, name)


def file_name(layer, name):
    """Gives the name of a layer in the file."""
    return layer.replace(".", "/") if name == RESNET50 else layer.replace("_conv", "_").replace("block", "conv")


def write(folder, name, model):
    """Writes Keras's older layout where keras-vggface keeps its files under $KERAS_HOME."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    path = folder / "models" / "vggface" / f"rcmalli_vggface_tf_notop_{name.removeprefix('vggface_')}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [layer.name for layer in model.layers]
    for layer in model.layers:
        layer.name = file_name(layer.name, name)
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    for layer, given in zip(model.layers, names, strict=True):
        layer.name = given
    return path


def load(weights, name):
    """Returns what becomes of the weights, as variables too."""
    merge = pretrained.load(weights, name, shapes_of(name))
    assert all(path.startswith("head/") for path in merge.new)
    assert (merge.refused, merge.notes) == ({}, ())
    return merge, {"params": merge.params, "batch_stats": merge.batch_stats}


def shapes_of(name, size_px=48):
    model = reference.network(name, 7, head="global_avg_pool")
    return jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, size_px, size_px, 3), np.uint8), train=False)
    )


def preprocess(name, faces):
    return faces[..., ::-1].astype("float32") - np.float32(MEANS[name])


@pytest.mark.full
@pytest.mark.parametrize("name", MEANS)
def test_features_equal_those_of_keras_at_even_and_odd_sizes(keras, name, tmp_path, monkeypatch):
    theirs = build(keras, name)
    write(tmp_path, name, theirs)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    merge, variables = load(f"vggface_{name.removeprefix('vggface_')}", name)
    scaling = merge.facts["scaling"] or "auto"
    model = reference.network(name, 7, head="global_avg_pool", scaling=scaling)
    for size_px in SIZES:
        faces = reference.draw_faces(size_px)
        expected = theirs(preprocess(name, faces), training=False)
        reference.assert_varied(expected)
        reference.assert_close(reference.maps(model, variables, faces), expected)


@pytest.mark.full
def test_running_statistics_after_a_training_step_equal_those_of_keras(keras, tmp_path):
    theirs = build_resnet50(keras)
    _, before = load(str(write(tmp_path, RESNET50, theirs)), RESNET50)
    faces = reference.draw_faces(TRAINED_PX, count=4)
    changed = reference.train(reference.network(RESNET50, 7, head="global_avg_pool"), before, faces)
    theirs(preprocess(RESNET50, faces), training=True)
    _, after = load(str(write(tmp_path, RESNET50, theirs)), RESNET50)
    reference.assert_same_change(before, changed, after)


@pytest.mark.parametrize(("size_px", "cells"), [(32, 1), (48, 2), (65, 2), (224, 7)])
def test_maps_have_the_shape_of_keras(size_px, cells):
    """224 gives the 7x7 cells of its average pool; 65 gives 3x3 in Keras's own ResNet50."""
    model = reference.network(RESNET50, head="global_avg_pool")
    faces = np.zeros((2, size_px, size_px, 1), np.uint8)

    def maps_of(net, faces):
        return net.backbone(net.preprocess(faces), train=False)

    maps, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), faces, method=maps_of))
    assert maps.shape == (2, cells, cells, 2048)


def test_resnet50_has_the_published_number_of_parameters():
    """Keras's summary of VGGFace(model='resnet50', include_top=False): 23,561,152, of them 23,508,032 trained."""
    shapes = shapes_of(RESNET50)
    backbone = {kind: tree["backbone"] for kind, tree in shapes.items()}
    assert (params.count(backbone), params.count(backbone["params"])) == (23_561_152, 23_508_032)


def test_resnet50_bears_the_names_of_keras_without_biases():
    shapes = shapes_of(RESNET50)["params"]["backbone"]
    leaves = {"Conv2D": {"kernel"}, "BatchNormalization": {"scale", "bias"}}
    expected = {layer.name: leaves[layer.kind] for layer in keras_layers.order("resnet50") if layer.kind in leaves}
    assert {name: set(layer) for name, layer in shapes.items()} == expected


def test_faces_under_32_pixels_are_refused():
    with pytest.raises(InputError, match=r"model\.size_px is 31; vggface_resnet50 needs 32 or more .* trained at 224"):
        reference.network(RESNET50, size_px=31)


def test_both_files_are_those_of_keras_vggface():
    for name in ("vggface_vgg16", RESNET50):
        row = registry.find(name)
        file = f"rcmalli_vggface_tf_notop_{name.removeprefix('vggface_')}.h5"
        assert row.url == f"https://github.com/rcmalli/keras-vggface/releases/download/v2.0/{file}"
        assert (row.file, row.folder, row.top) == (file, "vggface", False)
