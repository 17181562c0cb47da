"""Keras's own networks with random weights, and the same weights as our variables."""

import pathlib
import tempfile
import warnings

import jax
import numpy as np

from experiments.keras_layers.run import MODELS as KERAS
from fer_jax import config as config_lib
from fer_jax import models, pretrained
from fer_jax.models import keras_layers

# Keras's EfficientNets hold their scaling as a layer whose values a file replaces: those of ImageNet.
IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def build(keras, name, size_px=None, *, top=False):
    """Builds Keras's network with random weights, and statistics that are not the initial ones."""
    keras.backend.clear_session()
    options = {"classifier_activation": None} if top else {}
    model = getattr(keras.applications, KERAS[name])(
        include_top=top, weights=None, input_shape=(size_px, size_px, 3), **options
    )
    randomize(model)
    for layer in model.layers:
        if type(layer).__name__ == "Dropout":
            layer.rate = 0  # its draws are not ours
    if name.startswith("efficientnet"):
        # Of few cells a statistic is off, and the maps would explode.
        calibrate(model, draw_faces(size_px, count=max(4, 2**16 // size_px**2)))
    return model


def calibrate(model, inputs, seed=0):
    """Gives a Keras network the statistics of its own maps of these inputs, each changed a little.

    Swish and squeeze-and-excitation halve the maps in every block whatever the kernels; with other statistics the
    features would hardly depend on the faces.
    """
    rng = np.random.default_rng(seed)
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    momentums = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(inputs.astype("float32"), training=True)
    for layer, momentum in zip(norms, momentums, strict=True):
        layer.momentum = momentum
        gamma, beta, mean, var = layer.get_weights()
        mean = mean + rng.normal(0, 0.1, mean.shape) * np.sqrt(var)
        layer.set_weights([gamma, beta, mean, var * rng.uniform(0.7, 1.5, var.shape)])


def randomize(model, seed=0):
    """Gives a Keras network weights that keep the size of its maps, so that no difference drowns or explodes."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if not layer.get_weights():
            continue
        if type(layer).__name__ == "Normalization":
            layer.set_weights([IMAGENET_MEAN, IMAGENET_STD**2, np.zeros(())])
            layer.finalize_state()  # what it computes with
            continue
        layer.set_weights([_draw(rng, weight, layer) for weight in layer.weights])


def _draw(rng, weight, layer):
    name, shape = weight.name.split("/")[-1], tuple(weight.shape)
    if "kernel" in name:
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        fan_in = np.prod(shape[:2]) if depthwise else np.prod(shape[:-1])
        return rng.normal(0, (2 / fan_in) ** 0.5, shape)
    if name == "gamma":
        # The last norm of a ResNet's branch: full-size branches let rounding grow to 1.3e-3 over ResNet152's 50 blocks.
        return rng.uniform(0.5, 1.0, shape) * (0.5 if layer.name.endswith("_3_bn") else 1)
    if name == "moving_variance":
        return rng.uniform(0.7, 1.5, shape)
    return rng.normal(0, 0.1, shape)


def variables(model, name):
    """Returns the weights of a Keras network as ours: {params, batch_stats}, each with `backbone` and `head`."""
    trees = {"params": {"backbone": {}, "head": {}}, "batch_stats": {"backbone": {}}}
    weighted = [layer for layer in model.layers if layer.get_weights()]
    for layer, (ours, kind, _) in zip(weighted, keras_layers.order(name), strict=False):
        assert type(layer).__name__ == kind
        if kind == "Normalization":
            continue
        values = {weight.name.split("/")[-1]: np.asarray(weight) for weight in layer.weights}
        if kind == "BatchNormalization":
            trees["batch_stats"]["backbone"][ours] = statistics(layer)
            leaves = {"bias": values["beta"]} | ({"scale": values["gamma"]} if "gamma" in values else {})
        elif kind == "DepthwiseConv2D":
            leaves = {"kernel": values.pop("kernel").transpose(0, 1, 3, 2), **values}
        else:
            leaves = values
        trees["params"]["head" if kind == "Dense" else "backbone"][ours] = leaves
    return trees


def imported(theirs, name, model, size_px):
    """Returns the same by way of a file: Keras writes it, and our importer reads it into our network's places."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    image = np.zeros((1, size_px, size_px, 3), np.uint8)
    places = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "weights.h5")
        with h5py.File(path, "w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Keras's own use of NumPy
            legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
        merged = pretrained.merge(places, pretrained.read(path, name))
    return {"params": merged.params, "batch_stats": merged.batch_stats}


def statistics(layer):
    return {"mean": np.asarray(layer.moving_mean), "var": np.asarray(layer.moving_variance)}


def network(name, classes=1000, **fields):
    """Builds our network of a config section."""
    section = config_lib.get_default().model
    section.update({"name": name, "head": "imagenet", **fields})
    return models.make(section, classes)


def preprocessed(keras, name, faces):
    """Returns what Keras feeds its network from uint8 faces [B, H, W, 3]."""
    module = {"vgg": "vgg16", "resnet": "resnet", "inception": "inception_v3", "efficientnet": "efficientnet"}
    kind = "resnet_v2" if name.startswith("resnet") and name.endswith("v2") else None
    kind = kind or next(value for key, value in module.items() if name.startswith(key))
    return getattr(keras.applications, kind).preprocess_input(faces.astype("float32"))


def draw_faces(size_px, count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


def apply(model, variables, faces, **options):
    """Applies our network, compiled as a whole: op by op takes twice as long."""
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda variables, faces: model.apply(variables, faces, **options))(variables, faces)


def maps(model, variables, faces):
    """Returns the maps of our backbone."""
    return apply(model, variables, faces, train=False, method=_maps)


def train(model, variables, faces):
    """Returns what our backbone's training makes of the statistics, without stochastic depth: its draws are ours."""
    if hasattr(model.backbone, "drop_connect"):
        model = model.clone(backbone=model.backbone.clone(drop_connect=0.0))
    return apply(model, variables, faces, train=True, method=_maps, mutable=["batch_stats"])[1]


def _maps(net, faces, train):
    return net.backbone(net.preprocess(faces), train=train)


def assert_close(ours, theirs, tolerance=1e-4):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def assert_varied(maps):
    """Two faces have different maps; else their equality with other maps proves nothing."""
    assert np.abs(maps[0] - maps[1]).max() > 0.01 * np.abs(maps).max()


def assert_same_change(before, ours, theirs, tolerance=1e-3):
    """Two trees of variables have changed the same statistics by the same amounts."""
    for layer, values in theirs["batch_stats"]["backbone"].items():
        for leaf, expected in values.items():
            old = before["batch_stats"]["backbone"][layer][leaf]
            assert_close(ours["batch_stats"]["backbone"][layer][leaf] - old, expected - old, tolerance)
