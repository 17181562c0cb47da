"""Exports trained models to formats that other programs run: ONNX, StableHLO, and a page for browsers."""

ENDINGS = {"onnx": ".onnx", "int8": ".int8.onnx", "stablehlo": ".stablehlo"}  # of the files, by format
