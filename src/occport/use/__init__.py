"""Using the network: predicting, evaluating, one frame or a dataset, in one process or on a Ray cluster. START HERE: `work.py`."""
