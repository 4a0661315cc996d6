"""Bringing an ONNX model to another opset: one lowering a file, its algebra in the docstring. `graph/opset.py` holds the table."""
