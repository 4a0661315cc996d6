"""Holds somebody's tensors against golden ones, one at a time: how each was read, how far it is, and which node is to blame."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...export.network_file import NetworkFile, read_network
from ...graph.model_file import sha256_of
from ...progress import Progress
from ..dumps.index import Entry, Index
from .both import Both
from .figures import figures_of, maps_of
from .hints import Hint
from .matches import Matches, in_our_order
from .result import Blame, Result, TensorDiff
from .rounding import FLOAT32, rounding_of
from .rows import Match

STAGES = 3
_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_GROWTH = 8.0  # relative difference that is taken as explained without a model: so many roundoffs for the root of the number of nodes
_WITHOUT_MODEL = "by dtype and depth alone: the model file was not there, so that no node was run on their inputs"


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        golden: a folder of `occport golden`.
        theirs: a folder of tensors, or one file of many.
        hints: our tensor → what is told about theirs.
        model: the model file; None: where the index says, or beside or in the golden folder, with its hash.
        dialect: of a model without manifest.
        math_mode: how their kernels round factors of products, where their dumps do not show it.
    """

    golden: Path
    theirs: Path
    hints: Mapping[str, Hint] = field(default_factory=dict)
    model: Path | None = None
    dialect: str | None = None
    math_mode: str | None = None


def compare_dumps(request: Request, progress: Progress) -> Result:
    """Compares every golden tensor with theirs; what cannot be read is told and the rest compared.

    Raises:
        UserError: the golden folder, theirs as a whole, the map or the model cannot be used.
    """
    both = Both(request.golden, request.theirs, request.hints)
    file, remark = model_of(request, both.index)
    with progress.stage(f"comparing {len(both.index.tensors)} tensors"):
        matches = Matches(both)
        tensors = [_compared(both, entry, matches) for entry in both.index.tensors]
    remarks = [remark] * bool(remark) + matches.remarks + _notes(tensors)
    if both.left:
        shown = ", ".join(both.left[:5]) + (", ..." if len(both.left) > 5 else "")
        remarks.append(f"{len(both.left)} of their tensors belong to none of ours: {shown}")
    if not both.used:
        fix = "tell their names with --map, or mark the tensors that they have with `occport golden --mark NAME...`"
        expected, got = "a tensor with the name of a golden one", ", ".join(both.left[:3])
        raise UserError(f"dumps {request.theirs}", expected=expected, got=got, fix=fix)
    judged = _judged(both, file, tensors, progress, request.math_mode, matches.shifted)
    remarks += _wrong_inputs(both, judged)
    remarks += [judged.advice] * bool(judged.advice)
    with progress.stage("result"):
        return Result(
            str(request.golden), str(request.theirs), both.index.model, tuple(judged.tensors), judged.blamed, judged.words, tuple(remarks),
            judged.ratios,
        )  # fmt: skip


def _compared(both: Both, entry: Entry, matches: Matches) -> TensorDiff:
    golden = both.golden(entry.name)
    got, reason = both.read(entry, golden)
    if got is None:
        return TensorDiff(entry, "missing" if reason.startswith("no dump") else "unreadable", reason)
    theirs = got.array
    match = matches.of(entry, golden, theirs)
    theirs = in_our_order(entry, theirs, match)
    figures = figures_of(entry, golden, theirs, both.index, match)
    equal = figures.max_abs == 0 and figures.unmatched == 0
    maps = () if equal else maps_of(entry, golden, theirs, both.index, match)
    return TensorDiff(entry, "equal" if equal else "differs", got.note, got.dtype, figures, maps)


@dataclass(frozen=True)
class _Judged:
    tensors: Sequence[TensorDiff]
    blamed: tuple[Blame, ...]
    words: str
    ratios: Mapping[str, float]
    advice: str = ""


def _judged(
    both: Both, file: NetworkFile | None, tensors: Sequence[TensorDiff], progress: Progress, math_mode: str | None,
    shifted: Mapping[str, Match],
) -> _Judged:  # fmt: skip
    """Which differences are explained: by running the nodes between their tensors, or without a model by dtype and depth."""
    dtypes = {tensor.entry.name: tensor.dtype for tensor in tensors if tensor.figures is not None}
    if file is None:
        return _Judged([_by_depth(tensor, place) for place, tensor in enumerate(tensors)], (), _WITHOUT_MODEL, {})
    from .blame import judge

    def theirs(name: str) -> np.ndarray | None:
        entry = both.index.entry(name)
        if name not in dtypes or entry is None:
            return None
        got, _ = both.read(entry, both.golden(name))
        return got.array if got is not None else None

    with progress.stage("running nodes on their inputs"):
        found = judge(file, both.index, both.golden, theirs, dtypes, progress, math_mode, shifted)
    statuses = [_by_ratio(tensor, found.ratios.get(tensor.entry.name, _input_ratio(tensor, theirs))) for tensor in tensors]
    return _Judged(statuses, found.blamed, found.judged, found.ratios, found.advice)


