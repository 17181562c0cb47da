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
    """Returns the layers with weights of a network with its ImageNet classifier, () for one that Keras has not."""
    table = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
    if model == "efficientnet_lite0":
        # B0 without squeeze-and-excitation: the same layers in the same order, but Keras gives them no numbers.
        kept = {n: row for n, row in table["efficientnetb0"].items() if "_se_" not in n and row[0] != "Normalization"}
        return tuple(Layer(name, kind, None) for name, (kind, _) in kept.items())
    return tuple(Layer(name, kind, number) for name, (kind, number) in table.get(model, {}).items())
