"""Squeeze and Unsqueeze: `axes` was an attribute before it became an input at opset 13. The meaning did not change."""

from __future__ import annotations

import onnx_ir as ir

from .site import sites


def lower_squeeze(model: ir.Model) -> int:
    """Squeeze and Unsqueeze of opset 13 → 11, in place. Returns the number of nodes changed. Errors: ExportError for computed axes."""
    count = 0
    for site in sites(model, "Squeeze", "Unsqueeze"):
        if site.input(1) is not None:
            axes = site.constant_ints(1, "axes")
            site.set_inputs([site.required(0)])
            site.node.attributes["axes"] = ir.AttrInt64s("axes", axes)
            count += 1
    return count
