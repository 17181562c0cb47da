"""The networks. `make` builds any of them; each pretrained family is a module with one `Row` per model."""

import importlib

import flax.linen as nn
import jax.numpy as jnp

from fer_jax import config as config_lib
from fer_jax import extensions
from fer_jax.errors import InputError
from fer_jax.models import average, dual_channel, keras_layers, layers, outside, stack
from fer_jax.models.backbone import Network, Row
from fer_jax.models.preprocess import Preprocess, check_channels

# module -> its models, by their names in the config
FAMILIES = {
    "vgg": ("vgg16", "vgg19"),
    "resnet": ("resnet50", "resnet101", "resnet152", "vggface_resnet50"),
    "resnet_v2": ("resnet50v2", "resnet101v2", "resnet152v2"),
    "inception_v3": ("inception_v3",),
    "inception_resnet_v2": ("inception_resnet_v2",),
    "efficientnet": ("efficientnetb0", "efficientnetb1", "efficientnetb2", "efficientnetb3"),
    "efficientnet_v2": ("efficientnetv2b2",),
    "efficientnet_lite": ("efficientnet_lite0",),
    "mobilenet_v2": ("mobilenet_v2",),
}
BACKBONES = tuple(name for names in FAMILIES.values() for name in names)
NAMES = ("cnn", "average", *dual_channel.NAMES, *BACKBONES)
DTYPES = ("float32", "bfloat16")
IMAGENET_CLASSIFIER = "predictions"  # Keras's name of it


def row(name: str) -> Row:
    """Returns the `Row` of a backbone, by its name in the config."""
    if extensions.names_file(name):
        return extensions.load(name, "model.name")
    family = next(family for family, names in FAMILIES.items() if name in names)
    return importlib.import_module(f"fer_jax.models.{family}").MODELS[name]


def has_backbone(name: str) -> bool:
    """Whether a network is a `Network`, so that its backbone can be frozen and its features cached."""
    return isinstance(row(name), Row) if extensions.names_file(name) else name in BACKBONES


def layer_order(name: str) -> tuple[keras_layers.Layer, ...]:
    """Returns a network's layers with weights in Keras's order, or in that of a user's Row; () if unknown."""
    if not extensions.names_file(name):
        return keras_layers.order(name)
    return tuple(keras_layers.Layer(layer, "", None) for layer in row(name).order) if has_backbone(name) else ()


def make(model, classes: int, *, stored: frozenset[str] = frozenset(), backbone_frozen: bool = False) -> nn.Module:
    """Builds the linen module of the config section `model`.

    Args:
      model: the section; `name` is one of NAMES, or FILE.py:NAME for a user's network.
      classes: K, the number of emotions.
      stored: paths of the BatchNorms that use their stored statistics in training too.
      backbone_frozen: whether the backbone runs in evaluation mode in training too (no stochastic depth), so that the
        features of a face never change.

    Returns:
      A module called as `module.apply(variables, image, train=...)` with uint8 faces [B, H, W, 1 or 3]; it includes
      the preprocessing and returns float32 logits [B, K].

    Raises:
      InputError: an unknown name, dtype, scaling or initializer, or an invalid specification.
    """
    in_file = extensions.names_file(model.name)
    if model.name not in NAMES and not in_file:
        raise InputError(f"model.name is '{model.name}'; known are {', '.join(NAMES)}, or {extensions.FORM}")
    if model.dtype not in DTYPES:
        raise InputError(f"model.dtype is '{model.dtype}'; known are {', '.join(DTYPES)}")
    if model.name == "average":
        return _average(model, classes, stored)
    if in_file and not has_backbone(model.name):
        return outside.make(row(model.name), model, classes, stored)
    common = {
        "dtype": jnp.dtype(model.dtype),
        "stored": stored,
        "kernel_init": layers.make_init(model.init),
    }
    if model.name not in ("cnn", *dual_channel.NAMES):
        return _network(model, classes, common, backbone_frozen)
    scaling = "unit" if model.scaling == "auto" else model.scaling
    preprocess = Preprocess(scaling, model.channels, model.size_px)
    if model.name in dual_channel.NAMES:
        return dual_channel.make(model, classes, preprocess, common)
    return stack.Stack(layers=stack.parse(model.layers), classes=classes, preprocess=preprocess, **common)


def check_faces(model, channels: int) -> None:
    """Checks, before any face is read, that the config section `model` accepts faces of so many channels.

    Raises:
      InputError: RGB faces for a network whose `model.channels` is 1.
    """
    if model.name in ("cnn", *dual_channel.NAMES):
        check_channels(channels, model.channels)


def _average(model, classes, stored):
    if not model.member_models:
        raise InputError(
            "model.name 'average' has no members: set model.members to the workdirs of trained runs, as in "
            "--config.model.members=\"('runs/a', 'runs/b')\""
        )
    sections = [config_lib.from_dict({"model": saved}).model for saved in model.member_models]
    return average.Average(tuple(make(section, classes, stored=stored) for section in sections))


def _network(model, classes, common, backbone_frozen):
    facts = row(model.name)
    if model.size_px and model.size_px < facts.min_px:
        raise InputError(
            f"model.size_px is {model.size_px}; {model.name} needs {facts.min_px} or more "
            f"(its weights were trained at {facts.native_px})"
        )
    scaling = facts.scaling if model.scaling == "auto" else model.scaling
    as_imagenet = model.head == "imagenet"
    head = stack.parse(facts.top if as_imagenet else model.head, "model.head")
    weightless = next((i for i, layer in enumerate(head) if layer.kind in stack.KERAS_NAMES), len(head))
    # Dropout differs at every step, so cached features end before it.
    first = next((i for i, layer in enumerate(head[:weightless]) if layer.kind == "dropout"), weightless)
    return Network(
        preprocess=Preprocess(scaling, 3, model.size_px),
        backbone=facts.build(**common),
        neck=stack.Stack(layers=head[:first], **common),
        head=stack.Stack(
            layers=head[first:], classes=classes, classifier=IMAGENET_CLASSIFIER if as_imagenet else "", **common
        ),
        min_px=facts.min_px,
        backbone_frozen=backbone_frozen,
        source=extensions.digest(model.name, "model.name") if extensions.names_file(model.name) else "",
    )
