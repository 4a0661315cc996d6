"""Bring-up: what an engineer asks when the file exists and the chip's output is wrong, slow or of another precision."""
