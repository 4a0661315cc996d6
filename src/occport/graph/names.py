"""Names that say where in the network a node or tensor is, valid as C identifiers, unique.

A node is called after its module and its operator (`img_backbone_layer3_0_conv2_DeformConv2d`), its output likewise, a weight
after its key in the checkpoint (`img_backbone_conv1_weight`), a derived constant after the node that reads it. Constants that
a dialect adds and several nodes share are called `const_…` after what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir

from ..errors import ExportError

SCOPES = "pkg.torch.onnx.name_scopes"
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_WEIGHT_PORTS = {"Conv": ("input", "weight", "bias"), "ConvTranspose": ("input", "weight", "bias"), "Gemm": ("input", "weight", "bias")}
_LOGITS = re.compile(r"pts_bbox_head_occ_(\d+)_Conv\Z")


def identifier(text: str) -> str:
    """Any text as a C identifier."""
    clean = re.sub(r"\W", "_", text, flags=re.ASCII)
    return clean if IDENTIFIER.match(clean) else f"_{clean}"


def name_everything(model: ir.Model) -> None:
    """Renames nodes, values and initializers of a traced graph in place; inputs and outputs keep their names.

    The last values before labels or probabilities are called logits_scale0 … logits_scale3, whether they are outputs or not.
    """
    kept = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    taken = set(kept)

    def unique(wanted: str) -> str:
        name, number = wanted, 1
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        taken.add(name)
        return name

    scopes: dict[ir.Node, str] = {}
    for node in model.graph:
        scopes[node] = _scope(node)
        if SCOPES not in node.metadata_props:  # made by the exporter itself: it belongs where its input comes from
            sources = [value.producer() for value in node.inputs if value is not None]
            scopes[node] = next((scopes[source] for source in sources if source is not None), "")
        node.name = unique(f"{scopes[node]}{node.op_type}")
        logits = _LOGITS.match(node.name)
        for i, output in enumerate(node.outputs):
            if output.name in kept:
                continue
            if logits:
                output.name = unique(f"logits_scale{logits.group(1)}")
            else:
                output.name = node.name if len(node.outputs) == 1 else unique(f"{node.name}_{i}")
    for value in list(model.graph.initializers.values()):
        old = value.name
        assert old is not None
        value.name = unique(_initializer_name(value))
    for node in model.graph:
        node.metadata_props.clear()


def rename_ports(model: ir.Model, renames: Mapping[str, str]) -> None:
    """Gives inputs and outputs the user's names. ExportError for a name that is not there, no identifier, or taken."""
    ports = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
    for old, new in renames.items():
        if old not in ports:
            raise ExportError(f"--rename {old}={new}", expected="one of " + ", ".join(sorted(str(name) for name in ports)), got=old)
        if not IDENTIFIER.match(new):
            raise ExportError(f"--rename {old}={new}", expected="a name of letters, digits and _", got=new)
        if new in all_names(model):
            raise ExportError(f"--rename {old}={new}", expected="a name that is free", got=f"{new} is in the graph already")
        ports[old].name = new


def all_names(model: ir.Model) -> set[str]:
    """Every tensor name of the main graph."""
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(output for node in model.graph for output in node.outputs)]
    return {value.name for value in values if value.name}


def _scope(node: ir.Node) -> str:
    """The module path as a prefix; empty for the entry module itself."""
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get(SCOPES, ""))
    modules = scopes[:-1]  # the last is the operation
    path = modules[-1] if modules else ""
    path = path.removeprefix("model").removeprefix(".")
    return f"{identifier(path)}_" if path else ""


def _initializer_name(value: ir.Value) -> str:
    name = str(value.name)
    if "." in name:
        return identifier(name.removeprefix("model."))
    uses = list(value.uses())
    if not uses:
        return identifier(name)
    ports = _WEIGHT_PORTS.get(uses[0].node.op_type, ())
    port = ports[uses[0].idx] if uses[0].idx < len(ports) else f"const{uses[0].idx}"
    return f"{uses[0].node.name}_{port}"
