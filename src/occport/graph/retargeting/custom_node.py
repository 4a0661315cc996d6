"""One custom node of a file that somebody else wrote, held against the contract of its dialect before anything is made of it.

A plugin takes a default for an attribute whose name it does not know, and no body reads a wrong scalar: both would pass every numeric
check, and are refused here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...errors import ModelFileError
from ..attributes import Window, lower_window
from ..contract import Contract
from ..forms import PORT_FORMS, SCALARS, scalar
from ..lower import window_of
from ..sizes import solve, value_of

_TYPES = {
    "int": ir.AttributeType.INT, "ints": ir.AttributeType.INTS, "float": ir.AttributeType.FLOAT, "string": ir.AttributeType.STRING,
}  # fmt: skip
_FREE = ("im2col_step",)  # how a kernel cuts its work: any value gives the same numbers
_SIZES = (ir.DataType.INT32, ir.DataType.INT64)


def title_of(node: ir.Node, contract: Contract) -> str:
    """The node in an error."""
    return f"{node.name} ({contract.title})"


def ports_of(node: ir.Node, contract: Contract) -> dict[str, ir.Value]:
    """Form → value of each input that is there, of the right kind and of a static shape. ModelFileError for any other."""
    where = title_of(node, contract)
    if len(node.inputs) > len(contract.inputs):
        expected = f"at most {len(contract.inputs)} ({', '.join(port.name for port in contract.inputs)})"
        raise ModelFileError(f"{where}: inputs", expected=expected, got=str(len(node.inputs)), fix="choose another dialect with --from")
    given = [*node.inputs, *[None] * (len(contract.inputs) - len(node.inputs))]
    ports: dict[str, ir.Value] = {}
    for port, value in zip(contract.inputs, given, strict=True):
        if value is None:
            if not port.optional:
                fix = "choose another dialect with --from"
                raise ModelFileError(f"{where}: input {port.name}", expected=port.form, got="none", fix=fix)
            continue
        what = f"{where}: input {port.name}, value {value.name}"
        if value.shape is None or not value.shape.is_static():
            got = "none that can be inferred" if value.shape is None else str(value.shape)
            raise ModelFileError(what, expected="a static shape", got=got, fix="export it with fixed sizes")
        is_number = port.dtype.startswith("int")
        if value.dtype is None or (value.dtype not in _SIZES if is_number else value.dtype.name.lower() != _dtype(port.dtype)):
            expected = "int64 or int32" if is_number else port.dtype
            raise ModelFileError(what, expected=expected, got=value.dtype.name.lower() if value.dtype else "no dtype")
        ports[port.form] = value
    _check_output(node, contract)
    return ports


def _check_output(node: ir.Node, contract: Contract) -> None:
    """ModelFileError for a second output that something reads, and for a dtype that is not the contract's."""
    where, dtype = title_of(node, contract), node.outputs[0].dtype
    if len(node.outputs) > 1:
        fix = "choose another dialect with --from"
        raise ModelFileError(f"{where}: outputs", expected="1", got=str(len(node.outputs)), fix=fix)
    if dtype is not None and dtype.name.lower() != _dtype(contract.output.dtype):
        raise ModelFileError(f"{where}: output {node.outputs[0].name}", expected=contract.output.dtype, got=dtype.name.lower())


def check_attributes(node: ir.Node, contract: Contract) -> None:
    """ModelFileError for an attribute that the contract does not know, and for one of the wrong type or of a value that it cannot mean."""
    known = {attribute.name: attribute for attribute in contract.attributes}
    where = title_of(node, contract)
    for name, found in node.attributes.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            expected = f"one of {', '.join(known)}" if known else "none"
            fix = f"did you mean {near[0]!r}?" if near else "choose another dialect with --from"
            raise ModelFileError(f"{where}: attribute {name}", expected=expected, got="a name that is unknown to the dialect", fix=fix)
        attribute = known[name]
        if found.type != _TYPES[attribute.type]:
            raise ModelFileError(f"{where}: attribute {name}", expected=attribute.type, got=found.type.name.lower())
        if not attribute.form and name not in _FREE and found.value != attribute.default:
            raise ModelFileError(f"{where}: attribute {name}", expected=str(attribute.default), got=str(found.value))


