"""JAX's primitives as ONNX operators of opset 17: `RULES` has the rule of each.

A rule gets the graph, the equation of the jaxpr and the values of its inputs, and returns the value of its output, or a
list of values.
"""

import string

import numpy as np
from jax import lax

from fer_jax.exports.onnx_graph import UnsupportedError, Value, as_exported

PLAIN = {
    "abs": "Abs",
    "add": "Add",
    "and": "And",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
NHWC = 4  # axes


def elementwise(graph, eqn, values, write):
    """Writes an elementwise operation in the order of the axes that its inputs have.

    write(names) -> name of the output.
    """
    out = eqn.outvars[0].aval
    full = [value for value in values if len(value.shape) == len(out.shape)]
    moved = (value.order for value in full if not value.is_constant)
    order = next(moved, tuple(range(len(out.shape))))
    names = [graph.tensor(value, order if len(value.shape) == len(out.shape) else None) for value in values]
    lengths = [
        next((value.lengths[axis] for value in full if value.lengths[axis] != 1), 1) for axis in range(len(out.shape))
    ]
    return Value(out.shape, out.dtype, name=write(names), order=order, lengths=lengths)


def _plain(graph, eqn, *values):
    return elementwise(graph, eqn, values, lambda names: graph.add(PLAIN[eqn.primitive.name], *names))


def _max(graph, eqn, *values):
    # Programs fuse a Relu with the convolution before it, but not a Max.
    for value, other in (values, values[::-1]):
        if other.is_constant and other.shape == () and other.array == 0:
            return elementwise(graph, eqn, [value], lambda names: graph.add("Relu", *names))
    return _plain(graph, eqn, *values)


def _cast(graph, eqn, value):
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(as_exported(eqn.params["new_dtype"]))
    return elementwise(graph, eqn, [value], lambda names: graph.add("Cast", *names, to=kind))


def _with(*operators):
    """Returns the rule of a chain of operators; each is (operator, *constants after its first input)."""

    def rule(graph, eqn, value):
        def write(names):
            (name,) = names
            for operator, *constants in operators:
                name = graph.add(operator, name, *(np.array(one, value.dtype) for one in constants))
            return name

        return elementwise(graph, eqn, [value], write)

    return rule


def _integer_pow(graph, eqn, value):
    power = np.array(eqn.params["y"], value.dtype)
    return elementwise(graph, eqn, [value], lambda names: graph.add("Pow", *names, power))


def _square(graph, eqn, value):
    return elementwise(graph, eqn, [value], lambda names: graph.add("Mul", *names, *names))


def _ne(graph, eqn, *values):
    return elementwise(graph, eqn, values, lambda names: graph.add("Not", graph.add("Equal", *names)))


def _clamp(graph, eqn, low, value, high):
    def write(names):
        return graph.add("Min", graph.add("Max", names[1], names[0]), names[2])

    return elementwise(graph, eqn, [low, value, high], write)


def _select(graph, eqn, which, *cases):
    if which.dtype != np.bool_ or len(cases) != 2:
        raise UnsupportedError("a selection among more than two cases has no counterpart in ONNX")
    return elementwise(graph, eqn, [which, *cases], lambda names: graph.add("Where", names[0], names[2], names[1]))


def _broadcast(graph, eqn, value, *_):
    shape, axes = eqn.outvars[0].aval.shape, eqn.params["broadcast_dimensions"]
    lengths = [1] * len(shape)
    for axis, length in zip(axes, value.lengths, strict=True):
        lengths[axis] = length
    if value.is_constant:
        return Value(shape, value.dtype, array=value.array.reshape(lengths), lengths=lengths)
    return Value(shape, value.dtype, name=graph.reshape(graph.tensor(value), lengths), lengths=lengths)


def _reshape(graph, eqn, value, *_):
    shape = eqn.outvars[0].aval.shape
    return Value(shape, value.dtype, name=graph.reshape(graph.tensor(graph.expand(value)), shape))


def _transpose(_, eqn, value):
    axes, shape = eqn.params["permutation"], eqn.outvars[0].aval.shape
    lengths = [value.lengths[axis] for axis in axes]
    if value.is_constant:
        return Value(shape, value.dtype, array=value.array.transpose(axes), lengths=lengths)
    order = [axes.index(axis) for axis in value.order]
    return Value(shape, value.dtype, name=value.name, order=order, lengths=lengths)


def _slice(graph, eqn, value):
    value, params = graph.expand(value), eqn.params
    strides = params["strides"] or (1,) * len(value.shape)
    spans = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    cut = {
        axis: span
        for axis, (span, length) in enumerate(zip(spans, value.shape, strict=True))
        if (span[0], span[2]) != (0, 1) or span[1] != length
    }
    return _cut(graph, value, eqn.outvars[0].aval.shape, cut)


def _reverse(graph, eqn, value):
    value = graph.expand(value)
    return _cut(graph, value, value.shape, dict.fromkeys(eqn.params["dimensions"], (-1, np.iinfo(np.int64).min, -1)))


def _cut(graph, value, shape, cut):
    """Slices axes of a value; cut: {axis: (start, stop, step)}."""
    if not cut:
        return value
    starts, stops, steps = (np.array(part, np.int64) for part in zip(*cut.values(), strict=True))
    axes = np.array([value.order.index(axis) for axis in cut], np.int64)
    name = graph.add("Slice", graph.tensor(value, value.order), starts, stops, axes, steps)
    return Value(shape, value.dtype, name=name, order=value.order)


def _gather(graph, eqn, value, indices):
    """Converts indexing by constants: a slice, or lists of indices along some axes."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    mapped, collapsed = numbers.start_index_map, numbers.collapsed_slice_dims
    if not indices.is_constant or numbers.operand_batching_dims:
        raise UnsupportedError("indexing by values that depend on the faces has no counterpart here")
    value, shape = graph.expand(value), eqn.outvars[0].aval.shape
    _check_inside(indices.array, mapped, value.shape, sizes)
    if indices.array.ndim == 1:
        starts = zip(mapped, indices.array.tolist(), strict=True)
        value = _cut(graph, value, sizes, {axis: (start, start + sizes[axis], 1) for axis, start in starts})
        return Value(shape, value.dtype, name=graph.reshape(graph.tensor(value), shape)) if collapsed else value
    chosen = _as_grid(indices.array)
    batch = tuple(axis for axis in range(len(shape)) if axis not in numbers.offset_dims)
    if chosen is None or not mapped == collapsed == batch:
        raise UnsupportedError("indexing of single elements has no counterpart here")
    name = graph.tensor(value, value.order)
    for axis, places in zip(mapped, chosen, strict=True):
        name = graph.add("Gather", name, places.astype(np.int64), axis=value.order.index(axis))
    return Value(shape, value.dtype, name=name, order=value.order)


def _as_grid(indices):
    """Returns the indices along each of k axes, if indices [n1, ..., nk, k] are all their combinations; else None."""
    axes = indices.shape[-1]
    if indices.ndim != axes + 1:
        return None
    chosen = [np.moveaxis(indices[..., axis], axis, 0).reshape(indices.shape[axis], -1)[:, 0] for axis in range(axes)]
    grid = np.stack(np.meshgrid(*chosen, indexing="ij"), axis=-1)
    return chosen if np.array_equal(grid, indices) else None


def _check_inside(indices, axes, shape, sizes):
    """Rejects indices beyond an axis, for which JAX and ONNX have different rules."""
    for axis, column in zip(axes, np.moveaxis(indices, -1, 0), strict=True):
        if isinstance(shape[axis], int) and (column.min() < 0 or column.max() > shape[axis] - sizes[axis]):
            raise UnsupportedError("indices beyond an axis have no counterpart here")


def _round(graph, eqn, value):
    if eqn.params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise UnsupportedError("rounding away from zero has no counterpart in ONNX")
    return elementwise(graph, eqn, [value], lambda names: graph.add("Round", *names))


def _logical(graph, eqn, *values):
    if values[0].dtype != np.bool_:
        raise UnsupportedError(f"'{eqn.primitive.name}' of integers has no counterpart here")
    return _plain(graph, eqn, *values)


def _pad(graph, eqn, value, fill):
    config = eqn.params["padding_config"]
    if any(inside for _, _, inside in config) or any(min(rim[:2]) < 0 for rim in config):
        raise UnsupportedError("padding between elements, or of negative width, has no counterpart in ONNX")
    value = graph.expand(value)
    rims = [[config[axis][side] for axis in value.order] for side in (0, 1)]
    name = graph.add("Pad", graph.tensor(value, value.order), np.array(rims, np.int64).ravel(), graph.tensor(fill))
    return Value(eqn.outvars[0].aval.shape, value.dtype, name=name, order=value.order)


def _concatenate(graph, eqn, *values):
    values = [graph.expand(value) for value in values]
    order = next((value.order for value in values if not value.is_constant), values[0].order)
    names = [graph.tensor(value, order) for value in values]
    name = graph.add("Concat", *names, axis=order.index(eqn.params["dimension"]))
    return Value(eqn.outvars[0].aval.shape, values[0].dtype, name=name, order=order)


def _stack(graph, eqn, *values):
    axis = np.array([eqn.params["axis"]], np.int64)
    names = [graph.add("Unsqueeze", graph.tensor(graph.expand(value)), axis) for value in values]
    return Value(eqn.outvars[0].aval.shape, values[0].dtype, name=graph.add("Concat", *names, axis=eqn.params["axis"]))


def _split(graph, eqn, value):
    value = graph.expand(value)
    sizes, axis = np.array(eqn.params["sizes"], np.int64), value.order.index(eqn.params["axis"])
    name = graph.tensor(value, value.order)
    names = graph.add("Split", name, sizes, axis=axis, outputs=len(sizes)) if len(sizes) > 1 else [name]
    return [
        Value(var.aval.shape, value.dtype, name=name, order=value.order)
        for var, name in zip(eqn.outvars, names, strict=True)
    ]


def _reduce(operator):
    def rule(graph, eqn, value):
        value, axes = graph.expand(value), eqn.params["axes"]
        if not axes:  # ONNX would reduce all of them
            return value
        places = [value.order.index(axis) for axis in axes]
        name = graph.tensor(value, value.order)
        if operator == "ReduceSum":  # the only one whose axes are an input in opset 17
            name = graph.add(operator, name, np.array(places, np.int64), keepdims=0)
        else:
            name = graph.add(operator, name, axes=places, keepdims=0)
        left = [axis for axis in value.order if axis not in axes]
        order = [sorted(left).index(axis) for axis in left]
        return Value(eqn.outvars[0].aval.shape, value.dtype, name=name, order=order)

    return rule


def _argmax(graph, eqn, value):
    from onnx import helper

    value, (axis,) = graph.expand(value), eqn.params["axes"]
    out = eqn.outvars[0].aval
    name = graph.add("ArgMax", graph.tensor(value), axis=axis, keepdims=0)
    return Value(out.shape, out.dtype, name=graph.add("Cast", name, to=helper.np_dtype_to_tensor_dtype(out.dtype)))


def _pool(operator):
    def rule(graph, eqn, value):
        params, out = eqn.params, eqn.outvars[0].aval
        window, strides, padding = (params[key] for key in ("window_dimensions", "window_strides", "padding"))
        dilated = any(one != 1 for key in ("base_dilation", "window_dilation") for one in params[key])
        if len(window) != NHWC or window[0] != 1 or window[3] != 1 or dilated:
            raise UnsupportedError(f"a window of {window}, or with dilation, has no counterpart in ONNX")
        order = (0, 3, 1, 2)
        options = {
            "kernel_shape": list(window[1:3]),
            "strides": list(strides[1:3]),
            "pads": [padding[axis][side] for side in (0, 1) for axis in (1, 2)],
        }
        name = graph.tensor(graph.expand(value), order)
        if operator == "MaxPool":
            name = graph.add(operator, name, **options)
        else:
            cells = np.array(window[1] * window[2], value.dtype)
            name = graph.add("Mul", graph.add(operator, name, count_include_pad=1, **options), cells)
        return Value(out.shape, out.dtype, name=name, order=order)

    return rule


def _conv(graph, eqn, value, kernel):
    params, out = eqn.params, eqn.outvars[0].aval
    numbers = params["dimension_numbers"]
    if any(one != 1 for one in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise UnsupportedError("a transposed convolution has no counterpart here")
    if any(min(rim) < 0 for rim in params["padding"]):
        raise UnsupportedError("a convolution with negative padding has no counterpart here")
    name = graph.add(
        "Conv",
        graph.tensor(graph.expand(value), numbers.lhs_spec),
        graph.tensor(graph.expand(kernel), numbers.rhs_spec),
        strides=list(params["window_strides"]),
        pads=[rim[side] for side in (0, 1) for rim in params["padding"]],
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
        kernel_shape=[kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
    )
    return Value(out.shape, out.dtype, name=name, order=numbers.out_spec)


def _dot(graph, eqn, left, right):
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    out, (left, right) = eqn.outvars[0].aval, (graph.expand(left), graph.expand(right))
    names = graph.tensor(left), graph.tensor(right)
    if not left_batch and left_sum == (len(left.shape) - 1,) and right_sum == (0,) and len(right.shape) == 2:
        return Value(out.shape, out.dtype, name=graph.add("MatMul", *names))
    letters = iter(string.ascii_lowercase)
    of_left = [next(letters) for _ in left.shape]
    of_right = [next(letters) for _ in right.shape]
    for here, there in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
        of_right[there] = of_left[here]
    free = [
        [letter for axis, letter in enumerate(mine) if axis not in (*summed, *batch)]
        for mine, summed, batch in ((of_left, left_sum, left_batch), (of_right, right_sum, right_batch))
    ]
    result = [*(of_left[axis] for axis in left_batch), *free[0], *free[1]]
    equation = f"{''.join(of_left)},{''.join(of_right)}->{''.join(result)}"
    return Value(out.shape, out.dtype, name=graph.add("Einsum", *names, equation=equation))


RULES = {
    **dict.fromkeys(PLAIN, _plain),
    **dict.fromkeys(("and", "not", "or"), _logical),
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "convert_element_type": _cast,
    "dot_general": _dot,
    "expand_dims": _reshape,
    "gather": _gather,
    "integer_pow": _integer_pow,
    "is_finite": _with(("Abs",), ("Less", np.inf)),
    "max": _max,
    "log1p": _with(("Add", 1), ("Log",)),
    "ne": _ne,
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool"),
    "reshape": _reshape,
    "rev": _reverse,
    "round": _round,
    "rsqrt": _with(("Sqrt",), ("Reciprocal",)),
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": _square,
    "squeeze": _reshape,
    "stack": _stack,
    "transpose": _transpose,
}
