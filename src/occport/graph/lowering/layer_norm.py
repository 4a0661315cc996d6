"""LayerNormalization appeared at opset 17. Below, over the axes from `axis` on:

    mean = ReduceMean(x);  c = x - mean;  variance = ReduceMean(c * c);  y = c / sqrt(variance + epsilon) * scale + bias

in the precision that the operator itself uses: float32 for half-precision inputs (`stash_type` 1, between two casts), else the input's
own. Only operators that torch 1.10 wrote at opset 11 are used. ReduceMean has its axes as an attribute, the form of all opsets below 18.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import AttributeValue, Shape, Site, sites, static_shape

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def lower_layer_norm(model: ir.Model) -> int:
    """LayerNormalization → eight nodes and one more for the bias (two more for half precision), in place. Returns how many.

    Errors: ExportError where the type or shape of the input is unknown, or mean or deviation are used as outputs.
    """
    count = 0
    for site in sites(model, "LayerNormalization"):
        _lower(site)
        count += 1
    return count


def _lower(site: Site) -> None:
    site.only_output(fix="choose opset 17 or later")
    x, scale, bias = site.required(0), site.required(1), site.input(2)
    shape = site.shape(0, "for the axes to average over")
    if x.dtype is None:
        raise site.refuse(expected="an input of known type", got="an unknown type", fix="run shape inference before")
    axis = site.int_attribute("axis", -1) % len(shape)
    normalised = _normalised(site, x, x.dtype, shape, axis)
    if bias is None:
        site.become("Mul", [normalised, scale])
    else:
        scaled = site.before("scaled", "Mul", [normalised, scale], dtype=x.dtype, shape=static_shape(site.node.outputs[0]))
        site.become("Add", [scaled, bias])


def _normalised(site: Site, x: ir.Value, dtype: ir.DataType, shape: Shape, axis: int) -> ir.Value:
    """(x - mean) / sqrt(variance + epsilon), same shape and type as `x`."""
    epsilon_attribute = site.attribute("epsilon")
    epsilon = 1e-5 if epsilon_attribute is None else epsilon_attribute.as_float()
    half = dtype in HALVES and site.int_attribute("stash_type", 1) == ir.DataType.FLOAT.value
    wide = ir.DataType.FLOAT if half else dtype
    over: dict[str, AttributeValue] = {"axes": list(range(axis, len(shape))), "keepdims": 1}
    kept = (*shape[:axis], *(1,) * (len(shape) - axis))  # the averaged axes stay as 1
    if half:
        x = site.before("single", "Cast", [x], {"to": wide.value}, dtype=wide, shape=shape)
    mean = site.before("mean", "ReduceMean", [x], over, dtype=wide, shape=kept)
    centred = site.before("centred", "Sub", [x, mean], dtype=wide, shape=shape)
    square = site.before("square", "Mul", [centred, centred], dtype=wide, shape=shape)
    variance = site.before("variance", "ReduceMean", [square], over, dtype=wide, shape=kept)
    shifted = site.before("shifted", "Add", [variance, site.scalar("epsilon", epsilon, wide)], dtype=wide, shape=kept)
    deviation = site.before("deviation", "Sqrt", [shifted], dtype=wide, shape=kept)
    normalised = site.before("normalised", "Div", [centred, deviation], dtype=wide, shape=shape)
    if half:
        normalised = site.before("half", "Cast", [normalised], {"to": dtype.value}, dtype=dtype, shape=shape)
    return normalised
