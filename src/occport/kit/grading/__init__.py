"""Grading a kernel's outputs: what passes, and which known bug explains what does not."""
