"""Conformance vectors: calls of a chip's two custom operators with their right outputs, from a network's own activations and made up.

Every case is one node in the dialect's form. Its golden output is computed in float64 from exactly the arrays that are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import ExportError, FrameError, ModelFileError
from ...export.network_file import NetworkFile, feeds_of, read_network
from ...graph.attributes import Window
from ...graph.dialect import to_table
from ...graph.names import identifier
from ...graph.port_arrays import lower_output, raise_arrays
from ...graph.precision.emulate import is_low
from ...graph.rewrite import check_target
from ...progress import Progress
from ...staging import Staging, earlier
from ..cases.case import Case
from ..cases.folder import write_case, write_index
from ..cases.golden import golden
from ..cases.record import Index, Record, read_index
from .activations import CustomNode, activations, custom_nodes
from .allowance import case_bytes, fitted, one_image, shared_out
from .dialect_cases import LeftOut, NodeCase, edge_node_cases
from .node_model import Style, held, node_model, style_of
from .place import QUERIES, README, drop_earlier, size_of
from .readme_text import readme_text
from .sampling import image_of, sampled

CASES = ("all", "network", "edge")
MAX_BYTES = 256 * 2**20
STAGES = 4
_FOLDER_BYTES = 64 * 2**10  # of index.json beyond its records, and README.txt
_BODY_BYTES = 16 * 2**10  # of one function body in a case's model
_LONGEST_NAME = 150
_PLACES = ("sampling_locations", "reference_points", "sampling_offsets", "offset")


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        model: a file with custom nodes.
        folder: where the vectors go: new, empty, or one of earlier vectors, which are replaced.
        frame: None: that of the export.
        inputs: a folder with NAME.npy for each input of a file that is no export.
        dialect: name or file; None: that of the manifest.
        cases: one of `CASES`.
        max_bytes: of the whole folder.
        seed: of images, queries and windows of the map.
        functions: put bodies into the cases' models.
    """

    model: Path
    folder: Path
    frame: str | None = None
    inputs: Path | None = None
    dialect: str | None = None
    cases: str = "all"
    max_bytes: int = MAX_BYTES
    seed: int = 0
    functions: bool = False


class Written(NamedTuple):
    """What stands in the folder now."""

    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...]
    dialect: str
    size: int  # bytes


def write_vectors(request: Request, progress: Progress) -> Written:
    """Writes the vectors, all or none.

    Raises:
        UserError: the file, its dialect, its inputs, the folder or the number of bytes cannot be used.
    """
    before = earlier(request.folder, read_index, "earlier vectors")
    if request.cases == "edge" and (request.frame is not None or request.inputs is not None):
        flag = "--inputs" if request.frame is None else "--frame"
        raise FrameError(f"{flag} with --cases edge", expected="neither frame nor inputs", fix=f"leave {flag} out: nothing is run")
    with progress.stage(f"reading {request.model.name}"):
        file = read_network(request.model, request.dialect)
        if is_low(file.model):
            fix = "take the fp32 export's vectors: `occport grade` judges kernels of 16 bits by them, too"
            raise ModelFileError(f"model file {request.model}", expected="numbers in float32", got="some of 16 bits", fix=fix)
        style = style_of(file.dialect, file.opset, file.model.ir_version, request.functions)
        check_target(file.dialect, style.opset, request.functions)
        nodes = () if request.cases == "edge" else custom_nodes(file.model, file.dialect)
    with Staging(request.folder) as stage:
        with progress.stage("edge cases"):
            edges, left_out = ([], []) if request.cases == "network" else edge_node_cases(file.dialect)
            records = [_write(case, stage.path, style) for case in edges]
            room = request.max_bytes - size_of(stage.path) - _FOLDER_BYTES - 4096 * len(records)
            sizes = _sizes(nodes, room, request)
        source = ""
        with progress.stage(f"network of {len(nodes)} custom nodes" if nodes else "no network"):
            if nodes:
                feeds, source = feeds_of(file, request.frame, request.inputs)
                for case in _network_cases(file, nodes, sizes, feeds, request.seed, source):
                    records.append(_write(case, stage.path, style))
        with progress.stage("index"):
            _write_index(stage.path, file, records, left_out, source, request)
            size = size_of(stage.path)
            assert size <= request.max_bytes, (size, request.max_bytes)
            written = stage.commit()
            if before is not None:
                drop_earlier(request.folder, before, written)
    return Written(tuple(records), tuple(left_out), file.dialect.name, size)


