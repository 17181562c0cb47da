"""Writes PyTorch's older weight files by the rules of their layout, without PyTorch."""

import collections
import pickle
import struct
import sys
import types
from unittest import mock

import numpy as np


class _Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


def write(path, tensors, *, little=True):
    """Writes {name: (storage, offset, shape, strides)} as PyTorch before 1.6 did; returns the path."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    utils._rebuild_tensor_v2 = lambda *args: args
    utils._rebuild_tensor_v2.__module__ = "torch._utils"
    utils._rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"

    class Tensor:
        def __init__(self, *args):
            self.args = args

        def __reduce__(self):
            return utils._rebuild_tensor_v2, (*self.args, False, collections.OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, _Storage):
                return ("storage", torch.FloatStorage, value.key, "cpu", len(value.values), None)
            return None

    storages = {id(spec[0]): _Storage(str(i), spec[0]) for i, spec in enumerate(tensors.values())}
    state = collections.OrderedDict(
        (name, Tensor(storages[id(values)], *rest)) for name, (values, *rest) in tensors.items()
    )
    with open(path, "wb") as file, mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little}, state):
            Pickler(file, protocol=2).dump(part)
        pickle.dump([storage.key for storage in storages.values()], file, protocol=2)
        for storage in storages.values():
            file.write(struct.pack("<q", len(storage.values)))
            file.write(np.asarray(storage.values, "<f4" if little else ">f4").tobytes())
    return path


def write_arrays(path, arrays):
    """Writes {name: float32 array}, each stored row by row."""
    tensors = {}
    for name, array in arrays.items():
        strides = tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides)
        tensors[name] = (np.ravel(array), 0, array.shape, strides)
    return write(path, tensors)
