"""CastLike appeared at opset 15: a Cast to the type of its second input, which is known when the model is written."""

from __future__ import annotations

import onnx_ir as ir

from .site import sites


def lower_cast_like(model: ir.Model) -> int:
    """CastLike of opset 15 → Cast, in place. Returns the number of nodes changed. Errors: ExportError where the type is unknown."""
    count = 0
    for site in sites(model, "CastLike"):
        dtype = site.required(1).dtype
        if dtype is None:
            raise site.refuse(expected="a second input of known type", got="an unknown type", fix="use Cast, or choose opset 15 or later")
        site.become("Cast", [site.required(0)], {"to": dtype.value})
        count += 1
    return count
