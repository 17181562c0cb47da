"""One network a family with drawn weights, and what Keras computes with the same weights.

`tests/golden/networks.json` holds some of Keras's values, so that a test compares without Keras. Rewrite it, with Keras
installed, after a change of the table below: python tests/models/golden_networks.py
"""

import json
import os
import pathlib
import sys
import zlib

if __name__ == "__main__":
    os.environ |= {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    sys.path[:0] = [str(pathlib.Path(__file__).parents[number]) for number in (1, 2)]

import jax
import jax.numpy as jnp
import numpy as np
import reference
import test_cnn
import test_efficientnet_lite
import test_mobilenet_v2

from fer_jax.models import keras_layers

FILE = pathlib.Path(__file__).parents[1] / "golden" / "networks.json"
COUNT = 100  # of the values of a map that the file holds, evenly spread
# name -> side of the faces in pixels, and a factor of all scales: so that maps depend on the faces, and reach the 6 of
# ReLU6 where there is one
NETWORKS = {
    "cnn": (48, 1),
    "vgg16": (48, 1),
    "resnet50": (48, 1),
    "resnet50v2": (48, 1),
    "inception_v3": (76, 1),
    "inception_resnet_v2": (76, 1),
    "efficientnetb0": (48, 1.5),
    "efficientnetv2b2": (48, 1.25),
    "efficientnet_lite0": (48, 1.5),
    "mobilenet_v2": (64, 1.5),
}


def make(name):
    """Returns our network."""
    if name == "cnn":
        return test_cnn.make(test_cnn.LEAKY.replace("dropout 0.3", "dropout 0.0"), scaling="unit")
    return reference.network(name, head="global_avg_pool", classes=7)


def draw(name):
    """Returns faces [2, side, side, 1 or 3], and our variables; each is drawn by its path alone."""
    size_px, factor = NETWORKS[name]
    faces = reference.draw_faces(size_px)[..., : 1 if name == "cnn" else 3]
    shapes = jax.eval_shape(lambda: make(name).init(jax.random.key(0), faces, train=False))

    def leaf(path, shape):
        layer, leaf = path[-2].key, path[-1].key
        rng, shape = np.random.default_rng(zlib.crc32(f"{layer}/{leaf}".encode())), shape.shape
        if leaf == "kernel":
            drawn = rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)
        elif leaf == "scale":
            drawn = rng.uniform(0.5, 1, shape) * factor * (0.5 if layer.endswith("_3_bn") else 1)
        else:
            drawn = rng.uniform(0.7, 1.5, shape) if leaf == "var" else rng.normal(0, 0.1, shape)
        return drawn.astype(np.float32)

    return faces, jax.tree_util.tree_map_with_path(leaf, shapes)


def ours(name):
    """Returns the logits of the cnn [2, 7], or the maps of a backbone [2, h, w, C]."""
    faces, variables = draw(name)
    if name == "cnn":
        return np.asarray(jax.jit(lambda v: make(name).apply(v, faces, train=False))(variables))
    return np.asarray(reference.maps(make(name), variables, faces))


def theirs(keras, name):
    """Returns the same of Keras's network, or of one made of Keras's layers where it has none."""
    (faces, variables), size_px = draw(name), NETWORKS[name][0]
    keras.backend.clear_session()
    if name == "cnn":
        model, inputs = test_cnn.leaky_in_keras(keras), faces.astype(np.float32) / 255
        test_cnn.copy_to_keras(jax.tree.map(jnp.asarray, variables), model)
        return np.asarray(model(inputs, training=False))
    if name == "efficientnet_lite0":
        model, inputs = test_efficientnet_lite.build(keras, size_px), test_efficientnet_lite.scaled(faces)
    elif name == "mobilenet_v2":
        model, inputs = test_mobilenet_v2.build(keras), test_mobilenet_v2.scaled(faces)
    else:
        model, inputs = reference.build(keras, name, size_px), reference.preprocessed(keras, name, faces)
    copy_to_keras(variables, model, name)
    return np.asarray(model(inputs, training=False))


def copy_to_keras(variables, model, name):
    """Gives a Keras network our weights, layer by layer in Keras's order; every one of them is used."""
    weighted = [layer for layer in model.layers if layer.get_weights()]
    backbone = {layer: dict(leaves) for layer, leaves in variables["params"]["backbone"].items()}
    for layer, leaves in variables["batch_stats"].get("backbone", {}).items() if "batch_stats" in variables else ():
        backbone[layer] |= leaves
    for layer, (ours, kind, _) in zip(weighted, keras_layers.order(name), strict=False):
        assert type(layer).__name__ == kind
        if kind == "Normalization":
            continue  # its values are constants
        leaves = backbone.pop(ours)
        if kind == "DepthwiseConv2D":
            leaves["kernel"] = leaves["kernel"].transpose(0, 1, 3, 2)
        order = [leaf for leaf in ("kernel", "scale", "bias", "mean", "var") if leaf in leaves]
        assert len(order) == len(leaves)
        layer.set_weights([leaves[leaf] for leaf in order])
    assert not backbone


def summarize(values):
    """Returns {shape, peak, values}: the largest value, and some of the values."""
    flat = np.asarray(values, np.float64).ravel()
    picked = flat[np.linspace(0, len(flat) - 1, min(COUNT, len(flat))).round().astype(int)]
    return {
        "shape": list(np.shape(values)),
        "peak": float(f"{np.abs(flat).max():.6g}"),
        "values": [float(f"{value:.6g}") for value in picked],
    }


def main():
    import keras

    lines = []
    for name in NETWORKS:
        found = theirs(keras, name)
        reference.assert_varied(found)
        reference.assert_close(ours(name), found)
        lines.append(f'"{name}": {json.dumps(summarize(found))}')
        print(lines[-1][:200], flush=True)
    FILE.write_text("{\n" + ",\n".join([f'"keras": "{keras.__version__}"', *lines]) + "\n}\n")


if __name__ == "__main__":
    main()
