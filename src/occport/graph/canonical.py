"""The vendor-free form that the trace writes: two custom nodes of the domain `occport`, defined here for the whole package.

DeformConv2d
    input (A,C,H,W), offset (A,G*2*T,Ho,Wo), mask (A,G*T,Ho,Wo), weight (O,C/groups,kh,kw), bias (O) optional
    attributes stride, padding, dilation: two ints each; groups, deform_groups
MultiScaleDeformableAttention
    value (A,S,M,D), spatial_shapes (L,2), level_start_index (L), reference_points (A,Q,L,2),
    sampling_offsets (A,Q,M,L,P,2) in pixels, attention_logits (A,Q,M,L,P)

SampledAttention
    value, spatial_shapes, level_start_index, sampling_locations (A,Q,M,L,P,2), attention_weights (A,Q,M,L,P)

The trace writes the attention in its wide form: narrowing it to locations and softmaxed weights is always possible, the way back
is not. What is read from other files may be narrow only; that is the third node.
"""

from __future__ import annotations

from typing import Any

from .contract import Attribute, Contract, Port

DOMAIN = "occport"
VERSION = 1
DCN = "DeformConv2d"
MSDA = "MultiScaleDeformableAttention"
SAMPLED = "SampledAttention"

DCN_INPUTS = ("input", "offset", "mask", "weight", "bias")
DCN_ATTRIBUTES = ("stride", "padding", "dilation", "groups", "deform_groups")
MSDA_INPUTS = ("value", "spatial_shapes", "level_start_index", "reference_points", "sampling_offsets", "attention_logits")
SAMPLED_INPUTS = ("value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights")

DCN_CONTRACT = Contract(
    DOMAIN,
    VERSION,
    DCN,
    inputs=tuple(Port(form, "float32", 0, name=form, optional=form == "bias") for form in DCN_INPUTS),
    output=Port("map", "float32", 4),
    attributes=tuple(Attribute(form, "int" if form.endswith("groups") else "ints", form) for form in DCN_ATTRIBUTES),
)
MSDA_CONTRACT, SAMPLED_CONTRACT = (
    Contract(DOMAIN, VERSION, name, tuple(Port(form, "float32", 0, name=form) for form in inputs), Port("heads_merged", "float32", 3))
    for name, inputs in ((MSDA, MSDA_INPUTS), (SAMPLED, SAMPLED_INPUTS))
)

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
_INTEGERS = {"spatial_shapes", "level_start_index"}


def schemas() -> dict[str, Any]:
    """`onnx.defs.OpSchema` of both nodes, by name: the exporter keeps attributes only of nodes that have one."""
    from onnx.defs import OpSchema

    kinds = OpSchema.AttrType
    attributes = {name: kinds.INTS if name in ("stride", "padding", "dilation") else kinds.INT for name in DCN_ATTRIBUTES}
    return {DCN: _schema(DCN, DCN_INPUTS, attributes), MSDA: _schema(MSDA, MSDA_INPUTS, {})}


def _schema(name: str, inputs: tuple[str, ...], attributes: dict[str, Any]) -> Any:
    from onnx.defs import OpSchema

    option = OpSchema.FormalParameterOption
    ports = [
        OpSchema.FormalParameter(
            port, "I" if port in _INTEGERS else "T", param_option=option.Optional if port == "bias" else option.Single
        )
        for port in inputs
    ]
    return OpSchema(
        name,
        DOMAIN,
        VERSION,
        inputs=ports,
        outputs=[OpSchema.FormalParameter("output", "T")],
        type_constraints=[("T", _FLOATS, "values"), ("I", ["tensor(int64)"], "sizes")],
        attributes=[OpSchema.Attribute(key, kind, "") for key, kind in attributes.items()],
    )