def attention_sizes(node: ir.Node, contract: Contract, ports: Mapping[str, ir.Value]) -> dict[str, int]:
    """The letters of an attention node. ModelFileError where its shapes, sizes of maps or scalars contradict each other."""
    where = title_of(node, contract)
    letters = _solved(node, contract, {**ports, contract.output.form: node.outputs[0]}, {})
    shapes = constant_in(ports["spatial_shapes"], f"{where}: spatial_shapes").astype(np.int64)
    areas = shapes.prod(1)
    if areas.sum() != letters["S"]:
        expected = f"values of all maps, {' + '.join(map(str, areas.tolist()))}"
        raise ModelFileError(f"{where}: value", expected=expected, got=str(letters["S"]))
    if "level_start_index" in ports:
        starts = constant_in(ports["level_start_index"], f"{where}: level_start_index").tolist()
        if starts != level_starts(shapes).tolist():
            raise ModelFileError(f"{where}: level_start_index", expected=str(level_starts(shapes).tolist()), got=str(starts))
    if letters["P"] % letters.get("R", 1):
        expected = f"a number of points that {letters['R']} reference points can share"
        raise ModelFileError(f"{where}: sampling_offsets", expected=expected, got=str(letters["P"]))
    for port in contract.inputs:
        if port.form in SCALARS:
            array = constant_in(ports[port.form], f"{where}: {port.name}")
            want = scalar(port.form, contract, letters)
            if array.size != 1 or array.ndim > 1 or array.item() != want:
                fix = "nothing reads it in a check, but a chip may"
                raise ModelFileError(f"{where}: {port.name}", expected=f"{want}, from the shapes", got=str(array.tolist()), fix=fix)
    return letters


def deform_conv_sizes(node: ir.Node, contract: Contract, ports: Mapping[str, ir.Value]) -> tuple[dict[str, int], Window]:
    """The letters and the window of a deformable convolution. ModelFileError where its shapes contradict each other or the window."""
    window = window_of(node, contract, ports["weight"])
    for attribute in contract.attributes:
        want, found = lower_window(contract, window)[attribute.name], node.attributes.get(attribute.name)
        if attribute.form.startswith("kernel") and found is not None and list(found.value) != want:
            what = f"{title_of(node, contract)}: attribute {attribute.name}"
            raise ModelFileError(what, expected=f"{want}, as the weight is", got=str(list(found.value)))
    taps = window.kernel[0] * window.kernel[1]
    letters = _solved(node, contract, ports, {"groups": window.groups, "G": window.deform_groups, "T": taps})
    for axis, (size, got) in enumerate((("H", "Ho"), ("W", "Wo"))):
        reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        want = (letters[size] + 2 * window.padding[axis] - reach) // window.stride[axis] + 1
        if letters[got] != want:
            what = f"{title_of(node, contract)}: {got} of the offsets"
            raise ModelFileError(what, expected=f"{want}, from its attributes", got=str(letters[got]))
    return _solved(node, contract, {contract.output.form: node.outputs[0]}, letters), window


def output_shape(contract: Contract, letters: Mapping[str, int], form: str = "") -> tuple[int, ...] | None:
    """The shape of the output in the contract's form, or in another; None while a letter is unknown."""
    sizes = [value_of(term, letters) for term in PORT_FORMS[form or contract.output.form].shape.split()]
    return None if None in sizes else tuple(size for size in sizes if size is not None)


def level_starts(shapes: np.ndarray) -> np.ndarray:
    """Where each level begins: (L, 2) → (L) int64."""
    return np.concatenate([[0], np.cumsum(shapes.astype(np.int64).prod(1))[:-1]]).astype(np.int64)


def constant_in(value: ir.Value, what: str) -> np.ndarray:
    """A constant, behind Cast and Identity too. ModelFileError where it is computed."""
    source = value
    while (node := source.producer()) is not None and not node.domain and node.op_type in ("Cast", "Identity"):
        assert node.inputs[0] is not None
        source = node.inputs[0]
    tensor = ir.convenience.get_const_tensor(source)
    if tensor is None:
        fix = "fold the constants of the file first"
        raise ModelFileError(what, expected="a constant", got=f"the computed value {value.name}", fix=fix)
    return tensor.numpy()


def _solved(node: ir.Node, contract: Contract, values: Mapping[str, ir.Value], known: Mapping[str, int]) -> dict[str, int]:
    """The letters that values, by their form, tell beside the known ones. ModelFileError where shapes contradict each other."""
    where = title_of(node, contract)
    found = []
    for form, value in values.items():
        if form in SCALARS or value.shape is None or not value.shape.is_static():
            continue
        shape = PORT_FORMS[form].shape
        if len(shape.split()) != len(value.shape):
            what = f"{where}: {value.name}"
            raise ModelFileError(what, expected=f"{form} as ({', '.join(shape.split())})", got=str(list(value.shape.numpy())))
        found.append((shape, value.shape.numpy()))
    letters, conflicts = solve(found, known)
    if conflicts:
        raise ModelFileError(f"{where}: shapes", expected=f"sizes as {contract.title} has them", got=conflicts[0])
    return letters


def _dtype(name: str) -> str:
    return {"float32": "float"}.get(name, name)
