"""Writes the parts of a file as ONNX backend tests, when running them one after another has given what the whole gives."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper

from ...errors import ExportError, VerificationFailed
from ...export.network_file import NetworkFile, feeds_of, read_network
from ...graph.model_file import MAX_FILE, iter_initializers, read_skeleton, sha256_of
from ...graph.submodel import value_types
from ...progress import Progress
from ...staging import Staging, earlier
from ..dumps.golden import index_of, planned
from ..dumps.index import NAME, Index, index_text
from ..dumps.marks import named_tensors
from .backend_test import DataWriter, Stored
from .chain import Link, Runner, as_declared, differences, watched_floats
from .model import arithmetics_in_files, objection, part_model, write_part
from .parts import BETWEEN, Part, chosen, part_between, stage_parts
from .place import MODEL, PARTS, Parts, Record, drop_earlier, folder_of, parts_text, read_parts

STAGES = 5
ALL_STAGES = "stages"
_HEADER = 4096  # bytes of a file beside its numbers, blocks of the disk included


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        model: the file.
        folder: where the parts go: new, empty, or one of earlier parts, which are replaced.
        parts: names of parts, or "stages" for all; () where the part is told by its ends.
        begin, end: tensors; () with `parts`.
        frame: None: that of the export.
        inputs: a folder with NAME.npy for each input.
        dialect: name or file; None: that of the manifest.
        functions: put bodies into the parts.
        arrays: write each tensor between parts as NAME.npy, too.
    """

    model: Path
    folder: Path
    parts: tuple[str, ...] = (ALL_STAGES,)
    begin: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    frame: str | None = None
    inputs: Path | None = None
    dialect: str | None = None
    functions: bool = False
    arrays: bool = False


class Plan(NamedTuple):
    """How a file is cut: all parts in the order in which they run, and the names of those that are asked for."""

    parts: tuple[Part, ...]
    wanted: frozenset[str]

    @property
    def written(self) -> list[Part]:
        """The parts that are asked for."""
        return [part for part in self.parts if part.name in self.wanted]


def planned_parts(file: NetworkFile, parts: Sequence[str], begin: Sequence[str], end: Sequence[str]) -> Plan:
    """How a file is to be cut. Arguments: as of `Request`.

    Errors: ModelFileError for names that the file does not have, and ends that do not fit; ExportError for parts and ends at once.
    """
    if (begin or end) and parts:
        got, fix = f"--parts {' '.join(parts)}, too", "leave one out"
        raise ExportError("--from and --to", expected="a part by its ends, or parts by their names", got=got, fix=fix)
    if begin or end:
        return Plan(tuple(part_between(file, begin, end)), frozenset({BETWEEN}))
    found = stage_parts(file)
    return Plan(tuple(found), frozenset(part.name for part in chosen(found, parts)))


def write_parts(request: Request, progress: Progress) -> Parts:
    """Writes the folder, all or nothing.

    Raises:
        UserError: the file, its dialect, its inputs, a name or the folder cannot be used, or the disk has no room.
        VerificationFailed: the parts do not make up the whole.
    """
    before = earlier(request.folder, read_parts, "earlier parts")
    with progress.stage(f"reading {request.model.name}"):
        file = read_network(request.model, request.dialect, standard=True)
        for _ in iter_initializers(file.model, file.folder):
            pass  # looks at each: weights that are missing are found here, not while others are written
        plan = planned_parts(file, request.parts, request.begin, request.end)
        bodies = arithmetics_in_files(file) if request.functions else None
        models = {part.name: part_model(file, part) for part in plan.parts}
        _check_room(request, file, plan, models)
        feeds, source = feeds_of(file, request.frame, request.inputs)
        feeds = as_declared(file.model.graph.input, feeds)
    with Staging(request.folder) as stage:
        with progress.stage(f"writing {len(plan.written)} of {len(plan.parts)} parts"):
            for part in plan.written:
                folder = stage.path / folder_of(part.name)
                folder.mkdir()
                write_part(file, models[part.name], folder / MODEL, bodies)
            links = [_link(part, models[part.name], file, stage.path if part.name in plan.wanted else None) for part in plan.parts]
            failures = [line for link in links for line in _objections(file, link)]
        data = DataWriter(stage.path, plan.wanted, request.arrays)
        same_bits = not failures and _same_bits(Runner(file, bodies), links, feeds, data, progress, failures)
        for line in failures:
            progress.say(f"FAILED {line}")
        if failures:
            raise VerificationFailed(failures)
        with progress.stage("index"):
            index = _index(file, data.stored, source)
            (stage.path / NAME).write_text(index_text(index), encoding="utf-8")
            records = tuple(_record(link) for link in links if link.part.name in plan.wanted)
            names = tuple(f"{name}.npy" for name in data.stored) if request.arrays else ()
            parts = Parts(index.model, index.model_sha256, index.dialect, file.opset, request.functions, source, same_bits, records, names)
            (stage.path / PARTS).write_text(parts_text(parts), encoding="utf-8")
            written = stage.commit()
            if before is not None:
                drop_earlier(request.folder, before, written)
    return parts


