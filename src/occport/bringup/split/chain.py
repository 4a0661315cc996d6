"""Running the parts one after another, each on what those before it gave, and holding what comes out against one run of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, ValueInfoProto, helper

from ...compare import compare
from ...export.network_file import NetworkFile
from ...graph.functions import Arithmetics
from ...graph.model_file import tensor_of
from ...graph.precision.emulate import LOW, emulate
from ...graph.runnable import make_runnable
from ...graph.submodel import needed, submodel, value_types
from ...session import open_session
from .parts import Part

Arrays = dict[str, np.ndarray]
Sink = Callable[[Part, Mapping[str, np.ndarray]], None]
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, *LOW}
_LOW = tuple(np.dtype(helper.tensor_dtype_to_np_dtype(kind)) for kind in LOW)


class Link(NamedTuple):
    """A part, and the model that computes it with the folder of its weights."""

    part: Part
    model: ModelProto
    folder: Path


class Runner(NamedTuple):
    """How models of a file are run.

    Attributes:
        file: whose inputs, outputs and custom nodes they have.
        bodies: of custom nodes; None: the fastest that ONNX Runtime has.
        optimise: False: every operator by itself. ONNX Runtime fuses operators and lays out their arrays anew where it gains by that; what
            a cut keeps apart may then round otherwise.
    """

    file: NetworkFile
    bodies: Arithmetics | None
    optimise: bool = True

    def run(self, model: ModelProto, folder: Path, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Runs a model, whose weights lie in the folder, on those of the feeds that it reads. What has 16 bits is computed in float32 and
        rounded behind every node.

        Returns: its outputs by name, in the types that they have in the file.
        Errors: ModelFileError for feeds that do not fit, and what ONNX Runtime raises.
        """
        runnable = onnx.ModelProto()
        runnable.CopyFrom(model)
        emulate(runnable)
        make_runnable(runnable, self.file.dialect, self.bodies)
        session = open_session(runnable, weights_folder=folder, optimise=self.optimise)
        got = session.run({port.name: _widened(feeds[port.name]) for port in session.inputs})
        return as_declared(model.graph.output, got)

    def chain(self, links: Sequence[Link], feeds: Mapping[str, np.ndarray], watched: Iterable[str], sink: Sink) -> Arrays:
        """Runs parts in their order; memory stays near that of the largest and of what is still to be read.

        Args:
            feeds: an array for each input of the file.
            watched: further tensors to be returned; each is computed by another run of the part that it is inside of.
            sink: is given each part that has run with its inputs and outputs by name.

        Returns: the file's outputs and the watched tensors, by name. Errors: as of `run`.
        """
        file = self.file
        kept = {*watched, *(info.name for info in file.model.graph.output)}
        weights = {tensor.name for tensor in file.model.graph.initializer}
        values: Arrays = {name: tensor_of(file.model, name, file.folder) for name in kept & weights} | dict(feeds)
        for number, (part, model, folder) in enumerate(links):
            read = {name: values[name] for name in part.inputs}
            values |= self.run(model, folder, read)
            sink(part, {name: values[name] for name in (*part.inputs, *part.outputs)})
            inside = {name for node in model.graph.node for name in node.output}
            more = [name for name in dict.fromkeys((*part.others, *watched)) if name in inside and name not in values]
            if more:
                values |= self.run(submodel(file.model, part.inputs, more, part.name), file.folder, read)
            later = kept.union(*(link.part.inputs for link in links[number + 1 :]))
            values = {name: array for name, array in values.items() if name in later}
        return values

    def whole(self, feeds: Mapping[str, np.ndarray], more: Iterable[str]) -> Arrays:
        """Runs the file as one model that gives further tensors, too. Returns its outputs and these. Errors: as of `run`."""
        model = onnx.ModelProto()
        model.CopyFrom(self.file.model)
        types = value_types(model.graph)
        there = {info.name for info in (*model.graph.input, *model.graph.output)}
        model.graph.output.extend(types[name] for name in dict.fromkeys(more) if name not in there)
        return self.run(model, self.file.folder, feeds)


def watched_floats(graph: GraphProto) -> list[str]:
    """The numbers behind outputs that are whole numbers: the nearest floating-point tensors that these follow from. Labels alone could
    hide a difference."""
    types = value_types(graph)
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, None] = {}
    reached = [info.name for info in graph.output if info.type.tensor_type.elem_type not in _FLOATS]
    seen = set(reached)
    while reached:
        node = makers.get(reached.pop())
        for name in node.input if node is not None else ():
            if name in makers and name in types and types[name].type.tensor_type.elem_type in _FLOATS:
                found[name] = None
            elif name not in seen:
                seen.add(name)
                reached.append(name)
    order = [name for node in needed(graph, (), list(found))[0] for name in node.output]
    return sorted(found, key=order.index)


def differences(got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> list[str]:
    """A line for each tensor of `want` that is not the same bit for bit."""
    found = []
    for name, right in want.items():
        other = got[name]
        if other.dtype != right.dtype or other.shape != right.shape or not np.array_equal(_bits(other), _bits(right)):
            found.append(f"{name}: {compare(other, right, atol=0, rtol=0, equal_nan=True).describe()}")
    return found


def as_declared(ports: Iterable[ValueInfoProto], values: Mapping[str, np.ndarray]) -> Arrays:
    """Values in the types of their ports, where these have 16 bits; others as they are, so that a wrong type is found where it is fed."""
    kinds = {port.name: port.type.tensor_type.elem_type for port in ports}
    return {
        name: array.astype(helper.tensor_dtype_to_np_dtype(kinds[name])) if kinds.get(name) in LOW and array.dtype == np.float32 else array
        for name, array in values.items()
    }


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype in _LOW else array


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
