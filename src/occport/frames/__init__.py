"""Camera images and calibration: where they come from, and what the cameras see. numpy and Pillow, no torch."""
