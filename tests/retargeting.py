"""Files to retarget, retargeting them, and looking at what came out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from occport.commands import retarget as command
from occport.graph import dialect
from occport.graph.retargeting.retarget import Result, Wish, retarget
from occport.graph.rewrite import to_dialect
from occport.graph.twin import proto_to_twin
from occport.progress import NullProgress
from small_graphs import network, run, with_bodies


def write_small(folder: Path, name: str, opset: int = 17) -> Path:
    """Writes the small network in a dialect; returns the path."""
    model, _ = network()
    to_dialect(model, dialect.load(name), opset, functions=False)
    path = folder / f"{name}.onnx"
    onnx.save(ir.to_proto(model), path)
    return path


def convert(source: Path, to: str, **wish: Any) -> tuple[Path, Result]:
    """Retargets a file; the new one, beside it, and what was said of it."""
    target = source.with_name(f"{source.stem}_as_{Path(to).stem}.onnx")
    return target, retarget(source, target, Wish(to, **wish), NullProgress())


def values(path: Path, name: str, feeds) -> np.ndarray:
    """The file's output in ONNX Runtime, with bodies in memory."""
    proto = onnx.load(path)
    target = dialect.load(name)
    proto_to_twin(proto, target)
    return run(with_bodies(ir.from_proto(proto), target), feeds)[0]


def custom(path: Path) -> list[tuple[object, ...]]:
    """Custom nodes with attributes; inputs and outputs by name, constants by value."""
    graph = onnx.load(path).graph
    known = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
    known |= {node.output[0]: numpy_helper.to_array(node.attribute[0].t).tolist() for node in graph.node if node.op_type == "Constant"}
    found = []
    for node in graph.node:
        if not onnx.defs.has(node.op_type, domain=node.domain):
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            inputs = [str(known.get(name, name)) for name in node.input]
            found.append((node.name, node.domain, node.op_type, inputs, attributes, list(node.output)))
    return found


def options_of(*words: str) -> argparse.Namespace:
    """The flags of the command."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)
