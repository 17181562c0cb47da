"""Keras's weight files: the older HDF5 layout (by layer names) and that of Keras 3 (`x.weights.h5`, by counters).

Both give layers in the order of `model.layers`, Keras 3's within each class. A network inside a network (a Sequential
around a pretrained one) is opened: its layers stand in the list as if they were the outer one's.
"""

import re
from typing import NamedTuple

import numpy as np

from fer_jax.errors import InputError

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # the second: Keras 2.12 and 2.13
CLASSES = {
    "conv2d": "Conv2D",
    "depthwise_conv2d": "DepthwiseConv2D",
    "batch_normalization": "BatchNormalization",
    "dense": "Dense",
    "normalization": "Normalization",
}
AXES_OF_BATCH_NORM = ([1, 1, 1], [1, 1, 1, 1])


class FileLayer(NamedTuple):
    """A layer with weights of a file.

    name: as the file has it; in Keras 3's layout without names its class and number (`conv2d_3`), and `named` is False.
    kind: Keras's class of it. arrays: in Keras's order. inner: it belongs to the largest network of the file.
    """

    name: str
    kind: str
    arrays: list[np.ndarray]
    named: bool = True
    inner: bool = True


def read(path) -> tuple[list[FileLayer], dict[str, str]]:
    """Reads a weight file of Keras, or a whole model in HDF5.

    Returns:
      Its layers with weights, and {what else it holds: why it is left}.

    Raises:
      InputError: not HDF5, truncated, or not of Keras.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            if _attribute(root, "layer_names"):
                return _read_legacy(path, file, root)
            if any(name in file for name in CONTAINERS):
                return _read_keras3(file)
            held = ", ".join(list(file)[:5]) or "nothing"
            raise InputError(
                f"{path} is HDF5, but no weight file of Keras: it has neither `layer_names` nor `layers` (it holds "
                f"{held}); give one that model.save_weights wrote"
            )
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read ({error}): it is truncated or damaged; fetch it again") from error


def _read_legacy(path, file, root):
    if _text(root.attrs.get("backend", "")) == "theano":
        raise InputError(f"{path} was written by Keras on Theano, whose kernels are flipped: convert it in Keras first")
    layers = []
    for name in _attribute(root, "layer_names"):
        group = root[name]
        inside = {}
        for weight in _attribute(group, "weight_names"):
            inside.setdefault(weight.rpartition("/")[0].rpartition("/")[2], []).append(np.asarray(group[weight]))
        if len(inside) == 1:
            inside = {name: next(iter(inside.values()))}
        layers += [FileLayer(layer, _kind(arrays), arrays) for layer, arrays in inside.items()]
    refused = {"optimizer_weights": "the optimizer's state"} if "optimizer_weights" in file else {}
    return layers, refused


def _attribute(group, name):
    """Returns a list of texts, which Keras splits into `name0`, `name1`, ... where it is longer than HDF5 allows."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{name}{len(parts)}"])
    return [_text(value) for part in parts for value in part]


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _kind(arrays):
    """Tells a layer's class by its weights; '' where it cannot."""
    axes = [array.ndim for array in arrays]
    if axes in AXES_OF_BATCH_NORM:
        return "BatchNormalization"
    if axes in ([1, 1, 0], [4, 4, 0]):
        return "Normalization"
    return {(4,): "Conv2D", (4, 1): "Conv2D", (2,): "Dense", (2, 1): "Dense"}.get(tuple(axes), "")


def _read_keras3(file):
    found, refused = {}, {}
    for path, variables in _walk(file):
        if len(path) > 1 and path[-2] in CONTAINERS:
            found.setdefault(path[:-2], []).append((path[-1], variables))
        elif path[:1] == ("optimizer",):
            refused["optimizer"] = "the optimizer's state"
        else:
            refused["/".join(path)] = "the state of a random generator, or of no layer"
    largest = max(found, key=lambda container: len(found[container]), default=())
    layers = []
    for container, members in sorted(found.items(), key=lambda item: item[0] != largest):
        for name, variables in sorted(members, key=lambda member: _class_and_number(member[0])):
            given = _text(variables.attrs.get("name", ""))
            arrays = [np.asarray(variables[str(i)]) for i in range(len(variables))]
            kind = CLASSES.get(_class_and_number(name)[0], "")
            layers.append(FileLayer(given or name, kind, arrays, named=bool(given), inner=container == largest))
    return layers, refused


def _walk(group, path=()):
    """Gives (path, group of variables) for everything that has variables."""
    for name, child in group.items():
        if hasattr(child, "items"):
            if name != "vars":
                yield from _walk(child, (*path, name))
            elif len(child):
                yield path, child


def _class_and_number(name):
    """Splits `conv2d_3`; by names alone `conv2d_10` would come before `conv2d_2`."""
    stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
    return stem, int(number or 0)
