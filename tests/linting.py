"""Small clean files of every dialect, made by hand from its contract, and the command line of lint."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from occport import cli
from occport.commands import lint as command
from occport.graph import dialect as dialects
from occport.graph.attributes import Window, lower_window
from occport.graph.contract import Contract, Port
from occport.graph.dialect import Dialect
from occport.graph.forms import PORT_FORMS
from occport.graph.lint.finding import Finding
from occport.graph.lint.whole import lint
from occport.graph.opset import ir_version_for

MAPS = ((5, 7), (3, 4))
# all different where they can be, within the limits of every target
SIZES = {"A": 2, "S": 47, "M": 3, "D": 8, "Q": 33, "L": 2, "P": 4, "R": 2, "C": 4, "G": 2, "T": 9, "H": 5, "W": 7, "Ho": 5, "Wo": 7}
SIZES |= {"O": 12, "kh": 3, "kw": 3, "groups": 2}
WINDOW = Window((3, 3), (1, 1), (1, 1), (1, 1), 2, 2)
NUMBERS = {
    "spatial_shapes": [list(pair) for pair in MAPS], "level_start_index": [0, 35], "num_images": 2, "num_queries": 33, "num_embed": 24,
}  # fmt: skip
CUSTOM = [name for name in dialects.names() if dialects.load(name).msda is not None]
Edit = Callable[[onnx.ModelProto], None]


def clean(dialect: Dialect, opset: int | None = None) -> onnx.ModelProto:
    """A file with one attention node `msda` and one convolution `conv`, a Relu behind each; everything right, typed and named."""
    assert dialect.msda is not None and dialect.dcn is not None
    nodes: list[onnx.NodeProto] = []
    inputs: list[onnx.ValueInfoProto] = []
    constants: list[onnx.TensorProto] = []
    infos: list[onnx.ValueInfoProto] = []
    outputs = []
    for name, contract in (("msda", dialect.msda), ("conv", dialect.dcn)):
        reads = [_port(name, port, nodes, inputs, constants) for port in contract.inputs]
        nodes.append(_node(name, contract, reads))
        infos.append(_typed(f"{name}_out", contract.output))
        nodes.append(helper.make_node("Relu", [f"{name}_out"], [f"{name}_relu"], f"{name}_relu_node"))
        outputs.append(_typed(f"{name}_relu", contract.output))
    graph = helper.make_graph(nodes, "clean", inputs, outputs, constants, value_info=infos)
    version = opset or dialect.opset
    imports = {**dialect.domains, "": version}
    opsets = [helper.make_opsetid(domain, number) for domain, number in imports.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=dialect.ir or ir_version_for(version))


def _port(
    node: str, port: Port, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], constants: list[onnx.TensorProto]
) -> str:
    """The name of a value for a port, which is made: a graph input, an initializer or a Constant node."""
    name = f"{node}_{port.name}"
    if port.form in NUMBERS:
        array = np.array(NUMBERS[port.form], port.dtype)
        array = array.reshape((1,) * port.rank) if array.ndim == 0 else array
        if port.place == "constant":
            nodes.append(helper.make_node("Constant", [], [name], f"{name}_node", value=numpy_helper.from_array(array)))
        else:
            constants.append(numpy_helper.from_array(array, name))
    elif port.form in ("weight", "bias"):
        constants.append(numpy_helper.from_array(np.ones(shape_of(port), port.dtype), name))
    else:
        inputs.append(_typed(name, port))
    return name


def shape_of(port: Port) -> tuple[int, ...]:
    """A port's shape with the sizes above."""
    return tuple(eval(term.replace("/", "//"), {}, dict(SIZES)) for term in PORT_FORMS[port.form].shape.split())


def _typed(name: str, port: Port) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), shape_of(port))


def _node(name: str, contract: Contract, reads: Sequence[str]) -> onnx.NodeProto:
    attributes: dict[str, Any] = lower_window(contract, WINDOW)
    return helper.make_node(contract.op_type, list(reads), [f"{name}_out"], name, domain=contract.domain, **attributes)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """A node of the main graph by its name."""
    return next(each for each in model.graph.node if each.name == name)


def set_attribute(model: onnx.ModelProto, name: str, value: object, *, on: str = "conv", old: str = "") -> None:
    """Sets an attribute, or takes it away where the value is None; `old` goes too."""
    target = node(model, on)
    kept = [each for each in target.attribute if each.name not in (name, old)]
    del target.attribute[:]
    target.attribute.extend(kept + ([] if value is None else [helper.make_attribute(name, value)]))


def set_type(model: onnx.ModelProto, name: str, shape: Sequence[int] | None = None, elem_type: int = onnx.TensorProto.FLOAT) -> None:
    """Declares another type for a graph input, or for a value."""
    found = next(info for info in (*model.graph.input, *model.graph.value_info, *model.graph.output) if info.name == name)
    found.CopyFrom(helper.make_tensor_value_info(name, elem_type, shape))


