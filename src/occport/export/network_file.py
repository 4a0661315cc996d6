"""A file to be run and looked into, with all that takes: its dialect, and an array for each of its inputs.

Beside an export stands its manifest, which tells the dialect, the frame and the rig. Any other file is read by a dialect that the user
names, and fed with arrays of the user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..errors import ExportError, FrameError, ModelFileError, UserError
from ..graph.dialect import Dialect, load
from ..graph.model_file import read_skeleton
from ..graph.precision.dialect import in_precision
from ..graph.retargeting.foreign_file import custom_names, named, read_foreign, with_shapes
from ..graph.twin import proto_to_twin
from .manifest import read_manifest
from .request import load_input
from .spec import Spec, from_json
from .subject import Subject

_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_PLAIN = "standard"  # the dialect without custom nodes


@dataclass(frozen=True)
class NetworkFile:
    """A model on disk.

    Attributes:
        path: the file.
        model: its skeleton (weights stay on disk), all values typed; nodes of an empty-domain dialect stand in their twin's domain.
        dialect: of its custom nodes; it has contracts.
        opset: of ONNX's own domain.
        manifest: what an export wrote beside it; None for a file of another origin.
    """

    path: Path
    model: onnx.ModelProto
    dialect: Dialect
    opset: int
    manifest: Mapping[str, Any] | None

    @property
    def spec(self) -> Spec | None:
        """What the file was to be; None for a file of another origin. Errors: ModelFileError for a manifest that has been changed."""
        return from_json(self.manifest["spec"]) if self.manifest is not None else None

    @property
    def folder(self) -> Path:
        """Where its weights lie."""
        return self.path.parent

    @property
    def input_names(self) -> list[str]:
        """The inputs that a run must be fed with."""
        constant = {tensor.name for tensor in self.model.graph.initializer}
        return [info.name for info in self.model.graph.input if info.name not in constant]


def read_network(path: Path, dialect: str | None, *, standard: bool = False) -> NetworkFile:
    """Reads a model file.

    Args:
        path: an ONNX file with custom nodes.
        dialect: name or file of its dialect, needed where no manifest stands beside the file.
        standard: a file of standard operators alone is fine, too; of another origin it needs no dialect then.

    Raises:
        ModelFileError: no such file, no ONNX model, no manifest and no dialect, custom nodes of another dialect, or a branch or a loop.
        ExportError: the dialect is unknown, not the manifest's, or has no custom nodes.
    """
    if not path.is_file():
        raise ModelFileError(f"model file {path}", expected="an ONNX file", got="no such file", fix="check the path")
    if path.with_suffix(".json").is_file():
        return _exported(path, dialect, standard)
    skeleton = read_skeleton(path)
    _refuse_inner_graphs(skeleton, path)
    if standard and dialect in (None, _PLAIN) and not custom_names(skeleton.graph):
        return _plain(path)
    if dialect is None:
        fix = "name it with --dialect; a command that runs the file needs an array for each input, too (--inputs)"
        raise ModelFileError(f"dialect of {path}", expected="a manifest beside it that tells", got="none", fix=fix)
    with _flag_named():
        foreign = read_foreign(path, dialect)
    return NetworkFile(path, foreign.model, foreign.dialect, foreign.opset, None)


def _refuse_inner_graphs(model: onnx.ModelProto, path: Path) -> None:
    """What runs inside of a branch or a loop reads values of the main graph without a port: cuts, counts and walks would miss that."""
    for node in model.graph.node:
        if any(attribute.type in _GRAPHS for attribute in node.attribute):
            name = node.name or next(filter(None, node.output), "without a name")
            got, fix = f"a graph inside {node.op_type} {name}", "export it without branches and loops"
            raise ModelFileError(f"model file {path}", expected="all nodes in the main graph", got=got, fix=fix)


def _plain(path: Path) -> NetworkFile:
    """A file of another origin without custom nodes."""
    dialect, model = load(_PLAIN), read_skeleton(path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    return NetworkFile(path, with_shapes(model, dialect, path.parent, str(path)), dialect, opset, None)


def _exported(path: Path, dialect: str | None, standard: bool) -> NetworkFile:
    manifest = read_manifest(path)
    spec = from_json(manifest["spec"])
    if dialect is not None and named(dialect, "--dialect").name != spec.dialect.name:
        fix = "leave --dialect out; `occport retarget` makes a file for another target"
        raise ExportError(f"--dialect {dialect}", expected=f"{spec.dialect.name}, as the manifest of {path.name} says", fix=fix)
    if spec.dialect.msda is None and not standard:
        fix = "export for another dialect"
        raise ExportError(f"model file {path}", expected="a dialect with custom nodes", got=spec.dialect.name, fix=fix)
    model = read_skeleton(path)
    _refuse_inner_graphs(model, path)
    proto_to_twin(model, spec.dialect)
    return NetworkFile(path, model, in_precision(spec.dialect, spec.precision), spec.opset, manifest)


@contextmanager
def _flag_named() -> Iterator[None]:
    """Errors of the reader speak of `--from`, which is retarget's name for what is `--dialect` here."""
    try:
        yield
    except UserError as error:
        what, fix = (text.replace("--from", "--dialect") for text in (error.what, error.fix))
        raise type(error)(what, expected=error.expected, got=error.got, fix=fix) from error


