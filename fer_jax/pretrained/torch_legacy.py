"""Reads PyTorch's older weight files (before 1.6: a stream of pickles and raw numbers) without PyTorch.

The layout: pickles of a magic number, the version and the machine; a pickle of the tensors, which refer to storages by
key; a pickle of the list of keys; then, for each key, the count (int64) and the values. Pickles can run any code, so
only the few names that such a file needs are allowed.
"""

import collections
import io
import math
import pathlib
import pickle
from typing import NamedTuple

import numpy as np

from fer_jax.errors import InputError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}


class _Storage(NamedTuple):
    kind: str
    key: str
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def _rebuild_tensor(storage, offset, shape, strides, *_):
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle._Unpickler):  # the C one would allocate whatever a corrupt index asks for
    """Allows ordered dicts, tensors and storages only."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a weight file does not need")

    def persistent_load(self, pid):
        tag, kind, key, _, count, *view = pid
        if tag != "storage" or any(part is not None for part in view):
            raise pickle.UnpicklingError("it contains views of storages")
        return _Storage(kind, key, count)


def read(path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict by name, in its order and with their stored types.

    Raises:
      InputError: the file is of another kind, contains more than tensors, or is truncated.
    """
    # From memory, so that a corrupt length cannot ask for more bytes than the file has.
    file = io.BytesIO(pathlib.Path(path).read_bytes())
    try:
        if _Unpickler(file).load() != MAGIC or _Unpickler(file).load() != PROTOCOL:
            raise InputError(f"{path} is not a PyTorch weight file")
        little = _Unpickler(file).load()["little_endian"]
        tensors = _Unpickler(file).load()
        keys = _Unpickler(file).load()
        storages = _read_storages(file, tensors, keys, "<" if little else ">")
        return {name: _as_array(tensor, storages) for name, tensor in tensors.items()}
    except InputError:
        raise
    except Exception as error:  # corrupt pickles can raise anything
        raise InputError(
            f"{path} cannot be read as PyTorch weights ({error or 'it ends too early'}): it is truncated, or "
            "contains more than a state dict of tensors"
        ) from error


def _read_storages(file, tensors, keys, order):
    known = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    arrays = {}
    for key in keys:
        storage = known[key]
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(storage.kind).newbyteorder(order)
        raw = file.read(storage.count * dtype.itemsize)
        if count != storage.count or len(raw) != count * dtype.itemsize:
            raise ValueError("it ends too early")
        arrays[key] = np.frombuffer(raw, dtype)
    return arrays


def _as_array(tensor, storages):
    values = storages[tensor.storage.key][tensor.offset :]
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.offset, 0, *tensor.strides) < 0 or (math.prod(tensor.shape) and last >= len(values)):
        raise ValueError("a tensor reaches beyond its storage")
    # Weights converted from TensorFlow are permuted views, not stored row by row.
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)
