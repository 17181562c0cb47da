"""Static int8 quantization of ONNX models, by onnxruntime."""

import pathlib
import tempfile

CALIBRATION_FACES = 512
BATCH = 64  # faces at once: calibration keeps the outputs of all layers in memory
QUANTIZED = ("Conv", "MatMul")


def quantize(model, faces):
    """Returns an `onnx.ModelProto` whose convolutions and dense layers compute with int8.

    Weights have 7 bits and a scale for each output channel; activations have one scale, from the least to the greatest
    value that occurs with `faces`. Everything else stays float32.

    Args:
      model: an `onnx.ModelProto` with the input `faces`.
      faces: uint8 [N, H, W, C], typical ones, which must not be those that the result is scored on.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    batches = [faces[start : start + BATCH] for start in range(0, len(faces), BATCH)]

    class Faces(quantization.CalibrationDataReader):
        def __init__(self):
            self._batches = iter(batches)

        def get_next(self):
            batch = next(self._batches, None)
            return None if batch is None else {"faces": batch}

    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, result = (str(pathlib.Path(folder) / f"{name}.onnx") for name in ("whole", "prepared", "int8"))
        onnx.save(model, whole)
        shape_inference.quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            result,
            Faces(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # processors without VNNI would saturate with 8 bits
            op_types_to_quantize=list(QUANTIZED),
        )
        quantized = onnx.load(result)
    del quantized.metadata_props[:]  # those of onnxruntime's preparation
    quantized.metadata_props.extend(model.metadata_props)
    return quantized