def feeds_of(file: NetworkFile, frame: str | None, inputs: Path | None) -> tuple[dict[str, np.ndarray], str]:
    """An array for each input of the file.

    Args:
        frame: a frame as `occport export` takes it; None: the frame of the export. Only for files with a manifest.
        inputs: a folder with NAME.npy for each input; None: they are made from the frame.

    Returns:
        Input name → array, and where they are from in words.

    Raises:
        FrameError: a frame that cannot be read, or of another image size than the file's.
        ModelFileError: an array is missing, or cannot be read.
    """
    if inputs is not None:
        if frame is not None:
            raise FrameError("--frame and --inputs", expected="one of them", got="both", fix="leave one out")
        return {name: _array(file, inputs, name) for name in file.input_names}, f"the arrays in {inputs.name}"
    if file.manifest is None:
        expected = f"--inputs FOLDER with {', '.join(f'{name}.npy' for name in file.input_names)}"
        fix = "no manifest stands beside it, so that frames do not fit"
        raise ModelFileError(f"inputs of {file.path}", expected=expected, got="none" if frame is None else "--frame", fix=fix)
    return _from_frame(file, file.manifest, frame)


def _array(file: NetworkFile, folder: Path, name: str) -> np.ndarray:
    path = folder / f"{name}.npy"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        fix = f"the folder needs one for each input: {', '.join(file.input_names)}"
        raise ModelFileError(f"{path}", expected=f"the array of input {name}", got=got, fix=fix) from error
    if not isinstance(found, np.ndarray):
        raise ModelFileError(f"{path}", expected=f"the array of input {name}", got="an npz archive", fix="save it with numpy.save")
    return found


def _from_frame(file: NetworkFile, manifest: Mapping[str, Any], frame: str | None) -> tuple[dict[str, np.ndarray], str]:
    spec, origin = from_json(manifest["spec"]), manifest["frame"]
    wanted = frame if frame is not None else origin["spec"]
    if frame is None and wanted is not None and not Path(wanted.split(":")[0]).exists():
        raise FrameError(f"frame {wanted}", expected="the frame of the export", got="none", fix="give --frame")
    loaded = load_input(spec.config, wanted, origin["seed"])
    if loaded.img.shape[-2:] != spec.image_hw:
        got = str(loaded.img.shape[-2:])
        raise FrameError("the frame's padded image size", expected=str(spec.image_hw), got=got, fix="the file is made for one size")
    feeds = {"img": loaded.img.reshape(spec.input_shapes()["img"][1])}
    if spec.calibration == "runtime":
        feeds["lidar2img"] = loaded.lidar2img.reshape(spec.input_shapes()["lidar2img"][1])
    if spec.calibration == "tables":
        feeds.update(_tables(file, manifest, loaded.lidar2img))
    return {spec.renamed(name): array for name, array in feeds.items()}, f"frame {loaded.frame.name}"


def _tables(file: NetworkFile, manifest: Mapping[str, Any], lidar2img: np.ndarray) -> dict[str, np.ndarray]:
    entry = manifest["files"].get("geometry")
    geometry = file.path.parent / entry["file"] if entry else None
    if geometry is None or not geometry.is_file():
        got = "none" if geometry is None else f"no {geometry.name}"
        raise ModelFileError(f"geometry file of {file.path}", expected="the one of the export", got=got, fix="keep the files together")
    tables = Subject(from_json(manifest["spec"]), file.path, geometry).tables(lidar2img)
    del tables["dropped"]
    return tables
