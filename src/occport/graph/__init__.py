"""Everything that is done to the ONNX graph. Never imports torch."""
