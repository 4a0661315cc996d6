"""ONNX files of hundreds of megabytes, written and read without a second copy of the weights in memory.

Writing: the message is serialised without its big tensors, whose bytes are then streamed one by one to their places in it.
Reading: a *skeleton* is the model with each big tensor turned into external data that points back into the very same file, so that
the graph can be looked at and changed in a few megabytes, and run by ONNX Runtime with the bytes on disk.
"""

from __future__ import annotations

import difflib
import hashlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import IO

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from onnx import TensorProto, helper, numpy_helper

from ..errors import ExportError, ModelFileError
from .wire import BIG, GRAPH_INITIALIZER, MODEL_GRAPH, TENSOR_RAW_DATA, WireError, length_prefix, point_to_file, skeleton_of, split_at

MAX_FILE = 2**31 - 1  # bytes; protobuf readers refuse a longer message
_ANEW = "export it again or copy it anew"
_ALIGNMENT = 64  # bytes, a cache line: external data are memory-mapped by runtimes


_Piece = bytes | ir.TensorProtocol  # of a file: bytes as they are, or a tensor whose raw bytes belong there


def write_model(model: ir.Model, path: Path, *, external_data: bool = False) -> None:
    """Writes `model` as one ONNX file, or with `external_data` as a file and its weights in `<name>.data` beside it.

    A single file that would pass 2 GiB - 1 becomes two as well. Initializers of the main graph above 1 KiB are asked for their bytes
    one at a time, so that lazy and torch-backed tensors cost no second copy; everything else is serialised in memory. The same model
    gives the same bytes. `model` is as before when this returns or fails. Write into a `Staging`: a failure leaves part of a file.

    Errors: ExportError when the file cannot be written (full disk, no such folder), or would overwrite the weights it is read from.
    """
    data_path = path.with_name(path.name + ".data")
    _refuse_own_source(model, (path, data_path))
    with _weights_set_aside(model) as weights:
        proto = ir.serde.serialize_model(model)
    pieces: list[_Piece] = [] if external_data else _single_file(proto, weights)
    try:
        if external_data or sum(_length(piece) for piece in pieces) > MAX_FILE:
            _write_pieces(_data_file(proto, weights, data_path.name), data_path)
            pieces = [proto.SerializeToString(deterministic=True)]
        _write_pieces(pieces, path)
    except OSError as error:
        raise ExportError(
            f"model file {path}", expected="a place that can be written to", got=error.strerror or str(error),
            fix="free some space or choose another folder",
        ) from error


def _refuse_own_source(model: ir.Model, targets: tuple[Path, ...]) -> None:
    taken = {target.resolve() for target in targets}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and Path(tensor.path).resolve() in taken:
            raise ExportError(
                f"model file {tensor.path}", got=f"weights ({value.name}) that are still read from it", fix="write to another name",
            )


@contextmanager
def _weights_set_aside(model: ir.Model) -> Iterator[dict[str, ir.TensorProtocol]]:
    """Big initializers by name; in the model each is an empty external tensor meanwhile, which serialises without its bytes."""
    aside: dict[str, ir.TensorProtocol] = {}
    try:
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            assert tensor is not None, f"initializer {name} has no value"
            # Small external tensors too: the file that they lie in does not travel with this one.
            if tensor.dtype != ir.DataType.STRING and (tensor.nbytes > BIG or isinstance(tensor, ir.ExternalTensor)):
                aside[name] = tensor
                value.const_value = ir.ExternalTensor(
                    "", None, None, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name, doc_string=tensor.doc_string,
                    metadata_props=dict(tensor.metadata_props),
                )
        yield aside
    finally:
        for name, tensor in aside.items():
            model.graph.initializers[name].const_value = tensor


def _single_file(proto: onnx.ModelProto, weights: dict[str, ir.TensorProtocol]) -> list[_Piece]:
    """The file as a row of byte strings and of tensors whose raw bytes belong there. `proto` is left as it is."""
    graph_pieces: list[_Piece] = []
    for source in proto.graph.initializer:
        tensor = TensorProto()
        tensor.CopyFrom(source)
        if tensor.name not in weights:
            body = tensor.SerializeToString(deterministic=True)
            graph_pieces.append(length_prefix(GRAPH_INITIALIZER, len(body)) + body)
            continue
        weight = weights[tensor.name]
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        before, after = split_at(tensor.SerializeToString(deterministic=True), TENSOR_RAW_DATA)
        before += length_prefix(TENSOR_RAW_DATA, weight.nbytes)
        length = len(before) + weight.nbytes + len(after)
        graph_pieces += [length_prefix(GRAPH_INITIALIZER, length) + before, weight, after]
    rest = onnx.ModelProto()
    rest.CopyFrom(proto)
    rest.graph.ClearField("initializer")
    graph_head, graph_tail = split_at(rest.graph.SerializeToString(deterministic=True), GRAPH_INITIALIZER)
    rest.ClearField("graph")
    head, tail = split_at(rest.SerializeToString(deterministic=True), MODEL_GRAPH)
    length = len(graph_head) + sum(_length(piece) for piece in graph_pieces) + len(graph_tail)
    return [head + length_prefix(MODEL_GRAPH, length) + graph_head, *graph_pieces, graph_tail + tail]


def _data_file(proto: onnx.ModelProto, weights: dict[str, ir.TensorProtocol], location: str) -> list[_Piece]:
    """The data file as a row of pieces; sets location, offset and length of each weight in `proto`."""
    pieces: list[_Piece] = []
    place = 0
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            weight = weights[tensor.name]
            gap = -place % _ALIGNMENT
            point_to_file(tensor, location, place + gap, weight.nbytes)
            pieces += [bytes(gap), weight]
            place += gap + weight.nbytes
    return pieces