def _wrong_inputs(both: Both, judged: _Judged) -> list[str]:
    """A line for each input of theirs that is not ours: nodes are judged on it as it is, so that no node is to blame for that."""
    found = []
    for tensor in judged.tensors:
        if tensor.entry.role == "input" and tensor.status == "differs":
            words = f"their input {tensor.entry.name} is not golden's, and everything behind it follows from theirs"
            golden = both.golden(tensor.entry.name)
            got, _ = both.read(tensor.entry, golden)
            channels = tensor.entry.axes.index("C") if "C" in tensor.entry.axes else -1
            if got is not None and channels >= 0 and golden.shape[channels] == 3 and _swapped(got.array, golden, channels):
                words += ": its colours are in reverse order (RGB for BGR?)"
            found.append(words)
        elif tensor.entry.role == "input" and tensor.status == "missing" and judged.blamed:
            found.append(f"their input {tensor.entry.name} was not dumped: it is taken to be golden's, and could be to blame itself")
    return found


def _swapped(got: np.ndarray, golden: np.ndarray, channel: int) -> bool:
    """Whether theirs becomes much more like ours with its three channels in reverse order; each may have had another mean taken off."""
    axes = tuple(axis for axis in range(got.ndim) if axis != channel)
    ours, theirs = (array - array.mean(axes, keepdims=True) for array in (golden, got))
    return float(np.square(np.flip(theirs, channel) - ours).sum()) < 0.1 * float(np.square(theirs - ours).sum())


def _input_ratio(tensor: TensorDiff, theirs: Callable[[str], np.ndarray | None]) -> float | None:
    """Of an input, which no node makes: it may differ by the rounding of its dtype."""
    array = theirs(tensor.entry.name) if tensor.entry.role == "input" and tensor.status == "differs" else None
    if array is None or tensor.figures is None or array.dtype != np.float32:
        return None
    rounding = rounding_of(array, tensor.dtype) or FLOAT32
    return tensor.figures.max_rel / (2 * rounding.unit)


def _by_ratio(tensor: TensorDiff, ratio: float | None) -> TensorDiff:
    if tensor.status != "differs" or ratio is None or ratio > 1 or not math.isfinite(ratio):
        return tensor
    return TensorDiff(tensor.entry, "explained", tensor.note, tensor.dtype, tensor.figures, tensor.maps)


def _by_depth(tensor: TensorDiff, place: int) -> TensorDiff:
    figures = tensor.figures
    if tensor.status != "differs" or figures is None or "float" not in tensor.entry.dtype or figures.not_numbers:
        return tensor
    relative = figures.rms / figures.want_rms if figures.want_rms else math.inf
    allowed = _GROWTH * _ROUNDOFF.get(tensor.dtype, 2.0**-7) * math.sqrt(1 + place)
    return _by_ratio(tensor, relative / allowed)


def model_of(request: Request, index: Index) -> tuple[NetworkFile | None, str]:
    """The model file, and a remark where there is none."""
    if request.model is not None:
        file = read_network(request.model, request.dialect, standard=True)
        if sha256_of(request.model) != index.model_sha256:
            fix = f"give {index.model} itself, or make the golden tensors anew"
            raise UserError(f"--model {request.model}", expected="the file that the golden tensors are from", got="another", fix=fix)
        return file, ""
    for path in (request.golden / index.place, request.golden / index.model, request.golden.parent / index.model):
        if path.is_file() and sha256_of(path) == index.model_sha256:
            return read_network(path, request.dialect, standard=True), ""
    return None, f"{index.model} is not where it was: give it with --model, and the node to blame is worked out"


def _notes(tensors: Sequence[TensorDiff]) -> list[str]:
    """How tensors were read, each way once with how many of them."""
    ways: dict[str, list[str]] = {}
    for tensor in tensors:
        if tensor.figures is not None and tensor.note:
            ways.setdefault(tensor.note, []).append(tensor.entry.name)
    return [f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}" for note, names in ways.items()]