def _sizes(nodes: Sequence[CustomNode], room: int, request: Request) -> list[dict[str, int]]:
    """The sizes of each network case, fair shares of the room. ExportError where even the smallest do not fit."""
    extra = _BODY_BYTES if request.functions else 0
    least = [case_bytes(node, fitted(node, 0)) + extra for node in nodes]
    if sum(least) > room:
        needed = request.max_bytes - room + sum(least)
        fix = "raise it" if request.cases == "edge" else "raise it, or give fewer --cases"
        raise ExportError(f"--max-bytes {request.max_bytes}", expected=f"at least {needed}", fix=fix)
    most = [case_bytes(node, one_image(node)) + extra for node in nodes]
    return [fitted(node, share - extra) for node, share in zip(nodes, shared_out(least, most, room), strict=True)]


def _network_cases(
    file: NetworkFile, nodes: Sequence[CustomNode], sizes: Sequence[dict[str, int]], feeds: dict[str, np.ndarray], seed: int, source: str
) -> Iterator[NodeCase]:
    images = {node.name: image_of(node, seed) for node in nodes}
    names = _case_names(nodes)
    letters = {node.name: size for node, size in zip(nodes, sizes, strict=True)}
    for node, ports in activations(file, nodes, feeds, images):
        sample = sampled(node, ports, letters[node.name], seed)
        attributes = {} if node.window is None else _plain(node.window)
        what = f"{node.contract.title} of the network, on {source}"
        case = Case(names[node.name], node.operator, raise_arrays(node.contract, sample.ports), attributes, what, node.name)
        _check_finite(case)
        yield NodeCase(case, node.contract, sample.ports, node.attributes, {"seed": seed, "sampling": sample.facts}, sample.queries)


def _check_finite(case: Case) -> None:
    """Places may be infinite, which is outside of every map; all else must not."""
    for name, array in case.quantities.items():
        if name not in _PLACES and not np.isfinite(array).all():
            fix = "give the network finite inputs"
            raise ModelFileError(f"activations of {case.source}, {name}", expected="finite numbers", got="inf or nan", fix=fix)


def _plain(window: Window) -> dict[str, Any]:
    """The attributes as a case has them: by the operator's own names, without the kernel."""
    return {name: value for name, value in window._asdict().items() if name != "kernel"}


def _case_names(nodes: Sequence[CustomNode]) -> dict[str, str]:
    """Node name → a folder's name, told apart even where file systems do not tell capitals."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for node in nodes:
        stem = f"{node.operator}_{identifier(node.name)}"[:_LONGEST_NAME]
        name, number = stem, 1
        while name.lower() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.lower())
        found[node.name] = name
    return found


def _write(made: NodeCase, folder: Path, style: Style) -> Record:
    case, contract = made.case, made.contract
    right = golden(case)
    shape = lower_output(contract, right, case.quantities).shape
    model = node_model(case.name, contract, made.ports, made.attributes, shape, style)
    record = write_case(folder, case, held(contract, made.ports), right, shape, model.SerializeToString(deterministic=True), made.facts)
    if made.queries is not None:
        np.save(folder / case.name / QUERIES, made.queries)
    return record


def _write_index(
    folder: Path, file: NetworkFile, records: Sequence[Record], left_out: Sequence[LeftOut], source: str, request: Request
) -> None:
    table = to_table(file.dialect)
    index = Index(file.dialect.name, {operator: table[operator] for operator in ("msda", "dcn")}, tuple(records))
    more = {
        "left_out": [asdict(one) for one in left_out],
        "model": file.path.name, "run_on": source, "seed": request.seed, "max_bytes": request.max_bytes,
    }  # fmt: skip
    write_index(folder, index, more)
    (folder / README).write_text(readme_text(file.dialect, source), encoding="utf-8")
