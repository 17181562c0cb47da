"""Loads weight files of Keras and PyTorch without either library.

`load` does all of it: locate or fetch a file, verify its hash, read it, rename its layers to ours, and put them into
the variables of a network. Both of Keras's layouts are read with h5py, PyTorch's files with the standard library.
"""

import dataclasses
import zipfile

from fer_jax.errors import InputError
from fer_jax.pretrained import keras_h5, naming, torch_legacy, torch_naming
from fer_jax.pretrained.fetch import Facts, locate
from fer_jax.pretrained.merging import Merge, merge
from fer_jax.pretrained.naming import Weights

__all__ = ["Facts", "Merge", "WeightFile", "Weights", "load", "locate", "merge", "open_file", "read"]

HDF5, PICKLE, ZIP = b"\x89HDF\r\n\x1a\n", b"\x80\x02\x8a\n", b"PK\x03\x04"
KERAS_FILES = "a Keras weight file (.h5)"
OLD_TORCH_FILES = "a PyTorch file written by torch.save(..., _use_new_zipfile_serialization=False)"
# Keras's network of this name has the same layers but computes another function.
NOT_AS_KERAS = ("mobilenet_v2",)


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """The weights read from a file, and its provenance; `facts.scaling` is the input scaling that they expect."""

    weights: Weights
    facts: Facts

    def merge(self, variables) -> Merge:
        """Matches the weights to {params, batch_stats}, given as arrays or shapes. Raises what `merge` raises."""
        return dataclasses.replace(merge(variables, self.weights), facts=dataclasses.asdict(self.facts))


def open_file(weights: str, model: str, *, cache_dir=None, top: bool = False) -> WeightFile:
    """Locates or fetches a weight file, verifies its hash and reads it.

    Args:
      weights: 'imagenet', a name of the registry, a path or a URL.
      model: the network, by its name in the config.
      cache_dir: where fetched files are kept; default: ~/.cache/fer_jax/weights.
      top: whether the network includes the ImageNet classifier.

    Raises:
      InputError: as `locate` and `read`.
    """
    path, facts = locate(weights, model, top, cache_dir=cache_dir)
    found = read(path, model, trusted=facts.verified)
    return WeightFile(found, dataclasses.replace(facts, scaling=facts.scaling or found.scaling))


def load(weights: str, model: str, variables, *, cache_dir=None, top: bool = False) -> Merge:
    """Loads weights for the variables of a network: `open_file`, then `WeightFile.merge`."""
    return open_file(weights, model, cache_dir=cache_dir, top=top).merge(variables)


def read(path, model: str, *, trusted: bool = False) -> Weights:
    """Reads a weight file and renames its layers to ours.

    Args:
      path: a Keras file (.h5, .weights.h5), or a PyTorch file for a network in torch_naming.MODELS.
      model: the network to load the weights into, by its name in the config.
      trusted: whether the file's hash is the published one; the order of its layers is then not checked.

    Raises:
      InputError: the file is of another kind, truncated, or of another model.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    if start == HDF5 and model not in NOT_AS_KERAS:
        return naming.from_keras(path, *keras_h5.read(path), model, trusted=trusted)
    if start.startswith(PICKLE) and model in torch_naming.MODELS:
        return torch_naming.from_torch(path, torch_legacy.read(path), model)
    wanted = OLD_TORCH_FILES if model in NOT_AS_KERAS else KERAS_FILES
    raise InputError(f"{path} {_what_it_is(path, start)}; {model} needs {wanted}")


def _what_it_is(path, start):
    whole = {
        b"": "is empty",
        HDF5: "is an HDF5 file, as Keras writes; Keras's network of this name pads and scales differently",
    }
    if start in whole:
        return whole[start]
    if start.startswith(PICKLE):
        return "is a PyTorch file"
    if not start.startswith(ZIP):
        return "is not an HDF5 file"
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if "model.weights.h5" in names:
        return "is a Keras archive: unzip it and give the model.weights.h5 inside"
    if any(name.endswith("data.pkl") for name in names):
        return "is a PyTorch file"
    return "is a zip archive: unzip it and give the file inside"
