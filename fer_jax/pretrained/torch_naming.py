"""From the tensors of a PyTorch file to ours, by name: a table for each network whose weights come that way."""

import re

import numpy as np

from fer_jax.errors import InputError
from fer_jax.pretrained.naming import Weights

LEAVES = {"bias": "bias", "running_mean": "mean", "running_var": "var"}
# EfficientNet-Lite0's blocks: how often each stage repeats, as in the other EfficientNets.
LITE_REPEATS = (1, 2, 2, 3, 3, 4, 1)
LITE_LAYERS = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_bn",
    "_conv_head": "top_conv",
    "_bn1": "top_bn",
    "_fc": "predictions",
}
LITE_BLOCK_LAYERS = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "dwconv",
    "_bn1": "bn",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}


def from_torch(path, tensors: dict[str, np.ndarray], model: str) -> Weights:
    """Gives the tensors of a network in PyTorch the names that Keras's layers of it have.

    Kernels [out, in, h, w] become [h, w, in, out], depthwise ones too; the classifier is transposed.

    Args:
      path: of the file, for messages.
      tensors: as torch_legacy.read returns them.
      model: one of MODELS.

    Raises:
      InputError: a tensor of another network.
    """
    layers, counts = {}, 0
    for name, array in tensors.items():
        torch_layer, _, torch_leaf = name.rpartition(".")
        if torch_leaf == "num_batches_tracked":
            counts += 1
            continue
        layer = MODELS[model](torch_layer)
        if layer is None or torch_leaf not in ("weight", *LEAVES):
            raise InputError(f"{path} is not of {model}: it holds '{name}'")
        leaf = LEAVES.get(torch_leaf) or ("scale" if array.ndim == 1 else "kernel")
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, (0,))
        layers.setdefault(layer, {})[leaf] = np.ascontiguousarray(array.transpose(axes), np.float32)
    refused = {"num_batches_tracked": f"PyTorch's {counts} counts of batches, which no layer of ours has"}
    return Weights(str(path), layers, refused if counts else {}, (model,))


def _lite_layer(torch_layer):
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", torch_layer)
    if not block:
        return LITE_LAYERS.get(torch_layer)
    names = [f"block{stage}{'abcd'[i]}" for stage, count in enumerate(LITE_REPEATS, 1) for i in range(count)]
    number, inside = int(block[1]), LITE_BLOCK_LAYERS.get(block[2])
    return f"{names[number]}_{inside}" if inside and number < len(names) else None


# network -> function of a PyTorch layer's name that returns ours, None for a layer that it has not
MODELS = {"efficientnet_lite0": _lite_layer}
