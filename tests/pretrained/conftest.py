"""Keras's networks with random weights, files of them, and a home without any weights."""

import types

import numpy as np
import pytest


@pytest.fixture(scope="session")
def make_network(keras):
    """Makes a network of keras.applications, 3 channels, whose weights and statistics are all random."""

    def make(name, size_px, **options):
        model = getattr(keras.applications, name)(weights=None, input_shape=(size_px, size_px, 3), **options)
        return randomize(model)

    return make


@pytest.fixture(scope="session")
def randomize_network():
    return randomize


def randomize(model):
    rng = np.random.default_rng(0)
    for layer in model.layers:
        values = layer.get_weights()
        if values and not hasattr(layer, "layers"):
            layer.set_weights([rng.uniform(0.5, 1.5, value.shape).astype(np.float32) for value in values])
    return model


@pytest.fixture(scope="session")
def vgg16(make_network):
    return make_network("VGG16", 32, include_top=False)


@pytest.fixture(scope="session")
def efficientnetb0(make_network):
    """EfficientNetB0 with a classifier of 4 classes."""
    return make_network("EfficientNetB0", 32, classes=4)


@pytest.fixture(scope="session")
def inception_v3(make_network):
    return make_network("InceptionV3", 75, include_top=False)


@pytest.fixture(scope="session")
def write_legacy():
    """Writes Keras's older HDF5 layout with Keras itself."""

    def write(path, model):
        import h5py
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
        return path

    return write


@pytest.fixture(scope="session")
def write_by_hand():
    """Writes the older layout: {layer: {dataset name under the layer: array}}, with options for its oddities."""

    def write(path, layers, *, group="", attrs=None, chunks=1):
        import h5py

        with h5py.File(path, "w") as file:
            root = file.create_group(group) if group else file
            names = np.array([name.encode() for name in layers])
            if chunks == 1:
                root.attrs["layer_names"] = names
            else:
                for i, chunk in enumerate(np.array_split(names, chunks)):
                    root.attrs[f"layer_names{i}"] = chunk
            root.attrs.update(attrs or {})
            for layer, weights in layers.items():
                below = root.create_group(layer)
                below.attrs["weight_names"] = np.array([name.encode() for name in weights])
                for name, array in weights.items():
                    below[name] = array
        return path

    return write


@pytest.fixture
def shapes():
    """Makes variables of {layer: {leaf: shape}}: anything with a shape will do."""

    def make(layers):
        return {
            name: {leaf: types.SimpleNamespace(shape=shape) for leaf, shape in leaves.items()}
            for name, leaves in layers.items()
        }

    return make
