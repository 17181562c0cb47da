"""Maps the tensors of PyTorch files to our layers by name, with one table per network."""

import re

import numpy as np

from fer_jax.errors import InputError
from fer_jax.pretrained.naming import Weights

LEAVES = {"bias": "bias", "running_mean": "mean", "running_var": "var"}
# EfficientNet-Lite0: blocks per stage, as in the other EfficientNets.
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
MOBILENET_BLOCKS = 17
MOBILENET_LAYERS = {
    "features.0.0": "Conv1",
    "features.0.1": "bn_Conv1",
    f"features.{MOBILENET_BLOCKS + 1}.0": "Conv_1",
    f"features.{MOBILENET_BLOCKS + 1}.1": "Conv_1_bn",
    "classifier.1": "predictions",
}
MOBILENET_BLOCK_LAYERS = ("expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN")
# Their positions in a block's Sequential: flat, with the activations counted, or, in torchvision since 0.4, with a
# nested Sequential per convolution that has an activation. The first block has no expansion.
MOBILENET_PLACES = ("0", "1", "3", "4", "6", "7")
MOBILENET_FIRST_PLACES = ("", "", "0", "1", "3", "4")
MOBILENET_NESTED_PLACES = ("0.0", "0.1", "1.0", "1.1", "2", "3")
MOBILENET_NESTED_FIRST_PLACES = ("", "", "0.0", "0.1", "1", "2")


def from_torch(path, tensors: dict[str, np.ndarray], model: str) -> Weights:
    """Renames the tensors of a PyTorch network to Keras's layer names.

    Kernels [out, in, h, w] become [h, w, in, out], depthwise ones too; the classifier is transposed.

    Args:
      path: of the file, for messages.
      tensors: as returned by torch_legacy.read.
      model: one of MODELS.

    Raises:
      InputError: a tensor of another network.
    """
    names = MODELS[model]({name.rpartition(".")[0] for name in tensors})
    layers, counts = {}, 0
    for name, array in tensors.items():
        torch_layer, _, torch_leaf = name.rpartition(".")
        if torch_leaf == "num_batches_tracked":
            counts += 1
            continue
        if torch_layer not in names or torch_leaf not in ("weight", *LEAVES):
            raise InputError(f"{path} is not of {model}: it contains '{name}'")
        leaf = LEAVES.get(torch_leaf) or ("scale" if array.ndim == 1 else "kernel")
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, (0,))
        layers.setdefault(names[torch_layer], {})[leaf] = np.ascontiguousarray(array.transpose(axes), np.float32)
    refused = {"num_batches_tracked": f"PyTorch's {counts} batch counts, which our layers do not have"}
    return Weights(str(path), layers, refused if counts else {}, (model,))


def _lite_names(_):
    blocks = [f"block{stage}{'abcd'[i]}" for stage, count in enumerate(LITE_REPEATS, 1) for i in range(count)]
    inside = {
        f"_blocks.{number}.{theirs}": f"{block}_{ours}"
        for number, block in enumerate(blocks)
        for theirs, ours in LITE_BLOCK_LAYERS.items()
    }
    return LITE_LAYERS | inside


def _mobilenet_names(torch_layers):
    nested = any(re.fullmatch(r"features\.\d+\.conv\.\d\.\d", name) for name in torch_layers)
    first, others = (
        (MOBILENET_NESTED_FIRST_PLACES, MOBILENET_NESTED_PLACES)
        if nested
        else (MOBILENET_FIRST_PLACES, MOBILENET_PLACES)
    )
    names = dict(MOBILENET_LAYERS)
    for number in range(MOBILENET_BLOCKS):
        block, places = (f"block_{number}", others) if number else ("expanded_conv", first)
        for place, ours in zip(places, MOBILENET_BLOCK_LAYERS, strict=True):
            names |= {f"features.{number + 1}.conv.{place}": f"{block}_{ours}"} if place else {}
    return names


# network -> function from the layer names in a file to {name: our name} of all layers that it may have
MODELS = {"efficientnet_lite0": _lite_names, "mobilenet_v2": _mobilenet_names}
