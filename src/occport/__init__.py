"""occport: SurroundOcc on any accelerator."""

__version__ = "0.1.0"
