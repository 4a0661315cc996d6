"""Metrics: what one frame says (`semantic.py`, `reconstruction.py`), what all frames say (`totals.py`, `agreement.py`), how it is shown."""
