"""Reads weights from a .tflite file with the package `tflite`, without TensorFlow."""

import pathlib

import numpy as np


def read(path) -> dict[str, dict[str, np.ndarray]]:
    """Reads the convolutions of a network from a verified file.

    Tensors are named '<layer>/Kernel' and '<layer>/Bias', and are float16 or float32.

    Returns:
      {layer: {"kernel": float32 [H, W, C, F], or [H, W, 1, C] if depthwise, "bias": float32 [F]}}, as in linen.
    """
    import tflite

    types = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}
    model = tflite.Model.GetRootAsModel(pathlib.Path(path).read_bytes(), 0)
    graph, layers = model.Subgraphs(0), {}
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        layer, _, kind = tensor.Name().decode().rpartition("/")
        buffer = model.Buffers(tensor.Buffer())
        if kind not in ("Kernel", "Bias") or not buffer.DataLength():
            continue
        values = np.frombuffer(buffer.DataAsNumpy(), types[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
        if kind == "Kernel":
            values = values.transpose((1, 2, 0, 3) if "depthwise" in layer else (1, 2, 3, 0))
        layers.setdefault(layer, {})[kind.lower()] = np.ascontiguousarray(values, np.float32)
    return layers
