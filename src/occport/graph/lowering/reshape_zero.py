"""Reshape below opset 14 has no `allowzero`: a 0 in the target shape always means "as in the input".

With `allowzero = 1` a 0 would be a length of zero. Where the target shape holds none the attribute says nothing; where it is computed, the
static shape of the output is written instead. A tensor that really is empty cannot be said.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .site import Site, constant_array, sites, static_shape


def lower_reshape_allowzero(model: ir.Model) -> int:
    """Reshape of opset 14 → 13, in place. Returns the number of nodes changed.

    Errors: ExportError where `allowzero = 1` matters: a length of zero, or an unknown target shape.
    """
    count = 0
    for site in sites(model, "Reshape"):
        if site.attribute("allowzero") is None:
            continue
        if site.int_attribute("allowzero", 0):
            _without_zero(site)
        del site.node.attributes["allowzero"]
        count += 1
    return count


def _without_zero(site: Site) -> None:
    target = constant_array(site.required(1))
    if target is not None and np.all(target != 0):
        return
    shape = static_shape(site.node.outputs[0])
    if shape is None or 0 in shape:
        got = "an unknown one" if shape is None else str(list(shape))
        raise site.refuse(expected="a target shape without zeros", got=got, fix="choose opset 14 or later")
    site.set_inputs([site.required(0), site.constant("shape", np.asarray(shape, np.int64))])
