"""The arithmetic of the two custom operators in standard ONNX operators, one file an operator, each in several forms."""
