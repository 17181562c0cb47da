"""Reads Keras's weight files: the older HDF5 layout (by layer name) and Keras 3's (`x.weights.h5`, by counters).

Both list layers in the order of `model.layers`, Keras 3 within each class. A nested network (a pretrained one in a
Sequential) is flattened: its layers are listed with those of the outer network.
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
    """A layer with weights, as a file has it.

    name: in the file; if Keras 3's layout has no names, class and number (`conv2d_3`), and `named` is False.
    kind: its Keras class. arrays: in Keras's order. inner: whether it belongs to the largest network in the file.
    """

    name: str
    kind: str
    arrays: list[np.ndarray]
    named: bool = True
    inner: bool = True


def read(path) -> tuple[list[FileLayer], dict[str, str]]:
    """Reads a weight file of Keras, or a whole model in HDF5.

    Returns:
      Its layers with weights, and {other contents: why they are skipped}.

    Raises:
      InputError: not HDF5, truncated, or not written by Keras.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            if _attribute(root, "layer_names"):
                return _read_legacy(path, file, root)
            if any(name in file for name in CONTAINERS):
                return _read_keras3(file)
            content = ", ".join(list(file)[:5]) or "nothing"
            raise InputError(
                f"{path} is HDF5 but not a Keras weight file: it has neither `layer_names` nor `layers` (it contains "
                f"{content}); give one written by model.save_weights"
            )
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read ({error}): it is truncated or corrupt; fetch it again") from error


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
    """Returns a list of strings; Keras splits one that exceeds HDF5's limit into `name0`, `name1`, ..."""
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
    """Infers a layer's class from its weights; '' if unknown."""
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
            refused["/".join(path)] = "the state of a random generator, or not of a layer"
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
    """Yields (path, group of variables) for every group that has variables."""
    for name, child in group.items():
        if hasattr(child, "items"):
            if name != "vars":
                yield from _walk(child, (*path, name))
            elif len(child):
                yield path, child


def _class_and_number(name):
    """Splits `conv2d_3` for sorting; by name, `conv2d_10` would precede `conv2d_2`."""
    stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
    return stem, int(number or 0)
