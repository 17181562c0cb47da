"""The ONNX graph under construction, and the values in it.

Pictures are [B, C, H, W] inside the graph, as ONNX's convolutions need them: a value remembers the order of its axes,
and is transposed only where another order is needed.
"""

import itertools
import re

import jax.numpy as jnp
import numpy as np

from fer_jax.errors import InputError

BATCH = "batch"  # the symbolic length of the batch axis
SHARED = 64  # constants of at most so many elements are stored once


class UnsupportedError(InputError):
    """The function uses a primitive that has no counterpart here."""


def as_exported(dtype) -> np.dtype:
    """Returns the type that a JAX type has in the graph: float32 for bfloat16, which few programs compute with."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype == jnp.bfloat16 else dtype


class Value:
    """A value of the traced function.

    shape: JAX's, with the symbolic batch. array: of a constant, else None. name: of its tensor, else None. order: the
    axes of `shape` in the order in which the tensor has them. lengths: of the axes of the tensor or array in the order
    of `shape`; 1 where it is still to be broadcast.
    """

    def __init__(self, shape, dtype, *, name=None, array=None, order=None, lengths=None):
        self.shape, self.dtype, self.name, self.array = tuple(shape), as_exported(dtype), name, array
        self.order = tuple(range(len(self.shape))) if order is None else tuple(order)
        self.lengths = self.shape if lengths is None else tuple(lengths)

    @property
    def is_constant(self) -> bool:
        """Whether the value does not depend on the inputs."""
        return self.array is not None


class Graph:
    """Collects nodes and initializers.

    nodes, initializers: ONNX protobuf messages. batch_source: (name of an input, axis) that has the size of the batch.
    """

    def __init__(self):
        self.nodes, self.initializers, self.batch_source = [], [], None
        self._numbers, self._names, self._stored = itertools.count(), {}, {}

    def constant(self, array) -> str:
        """Returns the name of an initializer."""
        from onnx import numpy_helper

        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= SHARED else next(self._numbers)
        if key not in self._names:
            self._names[key] = f"constant_{next(self._numbers)}"
            self.initializers.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def add(self, operator: str, *inputs, outputs: int = 1, **attributes):
        """Adds a node; returns the name of its output, or a list of names. inputs: names or arrays."""
        from onnx import helper

        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        found = [f"{operator.lower()}_{next(self._numbers)}" for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, names, found, name=found[0], **attributes))
        return found[0] if outputs == 1 else found

    def tensor(self, value: Value, order=None) -> str:
        """Returns the name of a value's tensor with its axes in an order; None: that of `shape`."""
        order = tuple(range(len(value.shape))) if order is None else tuple(order)
        if value.is_constant:
            # The array is kept with its name, so that no other one gets its id.
            key = id(value.array), order
            if key not in self._stored:
                self._stored[key] = self.constant(value.array.transpose(order)), value.array
            return self._stored[key][0]
        if order == value.order:
            return value.name
        return self.add("Transpose", value.name, perm=[value.order.index(axis) for axis in order])

    def expand(self, value: Value) -> Value:
        """Returns the value with a tensor or array of its whole shape."""
        if value.lengths == value.shape:
            return value
        if value.is_constant and all(isinstance(length, int) for length in value.shape):
            return Value(value.shape, value.dtype, array=np.broadcast_to(value.array, value.shape))
        name = self.add("Expand", self.tensor(value), self.sizes(value.shape))
        return Value(value.shape, value.dtype, name=name)

    def reshape(self, name: str, shape) -> str:
        """Returns the name of a tensor reshaped to a shape, of which one length may be symbolic."""
        if sum(not isinstance(length, int) for length in shape) > 1:
            return self.add("Reshape", name, self.sizes(shape))
        return self.add("Reshape", name, np.array([one if isinstance(one, int) else -1 for one in shape], np.int64))

    def sizes(self, shape) -> str:
        """Returns the name of a vector with the lengths of a shape."""
        if all(isinstance(length, int) for length in shape):
            return self.constant(np.array(shape, np.int64))
        name, axis = self.batch_source
        batch = self.add("Gather", self.add("Shape", name), np.array([axis]))
        parts = []
        for length in shape:
            if isinstance(length, int):
                parts.append(self.constant(np.array([length])))
            else:
                parts.append(self.add("Mul", batch, np.array([_factor(length)])))
        return self.add("Concat", *parts, axis=0)


def _factor(length) -> int:
    """Returns k of a symbolic length, which is k * batch."""
    found = re.fullmatch(rf"(?:(\d+)\*)?{BATCH}", str(length))
    if not found:
        raise UnsupportedError(f"a shape has the length {length}, which is not a multiple of the batch")
    return int(found[1] or 1)
