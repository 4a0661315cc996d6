"""GridSample calls its modes `bilinear` and `bicubic` up to opset 19, `linear` and `cubic` from 20 on. They compute the same.

Opset 20 also brought volumes (5-D inputs), which the older operator does not know.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import sites

NEW_NAMES = {"bilinear": "linear", "bicubic": "cubic"}
OLD_NAMES = {new: old for old, new in NEW_NAMES.items()}


def _rename(model: ir.Model, names: dict[str, str], default: str) -> int:
    count = 0
    for site in sites(model, "GridSample"):
        mode = site.attribute("mode")
        word = default if mode is None else mode.as_string()
        if word in names:
            site.node.attributes["mode"] = ir.AttrString("mode", names[word])
            count += 1
    return count


def old_mode_names(model: ir.Model) -> int:
    """Mode names of opset 20 → 16, in place. Returns the number of nodes changed. Errors: ExportError for volumes."""
    for site in sites(model, "GridSample"):
        shape = site.required(0).shape
        if shape is not None and len(shape) != 4:
            raise site.refuse(expected="images (4-D)", got=f"{len(shape)}-D", fix="choose opset 20 or later")
    return _rename(model, OLD_NAMES, "")


def new_mode_names(model: ir.Model) -> int:
    """Mode names of opset 16 → 20, the default too, in place. Returns the number of nodes changed."""
    return _rename(model, NEW_NAMES, "bilinear")
