"""The order of layers in Keras's networks: the order in weight files, and of "the first 165 layers".

The table next to this file was written by experiments/keras_layers/ from Keras itself (3.15.1). In the Inception
networks, whose layer names are automatic, the order is not that of the numbers in the names.
"""

import functools
import json
import pathlib
from typing import NamedTuple


class Layer(NamedTuple):
    """A layer with weights: its name, its Keras class, and its position in `model.layers`."""

    name: str
    kind: str
    number: int | None


@functools.cache
def order(model: str) -> tuple[Layer, ...]:
    """Returns the layers with weights of a network, including its classifier.

    A network that Keras lacks gets the layers of its counterpart in Keras, without positions; () without one.
    """
    table = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
    if model == "efficientnet_lite0":
        kept = {n: row for n, row in table["efficientnetb0"].items() if "_se_" not in n and row[0] != "Normalization"}
        return tuple(Layer(name, kind, None) for name, (kind, _) in kept.items())
    if model == "vggface_resnet50":
        return tuple(Layer(name, kind, None) for name, (kind, _) in table["resnet50"].items())
    return tuple(Layer(name, kind, number) for name, (kind, number) in table.get(model, {}).items())
