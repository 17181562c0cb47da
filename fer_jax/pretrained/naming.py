"""Maps a file's layers to ours: by name where names are fixed, by position where Keras generates them.

Keras itself loads by position. The Inception networks need that, since their layer names depend on what else the
process had built; their order is in keras_layers. All others are matched by name, whatever the order in the file.
"""

import dataclasses
import re
from collections import Counter

import numpy as np

from fer_jax.errors import InputError
from fer_jax.pretrained import keras_h5, registry

AUTOMATIC = re.compile(r"(conv(?:olution)?2d|batch_?normalization|dense)(?:_(\d+))?")
VGGFACE = "vggface"
# Name of a layer in a file -> our name.
RENAMES = (
    (re.compile(r"normalization_\d+"), "normalization"),
    (re.compile(r"probs|fc1000"), "predictions"),  # of Keras's networks before 2020
)
VGGFACE_NAME = re.compile(r"conv([1-5])_([1-3])")  # Oxford's names of VGG16's layers
# Oxford's names of VGGFace2's ResNet50, renamed for that model only: Keras's ResNet50 computes another function.
VGGFACE_RESNET50 = "vggface_resnet50"
VGGFACE_RESNET_NAME = re.compile(r"conv(?:1/7x7_s2|([2-5])_([1-6])_(1x1_proj|1x1_reduce|3x3|1x1_increase))(/bn)?")
VGGFACE_RESNET_PARTS = {"1x1_proj": 0, "1x1_reduce": 1, "3x3": 2, "1x1_increase": 3}
# Layers of Keras's ResNet50 of 2017 -> our names: blocks have letters, and branch 1 is the shortcut.
RESNET50_2017_PARTS = {"1": 0, "2a": 1, "2b": 2, "2c": 3}
RESNET50_2017 = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn"} | {
    f"{theirs}{stage}{letter}_branch{branch}": f"conv{stage}_block{block}_{part}_{ours}"
    for stage, letters in ((2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc"))
    for block, letter in enumerate(letters, 1)
    for branch, part in RESNET50_2017_PARTS.items()
    for theirs, ours in (("res", "conv"), ("bn", "bn"))
    if part or block == 1
}
# ImageNet's mean and standard deviation of RGB in 0..1. Keras's files store the deviation as `variance`, or its square.
IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
LEAVES = {
    ("Conv2D", 1): ("kernel",),
    ("Conv2D", 2): ("kernel", "bias"),
    ("Dense", 1): ("kernel",),
    ("Dense", 2): ("kernel", "bias"),
    ("BatchNormalization", 3): ("bias", "mean", "var"),  # without gamma
    ("BatchNormalization", 4): ("scale", "bias", "mean", "var"),
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file's weights under our names.

    path: of the file. layers: {layer: {kernel | bias | scale | mean | var: float32}}, kernels in Flax's layout.
    refused: {other contents of the file: why they are skipped}. models: the networks that have these layers.
    scaling: the input scaling that the weights need, if it is not the network's own.
    """

    path: str
    layers: dict[str, dict[str, np.ndarray]]
    refused: dict[str, str]
    models: tuple[str, ...] = ()
    scaling: str = ""


def from_keras(path, found: list[keras_h5.FileLayer], refused: dict[str, str], model: str, *, trusted: bool) -> Weights:
    """Renames the layers of a Keras file to ours.

    Args:
      path: of the file, for messages.
      found: its layers, as returned by keras_h5.read.
      refused: its other contents, also from keras_h5.read.
      model: the network to load them into.
      trusted: whether the file is Keras's own by its hash, so that its order is not checked.

    Raises:
      InputError: the order of the file's layers is unknown or not the network's, or their number differs.
    """
    table = _order(model)
    models = _identify(found)
    kinds = {layer.name: layer.kind for layer in table}
    scaling = VGGFACE if model == "vgg16" and any(VGGFACE_NAME.fullmatch(layer.name) for layer in found) else ""
    if not table:
        names = _renumbered(found)
    elif any(AUTOMATIC.fullmatch(name) for name in kinds) or not any(layer.named for layer in found):
        if model == VGGFACE_RESNET50:
            # The shortcut and the last convolution of conv2_block1 have the same shape and no fixed order.
            raise InputError(f"{path} has no layer names, and their order in {model} is not fixed: save it as .h5")
        names = _by_position(path, found, model, trusted, models)
    else:
        names = [_rename(layer.name, model) for layer in found]
    layers, refused = {}, dict(refused)
    for name, layer in zip(names, found, strict=True):
        kind = kinds.get(name, layer.kind)
        leaves = LEAVES.get((layer.kind.removeprefix("Depthwise"), len(layer.arrays)))
        if kind == "Normalization":
            refused[layer.name] = _normalization(layer.arrays)
        elif name in layers:
            refused[layer.name] = "a second layer of this name"
        elif leaves is None:
            refused[layer.name] = "shapes " + ", ".join(str(array.shape) for array in layer.arrays) + ": no known layer"
        else:
            layers[name] = {leaf: _ours(leaf, kind, array) for leaf, array in zip(leaves, layer.arrays, strict=True)}
    return Weights(str(path), layers, refused, models, scaling)


def _rename(name, model):
    for pattern, ours in RENAMES:
        if pattern.fullmatch(name):
            return ours
    if match := VGGFACE_NAME.fullmatch(name):
        return f"block{match[1]}_conv{match[2]}"
    if model == "resnet50":
        return RESNET50_2017.get(name, name)
    match = VGGFACE_RESNET_NAME.fullmatch(name) if model == VGGFACE_RESNET50 else None
    if not match:
        return name
    stack, block, part, norm = match.groups()
    stem = f"conv{stack}_block{block}_{VGGFACE_RESNET_PARTS[part]}" if stack else "conv1"
    return f"{stem}_{'bn' if norm else 'conv'}"


def _ours(leaf, kind, array):
    if leaf == "kernel" and kind == "DepthwiseConv2D" and array.ndim == 4:
        array = array.transpose(0, 1, 3, 2)
    return np.ascontiguousarray(array, np.float32)


def _normalization(arrays):
    mean, variance = (np.ravel(array) for array in arrays[:2])
    deviations = (IMAGENET_STD, IMAGENET_STD**2)
    if mean.shape == (3,) and np.allclose(mean, IMAGENET_MEAN, atol=1e-4):
        if any(np.allclose(variance, deviation, atol=1e-4) for deviation in deviations):
            return "constants of the preprocessing, and equal to ours"
        return f"constants of the preprocessing; its deviations {variance} are not ImageNet's, which the model uses"
    return f"constants of the preprocessing; its means {mean} are not ImageNet's, which the model uses"


def _identify(found):
    """Returns the networks that have exactly these layers, ignoring classifiers."""
    counts = Counter(layer.kind for layer in found)
    vggface = any(VGGFACE_RESNET_NAME.fullmatch(layer.name) for layer in found)
    models = []
    for model in dict.fromkeys(row.model for row in registry.ROWS):
        names = {_rename(layer.name, model) for layer in found}
        table = [layer for layer in _order(model) if layer.kind not in ("Dense", "Normalization")]
        fixed = {layer.name for layer in table if not AUTOMATIC.fullmatch(layer.name)}
        same_counts = all(
            counts[kind] == sum(layer.kind == kind for layer in table) for kind in ("Conv2D", "BatchNormalization")
        )
        if model == VGGFACE_RESNET50 and not (vggface and same_counts):
            continue  # Keras's ResNet50 has the same names here, and VGGFace2's SENet50 contains all of its layers
        if table and ((fixed <= names and len(fixed) == len(table)) or (len(fixed) < len(table) and same_counts)):
            models.append((len(table), model))
    largest = max(models, default=(0,))[0]  # ResNet50's names are also ResNet101's
    return tuple(model for size, model in models if size == largest)


def _by_position(path, found, model, trusted, models):
    """Names layers by their position within their class, as Keras does."""
    table = _order(model)
    names = [_rename(layer.name, model) for layer in found]
    for kind in dict.fromkeys(layer.kind for layer in table):
        expected = [layer.name for layer in table if layer.kind == kind]
        places = [i for i, layer in enumerate(found) if layer.kind == kind and layer.inner]
        if kind == "Dense":
            # A custom classifier has its own layer names, or another number of layers than Keras's.
            if len(places) != len(expected) or any(found[i].named for i in places):
                continue
        elif kind == "Normalization" and not places:
            continue
        elif len(places) < len(expected) or (len(places) > len(expected) and "Conv" in kind):
            other = f"; its layers are those of {' or '.join(models)}" if models else ""
            raise InputError(
                f"{path} is a weight file of another model: {len(places)} layers of class {kind}, {model} has "
                f"{len(expected)}{other}"
            )
        places = places[: len(expected)]
        if not trusted and all(found[i].named for i in places):
            _check_order(path, [found[i].name for i in places], expected, model)
        for place, name in zip(places, expected, strict=True):
            names[place] = name
    return names


def _check_order(path, given, expected, model):
    """Compares the order of names, wherever their numbers start, with that of keras_layers."""
    fixed = {name for name in expected if not AUTOMATIC.fullmatch(name)}
    moved = [i for i, name in enumerate(given) if name in fixed and name != expected[i]]
    places = [i for i, name in enumerate(expected) if name not in fixed]
    # Names given by hand carry no order.
    if places and all(AUTOMATIC.fullmatch(given[i]) for i in places):
        theirs, ours = (_ranks([names[i] for i in places]) for names in (given, expected))
        moved += [places[i] for i in np.flatnonzero(theirs != ours)]
    if moved:
        raise InputError(
            f"{path} has the layers of {model} in another order than Keras: {given[moved[0]]} is in the place of "
            f"{expected[moved[0]]} ({len(moved)} layers in all); save it again with Keras 3"
        )


def _ranks(names):
    return np.argsort(np.argsort([_number(AUTOMATIC.fullmatch(name)) for name in names]))


def _number(match):
    return int(match[2] or 0)


def _renumbered(found):
    """Renumbers automatic names from zero, as in our networks of plain layers."""
    numbers = {}
    for layer in found:
        match = AUTOMATIC.fullmatch(layer.name)
        if match:
            numbers.setdefault(match[1], set()).add(_number(match))
    names = []
    for layer in found:
        match = AUTOMATIC.fullmatch(layer.name)
        rank = sorted(numbers[match[1]]).index(_number(match)) if match else 0
        names.append((f"{match[1]}_{rank}" if rank else match[1]) if match else layer.name)
    return names


def _order(model):
    from fer_jax.models import keras_layers  # imports flax, which --help and --list do not need

    return keras_layers.order(model)
