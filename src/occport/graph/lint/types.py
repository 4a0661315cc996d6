"""Types that a file does not tell, worked out: ONNX's shape inference, helped over the custom nodes by their contracts.

ONNX knows nothing of a custom node's output, so that many files have no types behind the first one. For inference each such node is
replaced, in a copy, by standard operators with an output of the same shape: a Conv for the deformable convolution, and for
the attention a product of a (A,1,M*D) slice of the values and a (A,Q,1) slice of the weights. They are never run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...errors import ModelFileError
from ..attributes import Window, read_window
from ..dialect import Dialect
from ..forms import PORT_FORMS
from ..model_file import tensor_of
from .facts import Facts
from .finding import NOTE, Finding
from .scopes import STANDARD_DOMAINS, label
from .site import Site, contract_of
from .structure import is_static
from .versions import opset_of

_PREFIX = "occport_stand_in"
_SMALL = 1024  # bytes of an external initializer that may be a shape


def with_types(model: onnx.ModelProto, dialect: Dialect, folder: Path | None) -> tuple[onnx.ModelProto, list[Finding]]:
    """The model with all types that can be worked out, and a note on each that its file does not tell. The model itself stays as it is.

    Errors: ModelFileError where a small external constant, which may be a shape, is missing.
    """
    facts = Facts(model)
    missing = {name for node in model.graph.node for name in node.output if name and not is_static(facts.type(name)[1])}
    if not missing or opset_of(model) is None:
        return model, []
    try:
        inferred = onnx.shape_inference.infer_shapes(_with_stand_ins(model, dialect, folder, missing), data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        got = " ".join(str(error).split())[:200]
        return model, [Finding("", "shape inference", "types that fit together", got)]
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    del typed.graph.value_info[:]
    typed.graph.value_info.extend(info for info in inferred.graph.value_info if not info.name.startswith(_PREFIX))
    del typed.graph.output[:]
    typed.graph.output.extend(inferred.graph.output)
    found, notes = Facts(typed), []
    for node in model.graph.node:
        for name in node.output:
            if name in missing and is_static(found.type(name)[1]):
                fix = "compilers that do not infer need it: `occport retarget` writes every type"
                notes.append(Finding(label(node), f"type of output ({name})", "in the file", "none; it was worked out", fix, NOTE))
    return typed, notes


def _with_stand_ins(model: onnx.ModelProto, dialect: Dialect, folder: Path | None, missing: set[str]) -> onnx.ModelProto:
    """A copy for inference: no custom node in it whose output has no type, small external integers inside, every domain imported."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _take_in_small(copy, model, folder)
    facts = Facts(copy)
    nodes: list[onnx.NodeProto] = []
    for i, node in enumerate(copy.graph.node):
        contract = contract_of(node, dialect) if missing & set(node.output) else None
        site = Site(node, contract, facts) if contract is not None else None
        nodes += _stand_in(site, f"{_PREFIX}_{i}", copy.graph) if site is not None and site.counts_fit else [node]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    imported = {entry.domain for entry in copy.opset_import}
    for domain in sorted({node.domain for node in kept} - imported - set(STANDARD_DOMAINS)):
        copy.opset_import.append(helper.make_opsetid(domain, 1))
    return copy


def _take_in_small(copy: onnx.ModelProto, model: onnx.ModelProto, folder: Path | None) -> None:
    for tensor in copy.graph.initializer:
        external = tensor.data_location == TensorProto.EXTERNAL and tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
        if folder is not None and external and int(np.prod(tensor.dims)) * 8 <= _SMALL:
            tensor.CopyFrom(numpy_helper.from_array(np.array(tensor_of(model, tensor.name, folder)), tensor.name))


def _stand_in(site: Site, prefix: str, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Standard nodes with an output of the same shape; the node itself where its ports do not tell."""
    inputs = {port.form: name for port, name in site.ports()[:-1]}
    if site.is_attention:
        return _attention(site, inputs, prefix, graph)
    window = _window(site)
    if window is None or "weight" not in inputs:
        return [site.node]
    conv = helper.make_node(
        "Conv", [inputs["input"], inputs["weight"]], [site.node.output[0]], prefix, strides=window.stride,
        pads=[*window.padding, *window.padding], dilations=window.dilation, group=window.groups,
    )  # fmt: skip
    return [conv]


def _window(site: Site) -> Window | None:
    """The window; the kernel's size, which inference takes from the weight, is left out."""
    wanted = {attribute.name: attribute.type for attribute in site.contract.attributes}
    values = {name: value for name, (kind, value) in site.attributes().items() if wanted.get(name) == kind}
    try:
        return read_window(site.contract, values, (1, 1), site.name)
    except ModelFileError:
        return None


def _attention(site: Site, inputs: dict[str, str], prefix: str, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes of every opset from 11 on: Gather, Reshape with 0 and -1, Mul."""
    by_query = next((form for form in inputs if PORT_FORMS[form].shape.startswith("A Q")), None)
    if by_query is None or "value" not in inputs:
        return [site.node]
    split = site.contract.output.form == "heads_split"
    shapes = {"first": 0, "one": [0], "values": [0, 0, 0, 0] if split else [0, 0, -1], "queries": [0, 0, 1, 1] if split else [0, 0, 1]}
    for name, numbers in shapes.items():
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), f"{prefix}_{name}"))
    nodes = [
        helper.make_node("Gather", [inputs["value"], f"{prefix}_one"], [f"{prefix}_v"], axis=1),
        helper.make_node("Reshape", [f"{prefix}_v", f"{prefix}_values"], [f"{prefix}_heads"]),
    ]
    last = inputs[by_query]
    for axis in range(len(PORT_FORMS[by_query].shape.split()) - 1, 1, -1):
        nodes.append(helper.make_node("Gather", [last, f"{prefix}_first"], [f"{prefix}_q{axis}"], axis=axis))
        last = f"{prefix}_q{axis}"
    nodes.append(helper.make_node("Reshape", [last, f"{prefix}_queries"], [f"{prefix}_q"]))
    nodes.append(helper.make_node("Mul", [f"{prefix}_heads", f"{prefix}_q"], [site.node.output[0]]))
    return nodes
