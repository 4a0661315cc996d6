"""Rewriting files of any origin from one dialect into another, each node checked; start at `retarget.py`."""
