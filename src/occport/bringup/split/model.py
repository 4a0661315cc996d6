"""A part as an ONNX file: the very nodes and weights, self-contained, in the form in which the whole stands on disk."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from ...errors import ExportError
from ...export.network_file import NetworkFile
from ...graph.bodies.body import default_form
from ...graph.functions import OPSETS_IN_FILES, Arithmetics
from ...graph.model_file import write_model
from ...graph.precision.emulate import is_low
from ...graph.runnable import make_runnable
from ...graph.submodel import submodel
from ...graph.twin import checkable, from_twin
from .parts import Part


def arithmetics_in_files(file: NetworkFile) -> Arithmetics:
    """Of the bodies that can stand in this file's parts.

    Errors: ExportError for a dialect, an opset or a precision whose files can have none, and for a file without custom nodes.
    """
    dialect, opset = file.dialect, file.opset
    if dialect.msda is None and dialect.dcn is None:
        fix = "leave --functions out: the parts run as they are"
        raise ExportError("--functions", expected="a file with custom nodes", got=dialect.name, fix=fix)
    if dialect.in_empty_domain:
        got, fix = f"{dialect.name}: no body can stand in ONNX's own", "leave --functions out"
        raise ExportError("--functions", expected="a dialect whose nodes have a domain", got=got, fix=fix)
    if opset not in OPSETS_IN_FILES:
        first, last = OPSETS_IN_FILES[0], OPSETS_IN_FILES[-1]
        fix = f"export with --opset {first}..{last}, or leave --functions out"
        raise ExportError("--functions", expected=f"a file of opset {first} to {last}", got=f"opset {opset}", fix=fix)
    if is_low(file.model):
        fix = "leave --functions out"
        raise ExportError("--functions", expected="a file of float32", got="one of 16 bits: bodies compute in float32", fix=fix)
    return Arithmetics(*(default_form(operator, opset) for operator in Arithmetics._fields))


def part_model(file: NetworkFile, part: Part) -> onnx.ModelProto:
    """A part in memory, with custom nodes as `file` has them there; its big weights are still where the file's are.

    Errors: ModelFileError for a tensor without a type.
    """
    return submodel(file.model, part.inputs, part.outputs, part.name)


def write_part(file: NetworkFile, part: onnx.ModelProto, path: Path, bodies: Arithmetics | None) -> None:
    """Writes a part with its own weights.

    Args:
        part: as `part_model` makes it; left as it is.
        path: the new file; parts above 2 GiB get a `.data` beside it.
        bodies: to stand in the file for its custom nodes; None: those that the whole file has, if any.

    Errors: ExportError where it cannot be written.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(part)
    if bodies is not None:
        make_runnable(proto, file.dialect, bodies)
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, file.folder)
    from_twin(model)
    used = {node.domain for node in model.graph.all_nodes()}
    for function in model.functions.values():
        used |= {node.domain for node in function.all_nodes()}
    for domain in set(model.opset_imports) - used - {"", "ai.onnx"}:  # a runtime may refuse a domain that it does not know
        del model.opset_imports[domain]
    write_model(model, path)


def objection(model: onnx.ModelProto, file: NetworkFile) -> str:
    """What ONNX's checker says against a model in the file's dialect, as a line; "" where it takes it."""
    try:
        onnx.checker.check_model(checkable(model, file.dialect), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return next(iter(str(error).strip().splitlines()), "refused without a reason")
    return ""
