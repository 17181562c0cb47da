"""Exports trained models to formats that other programs run: ONNX, StableHLO, and a page for browsers."""
