"""The networks. `make` is the only way in; each family is a module with a `make` of its own."""

import importlib

from fer_jax.errors import InputError

# name in the config -> module that builds it
FAMILIES = {"cnn": "cnn"}

DTYPES = ("float32", "bfloat16")


def make(model, classes: int):
    """Builds the linen module of the config section `model`.

    Args:
      model: the section; `name` chooses the family.
      classes: K, the number of emotions.

    Returns:
      A module called as `module.apply(variables, image, train=...)` with uint8 faces [B, 48, 48, 1]; it returns
      float32 logits [B, K] and holds its own preprocessing.

    Raises:
      InputError: an unknown name or dtype, or a wrong specification.
    """
    if model.name not in FAMILIES:
        raise InputError(f"model.name is '{model.name}'; known are {', '.join(sorted(FAMILIES))}")
    if model.dtype not in DTYPES:
        raise InputError(f"model.dtype is '{model.dtype}'; known are {', '.join(DTYPES)}")
    return importlib.import_module(f"fer_jax.models.{FAMILIES[model.name]}").make(model, classes)