def set_constant(model: onnx.ModelProto, name: str, array: object, dtype: str = "int64") -> None:
    """Changes the numbers of a Constant node or an initializer."""
    tensor = numpy_helper.from_array(np.array(array, dtype), name)
    for each in model.graph.node:
        if each.op_type == "Constant" and each.output[0] == name:
            each.attribute[0].t.CopyFrom(tensor)
            return
    next(each for each in model.graph.initializer if each.name == name).CopyFrom(tensor)


def swap(on: str, one: int, other: int) -> Edit:
    def edit(model):
        inputs = node(model, on).input
        inputs[one], inputs[other] = inputs[other], inputs[one]

    return edit


def rename(on: str, op_type: str, domain: str | None = None) -> Edit:
    def edit(model):
        target = node(model, on)
        target.op_type = op_type
        target.domain = target.domain if domain is None else domain

    return edit


def attribute(name: str, value: object, on: str = "conv", old: str = "") -> Edit:
    return lambda model: set_attribute(model, name, value, on=on, old=old)


def shape(name: str, *sizes: int) -> Edit:
    return lambda model: set_type(model, name, sizes)


def dtype(name: str, elem_type: int, *sizes: int) -> Edit:
    return lambda model: set_type(model, name, sizes, elem_type)


def constant(name: str, array: object, dtype: str = "int64") -> Edit:
    return lambda model: set_constant(model, name, array, dtype)


def weight(*sizes: int) -> Edit:
    return lambda model: set_constant(model, "conv_weight", np.ones(sizes), "float32")


def import_version(domain: str, version: int | None) -> Edit:
    def edit(model):
        kept = [entry for entry in model.opset_import if entry.domain != domain]
        del model.opset_import[:]
        model.opset_import.extend(kept + ([] if version is None else [helper.make_opsetid(domain, version)]))

    return edit


def as_initializer(name: str) -> Edit:
    """A Constant node becomes an initializer."""

    def edit(model):
        found = next(each for each in model.graph.node if name in each.output)
        model.graph.node.remove(found)
        tensor = found.attribute[0].t
        tensor.name = name
        model.graph.initializer.append(tensor)

    return edit


def input_dropped(on: str, count: int = 1) -> Edit:
    def edit(model):
        del node(model, on).input[-count:]

    return edit


def put(index: int, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: object) -> Edit:
    """A further node."""
    return lambda model: model.graph.node.insert(index, helper.make_node(op, inputs, outputs, "put", domain=domain, **attributes))


def behind(op: str, **attributes: object) -> Edit:
    """A further node behind the convolution, typed, whose output is one of the graph's."""

    def edit(model):
        model.graph.node.append(helper.make_node(op, ["conv_relu"], ["more"], "put", **attributes))
        model.graph.output.append(helper.make_tensor_value_info("more", 1, [2, 12, 5, 7]))

    return edit


def ir_version(number: int) -> Edit:
    def edit(model):
        model.ir_version = number

    return edit


def input_renamed(on: str, index: int, name: str) -> Edit:
    def edit(model):
        node(model, on).input[index] = name

    return edit


def function(model) -> None:
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("DL", "Unused", ["x"], ["y"], body, [helper.make_opsetid("", 11)]))
    model.ir_version = 8


def unsorted(model) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


def second_output(model) -> None:
    node(model, "conv").output.append("conv_second")
    model.graph.value_info.append(helper.make_tensor_value_info("conv_second", 1, [1]))


def far_head(model) -> None:
    """A wider head: all of the node's ports fit together."""
    set_type(model, "msda_value", (2, 47, 3, 264))
    set_type(model, "msda_out", (2, 33, 792))
    set_type(model, "msda_relu", (2, 33, 792))


def findings(name: str, edit: Edit | None = None, **options: Any) -> list[Finding]:
    """Lint of a clean file of a dialect after a change."""
    dialect = dialects.load(name)
    model = clean(dialect)
    if edit is not None:
        edit(model)
    return lint(model, dialect, **options)


def run_lint(*arguments: object) -> tuple[int, str, str]:
    """The command in this process: exit status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    parser = cli.OneLineParser(prog="occport lint")
    command.add_arguments(parser)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.run(command.run, parser.parse_args([str(argument) for argument in arguments]))
    return status, out.getvalue(), err.getvalue()


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """The model as a file."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def with_more_convs(model: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """The same convolution many times over, each without its padding, behind the first one."""
    set_attribute(model, "padding", None)
    for i in range(count):
        copy = onnx.NodeProto.FromString(node(model, "conv").SerializeToString())
        copy.name, copy.output[0] = f"conv{i}", f"conv{i}_out"
        model.graph.node.append(copy)
        model.graph.output.append(helper.make_tensor_value_info(f"conv{i}_out", 1, [2, 12, 5, 7]))
    return model
