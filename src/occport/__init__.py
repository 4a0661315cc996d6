"""occport: SurroundOcc on any accelerator. Config and checkpoint in, a verified ONNX file with your chip's operators out.

config = occport.read_config("projects/configs/surroundocc/surroundocc.py")
model = occport.build_model(config)          # SurroundOcc in eval mode
logits = model(img, lidar2img)               # four tensors (B, 17 or 1, X, Y, Z), coarse to fine
predictor = occport.Predictor(model)         # or Predictor("exported.onnx")
occupancy = predictor(images, calibration)   # occupancy.labels (X, Y, Z), .points(), .class_names, .save(folder)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Config", "Occupancy", "Predictor", "SurroundOcc", "UserError", "VerificationFailed", "build_model", "read_config"]

if TYPE_CHECKING:
    from .config import Config, read_config
    from .errors import UserError, VerificationFailed
    from .model.surroundocc import SurroundOcc, build_model
    from .use.predictor import Predictor
    from .voxels.occupancy import Occupancy

_HOMES = {
    "Config": "config",
    "read_config": "config",
    "UserError": "errors",
    "VerificationFailed": "errors",
    "Occupancy": "voxels.occupancy",
    "Predictor": "use.predictor",
    "SurroundOcc": "model.surroundocc",
    "build_model": "model.surroundocc",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used: `import occport` alone loads neither torch nor onnx."""
    if name not in _HOMES:
        raise AttributeError(f"module 'occport' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
