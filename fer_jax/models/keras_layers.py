"""In which order Keras holds the layers of its networks: the order of weight files, and of "the first 165 layers".

The table beside this file was written by experiments/keras_layers/ from Keras itself (3.15.1). For the Inception
networks, whose layer names are automatic, the order is not that of the numbers in the names.
"""

import functools
import json
import pathlib
from typing import NamedTuple


class Layer(NamedTuple):
    """A layer with weights: its name, Keras's class of it, and its position in `model.layers`."""

    name: str
    kind: str
    number: int | None


@functools.cache
def order(model: str) -> tuple[Layer, ...]:
    """Returns the layers with weights of a network with its classifier.

    For a network that Keras has not they are those of its kin in Keras, without numbers; () where it has no kin.
    """
    table = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
    if model == "efficientnet_lite0":
        kept = {n: row for n, row in table["efficientnetb0"].items() if "_se_" not in n and row[0] != "Normalization"}
        return tuple(Layer(name, kind, None) for name, (kind, _) in kept.items())
    if model == "vggface_resnet50":
        return tuple(Layer(name, kind, None) for name, (kind, _) in table["resnet50"].items())
    return tuple(Layer(name, kind, number) for name, (kind, number) in table.get(model, {}).items())
