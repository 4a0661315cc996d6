"""The custom nodes of a network, and what stands on their inputs when a frame is run.

One run of ONNX Runtime gives the inputs of many nodes: behind each value a Gather takes one image, so that the whole of a big tensor
never leaves the runtime. Nodes are tapped in groups, as what is tapped may have to stay in memory until the end of the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.attributes import Window
from ...graph.contract import TWIN_DOMAIN, Contract
from ...graph.dialect import Dialect
from ...graph.forms import PORT_FORMS
from ...graph.retargeting.custom_node import attention_sizes, check_attributes, deform_conv_sizes, ports_of
from ...graph.runnable import make_runnable
from ...session import open_session

TAPPED_AT_ONCE = 2**31  # bytes of whole tensors that a run may have to keep beside its own: the full network needs 1.3 GB


class Tap(NamedTuple):
    """The value that an input of a node reads: its name in the graph, and what it is."""

    value: str
    form: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def per_image(self) -> bool:
        """True where the first axis counts the images."""
        return PORT_FORMS[self.form].shape.startswith("A")

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class CustomNode:
    """One custom node of a network, held against its contract.

    Attributes:
        name: in the graph.
        operator: "msda" or "dcn".
        contract: the dialect's.
        taps: port name → the value on it; an optional port without value is left out.
        letters: its sizes (`forms.py`).
        window: of a deformable convolution; None for an attention.
        attributes: as they stand in the file.
    """

    name: str
    operator: str
    contract: Contract
    taps: Mapping[str, Tap]
    letters: Mapping[str, int]
    window: Window | None
    attributes: Mapping[str, Any]


def custom_nodes(model: onnx.ModelProto, dialect: Dialect) -> tuple[CustomNode, ...]:
    """The dialect's nodes of a model, in graph order.

    Args:
        model: values typed; nodes of an empty-domain dialect stand in their twin's domain.
        dialect: with contracts.

    Raises:
        ModelFileError: there is none, or one is not as its contract says.
    """
    contracts = {
        (contract.domain or TWIN_DOMAIN, contract.op_type): (operator, contract)
        for operator, contract in (("msda", dialect.msda), ("dcn", dialect.dcn))
        if contract is not None
    }
    found = []
    for node in ir.from_proto(model).graph:
        operator, contract = contracts.get((node.domain, node.op_type), ("", None))
        if contract is not None:
            found.append(_held_against(node, operator, contract))
    if not found:
        wanted = " or ".join(contract.title for _, contract in contracts.values())
        fix = "choose another with --dialect"
        raise ModelFileError(f"custom nodes of {dialect.name}", expected=wanted, got="none in the file", fix=fix)
    return tuple(found)


def _held_against(node: ir.Node, operator: str, contract: Contract) -> CustomNode:
    check_attributes(node, contract)
    ports = ports_of(node, contract)
    window: Window | None = None
    if operator == "msda":
        letters = attention_sizes(node, contract, ports)
    else:
        letters, window = deform_conv_sizes(node, contract, ports)
    taps = {port.name: _tap(ports[port.form], port.form) for port in contract.inputs if port.form in ports}
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    return CustomNode(node.name or node.outputs[0].name or "", operator, contract, taps, letters, window, attributes)


def _tap(value: ir.Value, form: str) -> Tap:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    return Tap(value.name, form, value.dtype.numpy(), tuple(value.shape.numpy()))


def activations(
    file: NetworkFile, nodes: Sequence[CustomNode], feeds: Mapping[str, np.ndarray], images: Mapping[str, int],
    at_once: int = TAPPED_AT_ONCE,
) -> Iterator[tuple[CustomNode, dict[str, np.ndarray]]]:  # fmt: skip
    """Runs the file and gives, for each node, port name → array.

    Args:
        file: the network.
        nodes: of `custom_nodes`, in graph order.
        feeds: an array for each input of the file.
        images: node name → the image that is taken; arrays with an image axis have one image then.
        at_once: bytes of whole tensors that are tapped in one run, as far as single nodes allow.

    Raises:
        ModelFileError: an array does not fit an input, or ONNX Runtime cannot run the file.
    """
    runnable = onnx.ModelProto()
    runnable.CopyFrom(file.model)
    make_runnable(runnable, file.dialect)
    for group in _groups(nodes, at_once):
        model, outputs = _tapped(runnable, group, images)
        session = open_session(model, weights_folder=file.path.parent)
        got = session.run(feeds)
        del session
        for node in group:
            yield node, {port: got.pop(name) for port, name in outputs[node.name].items()}


def _groups(nodes: Sequence[CustomNode], at_once: int) -> Iterator[list[CustomNode]]:
    """Nodes one after the other, so many at a time that their whole inputs stay below a number of bytes."""
    group: list[CustomNode] = []
    total = 0
    for node in nodes:
        size = sum(tap.nbytes for tap in node.taps.values())
        if group and total + size > at_once:
            yield group
            group, total = [], 0
        group.append(node)
        total += size
    yield group


def _tapped(
    runnable: onnx.ModelProto, nodes: Sequence[CustomNode], images: Mapping[str, int]
) -> tuple[onnx.ModelProto, dict[str, dict[str, str]]]:
    """A copy whose only outputs are the inputs of some nodes. Returns node → port → name of the output, too."""
    model = onnx.ModelProto()
    model.CopyFrom(runnable)
    graph = model.graph
    del graph.output[:]
    outputs: dict[str, dict[str, str]] = {}
    for node in nodes:
        outputs[node.name] = {}
        for port, tap in node.taps.items():
            name = f"occport_tap_{len(graph.output)}"  # never the name of a value: a port may read what is an output already
            if tap.per_image:
                index = onnx.numpy_helper.from_array(np.array([images[node.name]], np.int64), f"{name}_image")
                graph.initializer.append(index)
                graph.node.append(onnx.helper.make_node("Gather", [tap.value, index.name], [name], name=name, axis=0))
            else:
                graph.node.append(onnx.helper.make_node("Identity", [tap.value], [name], name=name))
            kind = onnx.helper.np_dtype_to_tensor_dtype(tap.dtype)
            graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
            outputs[node.name][port] = name
    return model, outputs
