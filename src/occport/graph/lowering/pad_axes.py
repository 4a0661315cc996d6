"""Pad below opset 18 has no `axes`: pads = (before of each axis …, after of each axis …) for every axis of the data.

With axes a_1..a_k the newer operator gives k befores and k afters; all other axes get 0.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .site import sites


def lower_pad_axes(model: ir.Model) -> int:
    """Pad of opset 18 → 13, in place. Returns the number of nodes changed.

    Errors: ExportError where pads or axes are computed, or the rank of the data is unknown.
    """
    count = 0
    for site in sites(model, "Pad"):
        if len(site.node.inputs) < 4:
            continue
        inputs = [site.required(0), site.required(1), site.input(2)]
        if site.input(3) is not None:
            axes, pads = site.constant_ints(3, "axes"), site.constant_ints(1, "pads")
            full = np.zeros((2, len(site.shape(0, "for its rank"))), np.int64)
            full[:, list(axes)] = np.asarray(pads, np.int64).reshape(2, -1)
            inputs[1] = site.constant("pads", full.reshape(-1))
        site.set_inputs(inputs if inputs[2] is not None else inputs[:2])
        count += 1
    return count
