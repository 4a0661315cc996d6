"""Looking at occupancy: a picture (`picture.py`) and an interactive recording (`recording.py`). numpy, no torch."""