def _link(part: Part, model: ModelProto, file: NetworkFile, folder: Path | None) -> Link:
    """A part that is run from its own file, or, without a folder of parts, from the file of the whole."""
    if folder is None:
        return Link(part, model, file.folder)
    own = folder / folder_of(part.name)
    return Link(part, read_skeleton(own / MODEL), own)


def _objections(file: NetworkFile, link: Link) -> list[str]:
    """What ONNX's checker says against a part, unless it has the like to say against the whole."""
    line = objection(link.model, file)
    return [f"{link.part.name}, onnx.checker: {line}"] if line and not objection(file.model, file) else []


def _same_bits(
    runner: Runner, links: Sequence[Link], feeds: dict[str, np.ndarray], data: DataWriter, progress: Progress, failures: list[str]
) -> bool:  # fmt: skip
    """Whether the parts give the whole's bits as ONNX Runtime runs them by default. Where they do not, with every operator run by itself
    they must: else there is a line in `failures` for each tensor."""
    watched = watched_floats(runner.file.model.graph)
    with progress.stage("running the parts"):
        got = runner.chain(links, feeds, watched, data.write)
    with progress.stage("running the whole"):
        lines = differences(got, runner.whole(feeds, watched))
    if not lines:
        return True
    progress.note("ONNX Runtime fuses operators across the cuts: once more with every operator by itself")
    alone = runner._replace(optimise=False)
    failures += differences(alone.chain(links, feeds, watched, _nowhere), alone.whole(feeds, watched))
    if not failures:
        for line in lines:
            progress.note(f"fused, {line}")
    return False


def _nowhere(part: Part, values: Mapping[str, np.ndarray]) -> None:
    """Drops what a part gave."""


def _index(file: NetworkFile, stored: Mapping[str, Stored], source: str) -> Index:
    """The index of the tensors in the parts' test data, in graph order."""
    entries = planned(file, [name for name in named_tensors(file) if name in stored], "pb")
    found = [replace(entry, **stored[entry.name]._asdict()) for entry in entries if entry.name in stored]
    index = index_of(file, found, source, "pb")
    return index if set(index.slots) <= stored.keys() else replace(index, slots=())


def _record(link: Link) -> Record:
    part = link.part
    size, sha256 = (link.folder / MODEL).stat().st_size, sha256_of(link.folder / MODEL)
    return Record(part.name, part.stage, folder_of(part.name), part.nodes, size, sha256, part.inputs, part.outputs)


def _check_room(request: Request, file: NetworkFile, plan: Plan, models: Mapping[str, ModelProto]) -> None:
    """ExportError for a tensor that no .pb or no file of its name can hold, and where the disk has no room for the parts."""
    types = value_types(file.model.graph)
    sizes = {name: _nbytes(types[name]) for part in plan.written for name in (*part.inputs, *part.outputs)}
    for name, size in sizes.items():
        if size > MAX_FILE - _HEADER:
            fix = "cut where tensors are smaller"
            raise ExportError(f"tensor {name}", expected=f"at most {MAX_FILE:,} bytes, which a .pb can hold", got=f"{size:,}", fix=fix)
        if request.arrays and (Path(name).name != name or name.startswith(".")):
            fix = "leave --npy out"
            raise ExportError("--npy", expected="tensors whose names can be names of files", got=name, fix=fix)
    needed = sum(sizes[name] for part in plan.written for name in (*part.inputs, *part.outputs))
    needed += sum(sizes.values()) if request.arrays else 0
    needed += sum(_weight_bytes(models[part.name]) + _HEADER * (3 + len(part.inputs) + len(part.outputs)) for part in plan.written)
    probe = next(place for place in (request.folder, *request.folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(probe).free
    if needed > free:
        fix = "free some space, choose another folder, or name fewer --parts"
        raise ExportError(f"folder {request.folder}", expected=f"{needed:,} bytes of free disk", got=f"{free:,}", fix=fix)


def _weight_bytes(model: ModelProto) -> int:
    return sum(math.prod(tensor.dims) * _width(tensor.data_type) for tensor in model.graph.initializer)


def _nbytes(info: ValueInfoProto) -> int:
    tensor = info.type.tensor_type
    return int(math.prod(dim.dim_value for dim in tensor.shape.dim)) * _width(tensor.elem_type)


def _width(kind: int) -> int:
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize)
