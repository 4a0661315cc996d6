"""Reductions: `axes` was an attribute before it became an input (ReduceSum at opset 13, all the others at 18).

No axes and `noop_with_empty_axes = 0` means "over all axes" in every version. With `noop_with_empty_axes = 1` the newer operator
hands its input on; the older ones cannot say that, so it becomes an Identity.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import Site, sites

SINCE_18 = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare",
)
# Over one number these are that number; the others (an absolute value, a square, a logarithm) are not.
HANDS_ON = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})


def lower_reduce_sum(model: ir.Model) -> int:
    """ReduceSum of opset 13 → 11, in place. Returns the number of nodes changed. Errors: ExportError for computed axes."""
    return sum(_lower(site) for site in sites(model, "ReduceSum"))


def lower_reduce(model: ir.Model) -> int:
    """The other reductions of opset 18 → 13, in place. Returns the number of nodes changed. Errors: ExportError for computed axes."""
    return sum(_lower(site) for site in sites(model, *SINCE_18))


def _lower(site: Site) -> int:
    has_noop = site.attribute("noop_with_empty_axes") is not None
    if len(site.node.inputs) < 2 and not has_noop:
        return 0
    axes = () if site.input(1) is None else site.constant_ints(1, "axes")
    # An older form has its axes as an attribute already.
    noop = site.int_attribute("noop_with_empty_axes", 0) and "axes" not in site.node.attributes
    if noop and not axes:
        if site.node.op_type not in HANDS_ON:
            raise site.refuse(expected="axes", got="none, with noop_with_empty_axes", fix="name the axes, or keep opset 18")
        site.become("Identity", [site.required(0)])
        return 1
    site.set_inputs([site.required(0)])
    site.node.attributes.pop("noop_with_empty_axes", None)
    if axes:
        site.node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    return 1
