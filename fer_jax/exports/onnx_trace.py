"""Converts JAX functions to ONNX models: traces a function once with a symbolic batch and converts its jaxpr.

What depends on constants alone, such as the variables of a network, is computed while converting.
"""

import contextlib
import json
import os

import jax
import numpy as np
from jax import export as jax_export

from fer_jax import ops
from fer_jax.exports import onnx_folding
from fer_jax.exports.onnx_graph import BATCH, Graph, UnsupportedError, Value, as_exported
from fer_jax.exports.onnx_primitives import PLAIN, RULES

OPSET = 17
IR_VERSION = 8  # the one of opset 17
# Primitives that call a function, and the parameters that hold it.
CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "checkpoint",
    "remat2",
    "scan",
)
BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
SAME = ("copy", "copy_p", "name", "optimization_barrier", "stop_gradient", "reduce_precision")


@contextlib.contextmanager
def plain_kernels():
    """Traces XLA's own operations instead of the faster kernels for CPUs."""
    before = os.environ.get(ops.SWITCH)
    os.environ[ops.SWITCH] = "off"
    try:
        yield
    finally:
        os.environ.pop(ops.SWITCH)
        if before is not None:
            os.environ[ops.SWITCH] = before


def convert(fn, inputs, outputs, *, facts=None):
    """Returns a function as a checked `onnx.ModelProto`.

    Args:
      fn: maps arrays to an array or a tuple of arrays; it is traced with a symbolic batch.
      inputs: {name: (shape, dtype)}; a length of None is the batch.
      outputs: the names of the arrays that it returns.
      facts: {name: JSON value} for the metadata.

    Raises:
      UnsupportedError: the function uses a primitive that has no rule here, or depends on the size of the batch.
    """
    (batch,) = jax_export.symbolic_shape(BATCH)
    shapes = {name: [batch if one is None else one for one in shape] for name, (shape, _) in inputs.items()}
    structs = [jax.ShapeDtypeStruct(shapes[name], dtype) for name, (_, dtype) in inputs.items()]
    try:
        return _convert_traced(fn, inputs, structs, outputs, facts or {})
    except UnsupportedError:
        raise
    except Exception as error:
        # JAX and the checker of ONNX have many exceptions for what this converter does not know.
        raise UnsupportedError(f"the network cannot be converted to ONNX ({type(error).__name__}: {error})") from error


def _convert_traced(fn, inputs, structs, outputs, facts):
    import onnx
    from onnx import helper

    with plain_kernels():
        closed = jax.make_jaxpr(fn)(*structs)
    graph = Graph()
    graph.batch_source = next((name, shape.index(None)) for name, (shape, _) in inputs.items() if None in shape)
    given = [Value(one.shape, one.dtype, name=name) for name, one in zip(inputs, structs, strict=True)]
    found = _run(graph, closed.jaxpr, [_constant(one) for one in closed.consts], given)
    for name, value in zip(outputs, found, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.tensor(graph.expand(value))], [name], name=name))
    made = helper.make_graph(
        graph.nodes,
        "fer_jax",
        [_describe(name, one) for name, one in zip(inputs, structs, strict=True)],
        [_describe(name, value) for name, value in zip(outputs, found, strict=True)],
        graph.initializers,
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="fer_jax"
    )
    helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
    onnx_folding.fold(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def _describe(name, value):
    from onnx import helper

    shape = [length if isinstance(length, int) else str(length) for length in value.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), shape)


def _constant(array, shape=None):
    """shape: where the array still has to be broadcast."""
    array = np.asarray(array)
    array = array.astype(as_exported(array.dtype), copy=False)
    return Value(array.shape if shape is None else shape, array.dtype, array=array, lengths=array.shape)


def _run(graph, jaxpr, constants, inputs):
    """Converts the equations of a jaxpr; returns the values of its outputs."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True))

    def read(atom):
        return _constant(atom.val) if hasattr(atom, "val") else values[atom]

    for eqn in jaxpr.eqns:
        found = _convert(graph, eqn, [read(atom) for atom in eqn.invars])
        values |= dict(zip(eqn.outvars, found if isinstance(found, list) else [found], strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _convert(graph, eqn, values):
    name = eqn.primitive.name
    casts = name == "convert_element_type" and as_exported(eqn.params["new_dtype"]) == values[0].dtype
    if name in SAME or casts:
        return values
    body = next((eqn.params[key] for key in BODIES if key in eqn.params), None) if name in CALLS else None
    if name == "scan":
        return _unroll(graph, eqn, body, values)
    if body is not None:
        return _call(graph, body, values)
    folded = _compute(eqn, values)
    if folded is not None:
        return folded
    if name not in RULES:
        raise UnsupportedError(f"the JAX primitive '{name}' has no counterpart in the ONNX export")
    return RULES[name](graph, eqn, *values)


def _call(graph, body, values):
    jaxpr, constants = (body.jaxpr, body.consts) if hasattr(body, "jaxpr") else (body, ())
    return _run(graph, jaxpr, [_constant(one) for one in constants], values)


def _compute(eqn, values):
    """Returns the outputs of an equation of constants, or None if it has to be part of the graph."""
    if not all(value.is_constant for value in values):
        return None
    arrays = [value.array for value in values]
    if any(value.lengths != value.shape for value in values):
        # Elementwise operations keep axes that are still to be broadcast.
        if eqn.primitive.name not in (*PLAIN, "convert_element_type", "integer_pow", "rsqrt", "select_n", "square"):
            return None
        arrays = np.broadcast_arrays(*arrays)
    elif any(not isinstance(length, int) for var in eqn.outvars for length in var.aval.shape):
        return None
    found = eqn.primitive.bind(*arrays, **eqn.params)
    found = found if eqn.primitive.multiple_results else [found]
    return [_constant(one, var.aval.shape) for var, one in zip(eqn.outvars, found, strict=True)]


def _unroll(graph, eqn, body, values):
    """Converts a scan as a sequence of its steps."""
    # Releases of JAX describe a scan differently; in all of them only what it scans over has a further axis.
    carried = sum(_same_rank(*pair) for pair in zip(eqn.outvars, body.jaxpr.outvars, strict=True))
    fixed = sum(_same_rank(*pair) for pair in zip(eqn.invars, body.jaxpr.invars, strict=True)) - carried
    constants, carry, rows = values[:fixed], values[fixed : fixed + carried], values[fixed + carried :]
    steps, kept = range(eqn.params["length"]), []
    for step in reversed(steps) if eqn.params["reverse"] else steps:
        parts = [_row(graph, row, step) for row in rows]
        found = _call(graph, body, [*constants, *carry, *parts])
        carry, ys = found[:carried], found[carried:]
        kept.append(ys)
    if eqn.params["reverse"]:
        kept.reverse()
    rows = zip(*kept, strict=True)
    return [*carry, *(_stack(graph, ys, var) for ys, var in zip(rows, eqn.outvars[carried:], strict=True))]


def _same_rank(one, other):
    return len(one.aval.shape) == len(other.aval.shape)


def _row(graph, value, step):
    """Returns the row of a value at a step of a scan."""
    value = graph.expand(value)
    if value.is_constant:
        return _constant(value.array[step])
    name = graph.add("Gather", graph.tensor(value), np.array(step, np.int64), axis=0)
    return Value(value.shape[1:], value.dtype, name=name)


def _stack(graph, values, var):
    names = [graph.add("Unsqueeze", graph.tensor(graph.expand(value)), np.array([0])) for value in values]
    return Value(var.aval.shape, var.aval.dtype, name=graph.add("Concat", *names, axis=0))
