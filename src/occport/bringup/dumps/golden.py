"""Writes the tensors inside a file for one frame, with an index of what each is and where in the network it stands."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ValueInfoProto, helper

from ...errors import ExportError
from ...export.network_file import NetworkFile, feeds_of, read_network
from ...graph.contract import TWIN_DOMAIN
from ...graph.model_file import sha256_of
from ...graph.names import identifier
from ...graph.stages import stages_of
from ...graph.submodel import value_types
from ...progress import Progress
from ...staging import Staging, earlier
from ..walk import walk
from .axes import axes_of, levels_of
from .formats import SUFFIXES, dtype_of, sha256_of_array, write_array
from .index import NAME, Entry, Index, index_text, read_index
from .marks import marked
from .polygraphy import ALL, FILE, PolygraphyWriter

STAGES = 3
_LONGEST_NAME = 200
_BASE64 = 4 / 3
_HEADER = 4096  # bytes of a file beside its numbers, blocks of the disk included


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        model: the file.
        folder: where the tensors go: new, empty, or one of earlier golden tensors, which are replaced.
        frame: None: that of the export.
        inputs: a folder with NAME.npy for each input.
        dialect: name or file; None: that of the manifest.
        marks: as `marks.marked` takes them.
        format: one of `formats.FORMATS`.
    """

    model: Path
    folder: Path
    frame: str | None
    inputs: Path | None
    dialect: str | None
    marks: tuple[str, ...]
    format: str


def write_golden(request: Request, progress: Progress) -> Index:
    """Writes the folder, all or nothing, from one forward of the file.

    Raises:
        UserError: the file, its dialect, its inputs, a mark or the folder cannot be used, or the disk has no room.
    """
    before = earlier(request.folder, read_index, "earlier golden tensors")
    with progress.stage(f"reading {request.model.name}"):
        file = read_network(request.model, request.dialect, standard=True)
        entries = planned(file, request.marks, request.format)
        feeds, source = feeds_of(file, request.frame, request.inputs)
    check_room(request.folder, entries, request.format)
    with Staging(request.folder) as stage:
        with progress.stage(f"running, {len(entries)} tensors, {sum(map(nbytes, entries)):,} bytes"):
            hashes = dict(_written(stage.path, walk(file, feeds, [entry.name for entry in entries]), entries, request.format))
        with progress.stage("index"):
            index = index_of(file, [_with(entry, hashes[entry.name]) for entry in entries], source, request.format, request.folder)
            (stage.path / NAME).write_text(index_text(index), encoding="utf-8")
            written = stage.commit()
            if before is not None:
                _drop(request.folder, before, written)
    return index


def planned(file: NetworkFile, marks: Sequence[str], form: str) -> list[Entry]:
    """The entries of the tensors that are marked, without hashes. Errors: as of `marks.marked`."""
    graph = file.model.graph
    types, stages, axes = value_types(graph), stages_of(graph), axes_of(file)
    makers = {name: node for node in graph.node for name in node.output}
    outputs = {info.name for info in graph.output}
    found: list[Entry] = []
    taken: set[str] = set()
    for name in marked(file, marks):
        node = makers.get(name)
        role = "output" if name in outputs else "input" if node is None else "inner"
        domain = "" if node is None or node.domain == TWIN_DOMAIN else node.domain
        op_type = "" if node is None else f"{domain}::{node.op_type}" if domain else node.op_type
        dtype, shape = _typed(types[name])
        place = FILE if form == ALL else _file_name(name, taken, SUFFIXES[form])
        stage = stages.get(name, "")
        found.append(Entry(name, node.name if node else "", op_type, stage, role, dtype, shape, axes.get(name, ()), place, ""))
    return found


def index_of(file: NetworkFile, entries: Sequence[Entry], source: str, form: str, folder: Path | None = None) -> Index:
    """The index of a folder of a file's tensors."""
    levels = [level for _, level in sorted(levels_of(file).items())]
    grids = tuple(level.grid for level in levels if level.grid is not None)
    cameras = tuple(file.manifest["frame"]["cameras"]) if file.manifest is not None else ()
    slots = tuple(level.slots for level in levels)
    place = Path(os.path.relpath(file.path, folder)).as_posix() if folder is not None else ""
    return Index(file.path.name, sha256_of(file.path), file.dialect.name, source, form, tuple(entries), slots, grids, cameras, place)


def nbytes(entry: Entry) -> int:
    """Bytes of a tensor."""
    return int(np.prod(entry.shape, dtype=np.int64)) * (2 if entry.dtype == "bfloat16" else np.dtype(entry.dtype).itemsize)


def check_room(folder: Path, entries: Sequence[Entry], form: str) -> None:
    """ExportError where the disk cannot hold the tensors."""
    probe = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    needed = int(sum(map(nbytes, entries)) * (_BASE64 if form == ALL else 1)) + _HEADER * len(entries)
    free = shutil.disk_usage(probe).free
    if needed > free:
        fix = "free some space, choose another folder, or mark fewer tensors"
        raise ExportError(f"folder {folder}", expected=f"{needed:,} bytes of free disk", got=f"{free:,}", fix=fix)


def _written(
    folder: Path, tensors: Iterator[tuple[str, np.ndarray]], entries: Sequence[Entry], form: str
) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Writes the tensors as they come, and yields (name, hash)."""
    places: Mapping[str, str] = {entry.name: entry.file for entry in entries}
    dtypes = {entry.name: dtype_of(entry.dtype) for entry in entries}
    tensors = ((name, array.astype(dtypes[name], copy=False)) for name, array in tensors)  # 16 bits have been float32, rounded
    if form == ALL:
        with PolygraphyWriter(folder / FILE) as writer:
            for name, array in tensors:
                writer.add(name, array)
                yield name, sha256_of_array(array)
        return
    for name, array in tensors:
        write_array(folder / places[name], array, name, form)
        yield name, sha256_of_array(array)


def _typed(info: ValueInfoProto) -> tuple[str, tuple[int, ...]]:
    tensor = info.type.tensor_type
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name, tuple(dim.dim_value for dim in tensor.shape.dim)


def _file_name(name: str, taken: set[str], suffix: str) -> str:
    """A name that every file system takes; the tensor's own where that is one."""
    stem = identifier(name)[:_LONGEST_NAME]
    found, number = stem, 1
    while found.lower() in taken:
        found, number = f"{stem}_{number}", number + 1
    taken.add(found.lower())
    return found + suffix


def _with(entry: Entry, sha256: str) -> Entry:
    return Entry(**{**vars(entry), "sha256": sha256})


def _drop(folder: Path, before: Index, written: Sequence[Path]) -> None:
    """Removes files of earlier tensors that have not been written anew; nothing of the user's."""
    for entry in before.tensors:
        path = folder / entry.file
        if path not in written and path.parent == folder:
            with suppress(FileNotFoundError):
                path.unlink()
