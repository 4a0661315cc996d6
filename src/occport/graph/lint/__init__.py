"""Lint: an ONNX file of any origin held against a dialect's contract, field by field, without running it. `whole.py` joins the rooms."""