def _length(piece: _Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.nbytes


class _Sink:
    """A file that counts. Without a `fileno`, or NumPy would write past Python, and report a full disk without saying so."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def write(self, data: bytes) -> int:
        size = memoryview(data).nbytes
        self._file.write(data)
        self.count += size
        return size


def _write_pieces(pieces: list[_Piece], path: Path) -> None:
    with path.open("wb") as file:
        sink = _Sink(file)
        for piece in pieces:
            expected = sink.count + _length(piece)
            if isinstance(piece, bytes):
                sink.write(piece)
            else:
                tofile = getattr(piece, "tofile", None)  # not every tensor has it; it spares a copy where the bytes lie ready in memory
                tofile(sink) if tofile else sink.write(piece.tobytes())
            assert sink.count == expected, f"{piece!r} is {_length(piece)} bytes and wrote {sink.count - expected} more"


def read_skeleton(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file of any origin without its big tensors.

    Each initializer of the main graph with more than 1 KiB of raw data becomes external data in this same file (location = its name,
    offset and length in bytes, not aligned). Initializers with typed fields (`float_data`) or external data, nodes, functions and
    metadata stay as they are.

    Errors: ModelFileError where there is no file, or one that is empty, truncated or no ONNX model.
    """
    try:
        if path.stat().st_size == 0:
            raise ModelFileError(f"model file {path}", expected="an ONNX model", got="an empty file", fix=_ANEW)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:24].startswith(b"version https://git-lfs"):
                raise ModelFileError(f"model file {path}", expected="an ONNX model", got="a Git LFS pointer", fix="run `git lfs pull`")
            model = skeleton_of(data, path.name)
    except OSError as error:
        got = error.strerror or str(error)
        raise ModelFileError(f"model file {path}", expected="an ONNX model", got=got, fix="check the path") from error
    except (WireError, DecodeError) as error:
        got = f"damaged or other data ({error})"
        raise ModelFileError(f"model file {path}", expected="an ONNX model", got=got, fix=_ANEW) from error
    # A text or an image can look like a message of unknown fields, and a cut at a field's end like a whole one.
    missing = [name for name in ("ir_version", "graph") if not model.HasField(name)]
    missing += [] if model.opset_import else ["opset_import"]
    if missing:
        raise ModelFileError(f"model file {path}", expected="an ONNX model", got=f"data without {', '.join(missing)}", fix=_ANEW)
    return model


def tensor_of(skeleton: onnx.ModelProto, name: str, folder: Path) -> np.ndarray:
    """The initializer `name` as an array of its ONNX dtype (bfloat16, float8 and 4-bit types through ml_dtypes).

    External data are looked for in `folder` and memory-mapped read-only, so that only the pages that are touched are read; their array
    need not be aligned to its item size.

    Errors: ModelFileError for an unknown name, and for external data that are missing, too short or outside `folder`.
    """
    for tensor in skeleton.graph.initializer:
        if tensor.name == name:
            return _array(tensor, folder)
    names = [tensor.name for tensor in skeleton.graph.initializer]
    near = difflib.get_close_matches(name, names, n=1)
    fix = f"did you mean {near[0]!r}?" if near else ""
    raise ModelFileError(f"initializer {name!r}", expected=f"one of the {len(names)} of the graph", got="an unknown name", fix=fix)


def iter_initializers(skeleton: onnx.ModelProto, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and array of every initializer of the main graph in file order; arrays and errors as in `tensor_of`."""
    for tensor in skeleton.graph.initializer:
        yield tensor.name, _array(tensor, folder)


def stays_inside(location: str) -> bool:
    """True where an external data location, on any system, names a file in or under the model's own folder."""
    path = PureWindowsPath(location)  # takes / and \\ as separators, so that neither hides a step upwards
    return bool(location) and not path.is_absolute() and not path.root and not path.drive and ".." not in path.parts


def _array(tensor: TensorProto, folder: Path) -> np.ndarray:
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not stays_inside(location):
        raise ModelFileError(
            f"initializer {tensor.name!r}", expected="external data inside the model's folder", got=f"location {location!r}", fix=_ANEW,
        )
    path = folder / location
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    count = int(np.prod(tensor.dims, dtype=np.int64))
    bits = ir.DataType(tensor.data_type).bitwidth
    offset, length = int(entries.get("offset", 0)), -(-count * bits // 8)
    found = path.stat().st_size - offset if path.is_file() else -1
    if found < length:
        expected = f"{length} bytes from offset {offset} for {tensor.name!r}"
        got = str(max(found, 0)) if path.is_file() else "no such file"
        raise ModelFileError(f"external data {path}", expected=expected, got=got, fix=_ANEW)
    if length == 0:
        return np.empty(tuple(tensor.dims), dtype)
    raw: np.ndarray = np.asarray(np.memmap(path, np.uint8, "r", offset, (length,)))
    if bits < 8:  # several values in a byte: NumPy cannot view them, onnx unpacks a copy
        packed = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw.tobytes())
        return numpy_helper.to_array(packed)
    return raw.view(dtype).reshape(tuple(tensor.dims))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal, read in small pieces. Errors: ModelFileError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        got = error.strerror or str(error)
        raise ModelFileError(f"file {path}", expected="a file that can be read", got=got, fix="check the path") from error
