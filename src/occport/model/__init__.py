"""SurroundOcc in plain PyTorch; start at `surroundocc.py`."""
