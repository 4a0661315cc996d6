"""Pow below opset 12: base and exponent are floats of one type.

A constant exponent is written again in the type of the base, any other is cast to it. An integer base can only be squared: x * x.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import constant_array, sites, static_shape


def lower_pow_types(model: ir.Model) -> int:
    """Pow of mixed or integer types, opset 12 → 11, in place. Returns the number of nodes changed.

    Errors: ExportError for an integer base with an exponent other than a constant 2.
    """
    count = 0
    for site in sites(model, "Pow"):
        base, exponent = site.required(0), site.required(1)
        if base.dtype is None or exponent.dtype is None:
            continue
        number = constant_array(exponent)
        if base.dtype.is_integer():
            if number is None or number.size != 1 or number.item() != 2:
                raise site.refuse(
                    expected="a float base or the constant exponent 2", got=f"a base of {base.dtype.name}", fix="choose opset 12 or later",
                )
            site.become("Mul", [base, base])
        elif exponent.dtype == base.dtype:
            continue
        elif number is not None:
            site.set_inputs([base, site.constant("exponent", number.astype(base.dtype.numpy()))])
        else:
            cast = site.before("exponent", "Cast", [exponent], {"to": base.dtype.value}, dtype=base.dtype, shape=static_shape(exponent))
            site.set_inputs([base, cast])
        count += 1
    return count
