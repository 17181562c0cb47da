"""A complete network from a user's file: a subclass of `flax.linen.Module`, checked when it is traced."""

import dataclasses
import inspect

import flax.linen as nn
import jax.numpy as jnp

from fer_jax import config as config_lib
from fer_jax import extensions, wording
from fer_jax import params as params_lib
from fer_jax.errors import InputError

FIELD = "model.name"
# Fields of the section `model`. A config may set layers, head and scaling for other networks, so these are allowed.
WITHOUT_EFFECT = ("size_px", "channels", "init", "dtype")
COLLECTIONS = {"params", "batch_stats"}  # what the training state holds


class Outside(nn.Module):
    """Maps uint8 faces [B, H, W, C] to float32 logits [B, K]; its variables are those of the network.

    Attributes:
      network: the user's module, called as `network(image, train=...)`.
      origin: its FILE.py:NAME.
      classes: K.
      stored: paths of layers to run with stored statistics; empty if the network has a field `stored` itself.
    """

    network: nn.Module
    origin: str
    classes: int
    stored: frozenset[str] = frozenset()

    def setup(self):
        """Shares this module's scope with the network, so that layer paths get no extra name."""
        nn.share_scope(self, self.network)

    def __call__(self, image, *, train: bool):
        logits = self.network(image, train=train)
        wanted = (image.shape[0], self.classes)
        if getattr(logits, "shape", None) != wanted:
            found = list(logits.shape) if hasattr(logits, "shape") else f"a {type(logits).__name__}"
            faces, classes = wording.count(len(image), "face"), wording.count(self.classes, "class")
            raise InputError(
                f"{FIELD}: {self.origin} returns {found} for {faces} of {classes}: it must return logits {list(wanted)}"
            )
        if self.is_initializing():
            self._check(self.variables)
        return logits.astype(jnp.float32)

    def _check(self, variables):
        if "params" not in variables:
            raise InputError(f"{FIELD}: {self.origin} has no parameters to train")
        others = sorted(variables.keys() - COLLECTIONS)
        if others:
            raise InputError(
                f"{FIELD}: {self.origin} has variables in {', '.join(others)}: only params and batch_stats are saved"
            )
        moving = sorted(self.stored & params_lib.layers(variables.get("batch_stats", {})).keys())
        if moving:
            raise InputError(
                f"optim.frozen_statistics is 'stored', but {self.origin} has no field `stored` that would make "
                f"{', '.join(moving)} use stored statistics: declare it (docs/extending.md), or set 'updated'"
            )


def make(found, model, classes: int, stored: frozenset[str]) -> Outside:
    """Builds the user's network that `model.name` names.

    found: the object of that name in the file. Its fields `classes`, `dtype` and `stored` are set if it has them.

    Raises:
      InputError: it is not a network or cannot be built, or config fields are set that have no effect on it.
    """
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        wanted = "a class of flax.linen.Module, or a Row of fer_jax.models.backbone"
        raise extensions.wrong_kind(model.name, FIELD, found, wanted)
    parameters = inspect.signature(found.__call__).parameters
    if "train" not in parameters and all(p.kind != p.VAR_KEYWORD for p in parameters.values()):
        raise InputError(f"{FIELD}: {model.name} has no argument `train`: define __call__(self, image, *, train)")
    declared = {field.name for field in dataclasses.fields(found) if field.init}
    default = config_lib.get_default().model
    for name in WITHOUT_EFFECT:
        if (name != "dtype" or "dtype" not in declared) and model[name] != default[name]:
            raise InputError(
                f"model.{name} is {model[name]!r}, which has no effect on {model.name}: set it to {default[name]!r}"
                + (", or declare a field `dtype`" if name == "dtype" else "")
            )
    given = {"classes": classes, "dtype": jnp.dtype(model.dtype), "stored": stored}
    with extensions.errors_of(model.name, FIELD):
        network = found(**{name: value for name, value in given.items() if name in declared})
    return Outside(network, model.name, classes, frozenset() if "stored" in declared else stored)
