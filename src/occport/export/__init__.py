"""From a PyTorch model to a verified ONNX file; the one place where torch and the graph rooms meet."""
