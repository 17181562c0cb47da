"""Networks specified by their layers in text: the custom CNNs, and the heads of pretrained networks.

A specification is a list of layers, separated by commas or newlines:

    conv 64 3x3 same relu    convolution: filters, kernel, padding (same | valid), activation
    batch_norm               Keras's: epsilon 1e-3, momentum 0.99
    max_pool, avg_pool       2x2, stride 2; an odd row or column at the edge is dropped
    leaky_relu 0.1, relu     an activation alone
    dropout 0.25
    flatten, global_avg_pool
    cfc 64                   the last state of a CfC network that reads the map cell by cell: units; see cfc.py
    dense 256 relu           fully connected: units, activation

The classifier (a dense layer with one unit per class) is added automatically. Words after the first number are
optional: `conv 64` is `conv 64 3x3 same linear`. Layers get Keras's automatic names (`conv2d`, `conv2d_1`, `dense`,
...), or the one given after `as`: `dense 4096 relu as fc1`.
"""

import dataclasses
import re
from collections import Counter

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.errors import InputError
from fer_jax.models import cfc
from fer_jax.models import layers as layers_lib
from fer_jax.models.preprocess import Preprocess

# Layers with weights -> their automatic names: Keras's, which has no CfC.
KERAS_NAMES = {"conv": "conv2d", "batch_norm": "batch_normalization", "dense": "dense", "cfc": "cfc"}
ACTIVATIONS = {"linear": lambda x: x, "relu": nn.relu}
POOLS = {"max_pool": layers_lib.max_pool, "avg_pool": layers_lib.avg_pool}
SIZED = ("conv", "dense", "cfc")
PLAIN = ("batch_norm", *POOLS, "relu", "flatten", "global_avg_pool")
ENDS = ("flatten", "global_avg_pool", "cfc")  # turn maps into a vector
ON_MAPS = ("conv", *POOLS, "global_avg_pool", "cfc")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a specification; which fields are used depends on `kind`."""

    kind: str
    size: int = 0
    kernel: tuple[int, int] = (3, 3)
    padding: str = "SAME"
    activation: str = "linear"
    rate: float = 0.0
    name: str = ""


def parse(text: str, field: str = "model.layers", *, ends: bool = True) -> tuple[Layer, ...]:
    """Parses a specification; `field` is the config field to name in errors.

    ends: whether a layer must turn the maps into a vector, as a classifier needs; otherwise none may.

    Raises:
      InputError: the text is empty, or a layer is unknown, incomplete or misplaced; the message names it.
    """
    parts = [part.split() for part in re.split(r"[,\n]", text) if part.strip()]
    if not parts:
        raise InputError(f"{field} is empty: give the layers of the network, for instance 'conv 32 relu, flatten'")
    layers = tuple(_parse_layer(words, field) for words in parts)
    end = next((i for i, layer in enumerate(layers) if layer.kind in ENDS), None)
    if not ends:
        if end is not None:
            raise InputError(f"{field}: '{' '.join(parts[end])}' leaves no map for model.head: move it there")
        return layers
    if end is None:
        raise InputError(f"{field} has none of {', '.join(ENDS)}: the classifier needs one before it")
    late = next((i for i, layer in enumerate(layers) if i > end and layer.kind in ON_MAPS), None)
    if late is not None:
        raise InputError(
            f"{field}: '{' '.join(parts[late])}' needs a map, and '{' '.join(parts[end])}' before it leaves none"
        )
    return layers


def _parse_layer(words, field):
    kind, *rest = words
    text = " ".join(words)
    if kind in KERAS_NAMES and len(rest) > 1 and rest[-2] == "as":
        return dataclasses.replace(_parse_layer(words[:-2], field), name=rest[-1])
    if kind in SIZED:
        if not rest or not rest[0].isdigit() or int(rest[0]) < 1:
            raise InputError(f"{field}: '{text}' needs a number of filters or units, as in '{kind} 64'")
        return _parse_sized(kind, int(rest[0]), rest[1:], f"{field}: '{text}'")
    if kind in ("dropout", "leaky_relu"):
        try:
            (rate,) = map(float, rest)
        except ValueError:
            rate = -1.0
        if not 0 <= rate < 1:
            raise InputError(f"{field}: '{text}' needs one number from 0 to under 1, as in '{kind} 0.25'")
        return Layer(kind, rate=rate)
    if kind not in PLAIN:
        known = ", ".join((*SIZED, *PLAIN, "leaky_relu", "dropout"))
        raise InputError(f"{field}: unknown layer '{text}'; known are {known}")
    if rest:
        raise InputError(f"{field}: '{text}': {kind} takes no further words")
    return Layer(kind)


def _parse_sized(kind, size, words, where):
    options = {}
    for word in words:
        if kind != "cfc" and word in ACTIVATIONS:
            options["activation"] = word
        elif kind == "conv" and word in ("same", "valid"):
            options["padding"] = word.upper()
        elif kind == "conv" and re.fullmatch(r"\d+x\d+", word):
            options["kernel"] = tuple(map(int, word.split("x")))
        else:
            raise InputError(f"{where}: cannot read '{word}'")
    return Layer(kind, size, **options)


class Stack(layers_lib.Layers):
    """The layers of a specification, then a classifier of `classes` units (0: none).

    Called with [B, ...] and `train`, it returns float32 logits [B, classes], or without a classifier the last layer's
    output in `dtype`; `train=True` needs a mutable `batch_stats`, and the rng `dropout` if there is dropout. With
    `preprocess` the input is uint8 faces.
    """

    layers: tuple[Layer, ...] = ()
    classes: int = 0
    classifier: str = ""
    preprocess: Preprocess | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        if self.preprocess is not None:
            x = self.preprocess(x).astype(self.dtype)
        seen = Counter()
        for layer in self.layers:
            x = self._apply(layer, x, train, seen)
        if not self.classes:
            return x
        # float32, not `dtype`: logits rounded to bfloat16 would keep 8 bits, whatever they are cast to afterwards.
        return self.dense(x, self.classifier or _keras_name("dense", seen), self.classes, dtype=jnp.float32)

    def _apply(self, layer, x, train, seen):
        if layer.kind in KERAS_NAMES:
            return self._weighted(layer, x, layer.name or _keras_name(layer.kind, seen), train)
        if layer.kind in POOLS:
            if min(x.shape[1:3]) < 2:
                raise InputError(
                    f"model.layers: {layer.kind} gets a map of {x.shape[1]}x{x.shape[2]}: one pool too many"
                )
            return POOLS[layer.kind](x, 2, 2)
        if layer.kind == "dropout":
            return self.dropout(x, layer.rate, train=train)
        plain = {
            "flatten": lambda x: x.reshape(x.shape[0], -1),
            "global_avg_pool": lambda x: x.mean(axis=(1, 2)),
            "leaky_relu": lambda x: nn.leaky_relu(x, layer.rate),
            "relu": nn.relu,
        }
        return plain[layer.kind](x)

    def _weighted(self, layer, x, name, train):
        if layer.kind == "batch_norm":
            return self.norm(x, name, train=train)
        if layer.kind == "cfc":
            return cfc.read_map(x, layer.size, name, dtype=self.dtype, kernel_init=self.kernel_init)
        if layer.kind == "dense":
            x = self.dense(x, name, layer.size)
        else:
            x = self.conv(x, name, layer.size, layer.kernel, padding=layer.padding)
        return ACTIVATIONS[layer.activation](x)


def _keras_name(kind, seen):
    stem = KERAS_NAMES[kind]
    number = seen[stem]
    seen[stem] += 1
    return f"{stem}_{number}" if number else stem
