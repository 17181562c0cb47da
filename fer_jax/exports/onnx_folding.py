"""Folds what follows a convolution in an ONNX graph, and scales and shifts its channels, into its kernel and bias.

Batch normalization with stored statistics is such an operation: the folded network computes it for nothing, and int8
quantization sees the outputs that matter.
"""

from collections import Counter

import numpy as np

FOLDED = ("Add", "Sub", "Mul", "Div")


def fold(graph) -> None:
    """Folds affine operations into the convolutions of an `onnx.GraphProto`, in place, and drops unused arrays."""
    from onnx import numpy_helper

    arrays = {one.name: one for one in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    readers = {name: node for node in graph.node for name in node.input}
    dropped, new = set(), []
    for conv in graph.node:
        if conv.op_type != "Conv" or conv.input[1] not in arrays:
            continue
        kernel = numpy_helper.to_array(arrays[conv.input[1]]).astype(np.float64)
        scale, shift = np.ones(len(kernel)), np.zeros(len(kernel))
        after, output = [], conv.output[0]
        while uses[output] == 1:
            step = _channelwise(readers[output], output, arrays, len(kernel))
            if step is None:
                break
            scale, shift = step(scale, shift)
            after.append(readers[output])
            output = readers[output].output[0]
        if not after:
            continue
        dropped |= {node.name for node in after}
        dtype = numpy_helper.to_array(arrays[conv.input[1]]).dtype
        parts = {"kernel": kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1)), "bias": shift}
        for name, array in parts.items():
            new.append(numpy_helper.from_array(array.astype(dtype), f"{conv.name}_{name}"))
        del conv.input[1:]
        conv.input.extend(one.name for one in new[-2:])
        conv.output[0] = output
    _replace(graph.node, [node for node in graph.node if node.name not in dropped])
    graph.initializer.extend(new)
    used = {name for node in graph.node for name in node.input}
    _replace(graph.initializer, [one for one in graph.initializer if one.name in used])


def _channelwise(node, output, arrays, channels):
    """Returns step(scale, shift) -> (scale, shift) of a node that does the same to all cells of a channel, or None."""
    from onnx import numpy_helper

    if node.op_type not in FOLDED:
        return None
    is_first = node.input[0] == output
    other = node.input[1 if is_first else 0]
    if other not in arrays or (not is_first and node.op_type in ("Sub", "Div")):
        return None
    array = numpy_helper.to_array(arrays[other]).astype(np.float64)
    if array.shape not in ((), (1, channels, 1, 1), (1, 1, 1, 1)):
        return None
    amount = np.broadcast_to(array.ravel(), channels)
    return {
        "Add": lambda scale, shift: (scale, shift + amount),
        "Sub": lambda scale, shift: (scale, shift - amount),
        "Mul": lambda scale, shift: (scale * amount, shift * amount),
        "Div": lambda scale, shift: (scale / amount, shift / amount),
    }[node.op_type]


def _replace(field, messages):
    messages = list(messages)
    del field[:]
    field.extend(messages)
