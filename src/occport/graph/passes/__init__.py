"""Rewrites of the graph at one opset: one pass a file, each with its algebra. Opset changes are in `graph/lowering/`."""
