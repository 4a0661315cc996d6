"""Exports for tests: the command line in this process, traces that are made once, files that are spoilt on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from torch import Tensor, nn

from occport.checkpoint import fingerprint
from occport.cli import main
from occport.config import read_config
from occport.export import pipeline, trace
from occport.export.report import Report
from occport.export.request import Loaded, Request, load_input, make_spec
from occport.export.spec import Spec, from_json
from occport.export.subject import Subject
from occport.export.weights import load_model
from occport.graph.model_file import read_skeleton, sha256_of, tensor_of
from occport.model.surroundocc import SurroundOcc
from occport.progress import NullProgress

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests/tiny.py"
MICRO = ROOT / "projects/configs/surroundocc/surroundocc_micro.py"
STAGE = re.compile(r"^\[\d+/\d+\] ")


class Ran(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Stderr without the lines of the stages."""
        return [line for line in self.err.splitlines() if not STAGE.match(line)]


def run_cli(*arguments: object) -> Ran:
    """The command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Ran(status, out.getvalue(), err.getvalue())


def assert_refused(ran: Ran, fragment: str) -> str:
    """Asserts exit status 2 with one line that holds the fragment, and no traceback; returns the line."""
    assert ran.status == 2, (ran.out, ran.err)
    assert "Traceback" not in ran.err + ran.out
    assert len(ran.lines) == 1, ran.err
    (line,) = ran.lines
    assert line.startswith("occport: ") and len(line) < 1000
    assert fragment in line, line
    return line


def contents(folder: Path) -> dict[str, str] | None:
    """Every file below a folder with its SHA-256, folders with "", links with their target; None where there is no folder."""
    if not folder.exists():
        return None
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found


class TraceOnce:
    """Stands in for `export.build.trace`: the first call with some network and settings is the real one, others get a copy."""

    def __init__(self) -> None:
        self._real = trace.trace
        self._graphs: dict[object, ir.Model] = {}

    def __call__(self, entry: nn.Module, inputs: Sequence[Tensor], input_names: Sequence[str], output_names: Sequence[str]) -> ir.Model:
        plain = {name: value for name, value in vars(entry).items() if not name.startswith("_")}
        network = [repr(module.config) for module in entry.modules() if isinstance(module, SurroundOcc)]
        values = fingerprint({**dict(entry.named_parameters()), **dict(entry.named_buffers())})
        key = (type(entry).__name__, repr(plain), *network, values, *input_names, *output_names)
        if key not in self._graphs:
            self._graphs[key] = self._real(entry, inputs, input_names, output_names)
        return self._graphs[key].clone()


@dataclass(frozen=True)
class Exported:
    """A file that was exported through the command line."""

    model: Path
    manifest: dict[str, Any]
    ran: Ran

    @property
    def geometry(self) -> Path | None:
        """The geometry file of a `tables` export."""
        path = self.model.with_suffix(".geometry.onnx")
        return path if path.exists() else None

    @property
    def skeleton(self) -> onnx.ModelProto:
        """The file without its weights."""
        return read_skeleton(self.model)


def export(folder: Path, *flags: object, config: Path = TINY) -> Exported:
    """Exports the tiny network, which must go well."""
    ran = run_cli("export", "--config", config, "--output-dir", folder, *flags)
    assert ran.status == 0, (ran.out, ran.err)
    manifests = list(folder.glob("*.json"))
    assert len(manifests) == 1
    return Exported(manifests[0].with_suffix(".onnx"), json.loads(manifests[0].read_text()), ran)


@dataclass(frozen=True)
class Network:
    """The tiny network with seeded weights and its frame, as an export has them."""

    model: SurroundOcc
    spec: Spec
    loaded: Loaded


def seeded_network(config: Path = TINY) -> Network:
    """The network of a plain export."""
    request = Request(config=read_config(config))
    loaded = load_input(request.config, None)
    spec = make_spec(request, loaded)
    model, _, _ = load_model(spec.config, None, 0)
    return Network(model, spec, loaded)


Change = Callable[[onnx.ModelProto], None]


def spoilt(good: Exported, name: str, change: Change) -> Path:
    """A changed copy of a file beside it, with its manifest and the right SHA-256 in it; the weights stay in the good file."""
    proto = onnx.ModelProto()
    proto.CopyFrom(good.skeleton)
    before = proto.SerializeToString(deterministic=True)
    change(proto)
    assert proto.SerializeToString(deterministic=True) != before, "nothing was changed"
    path = good.model.with_name(f"{re.sub(r'[^a-z0-9]+', '_', name)}.onnx")
    onnx.save(proto, path)
    write_manifest(good, path)
    return path


def write_manifest(good: Exported, path: Path) -> None:
    """Puts the good file's manifest beside another one, whose hash it then has: verification must look further."""
    table = json.loads(json.dumps(good.manifest))
    table["files"]["model"].update(file=path.name, sha256=sha256_of(path))
    path.with_suffix(".json").write_text(json.dumps(table))


def failures(good: Exported, path: Path, network: Network, *, following: bool = False) -> list[str]:
    """The checks that a file fails in verification proper, with the network at hand; `following`: with other rigs and images too."""
    spec = from_json(good.manifest["spec"])
    report = Report(lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        if not following:
            patch.setattr(pipeline, "_check_others", lambda *arguments, **named: None)
        pipeline.verify(Subject(spec, path, good.geometry), network.model, network.loaded, report, NullProgress())
    return report.failures


def node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """A node by name."""
    (found,) = (node for node in proto.graph.node if node.name == name)
    return found


def first(proto: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    """The first node of a kind."""
    return next(node for node in proto.graph.node if node.op_type == op_type)


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    """An attribute by name."""
    (found,) = (attribute for attribute in node.attribute if attribute.name == name)
    return found


def edit_initializer(proto: onnx.ModelProto, name: str, folder: Path, change: Callable[[np.ndarray], None]) -> None:
    """Changes the values of an initializer in place. `folder` is where its weights are."""
    array = tensor_of(proto, name, folder).copy()
    change(array)
    (place,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    place.CopyFrom(onnx.numpy_helper.from_array(array, name))
