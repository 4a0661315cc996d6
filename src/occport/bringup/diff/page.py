"""A comparison as one self-contained page: what is to blame, the error along the graph, every tensor, and maps of where it differs."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ..dumps.index import Index
from ..page.picture import Picture
from ..page.render import render
from ..page.words import NOTHING, count, figure, share
from .maps import map_picture
from .report import element_words
from .result import STATUSES, Blame, Figures, Result, TensorDiff

_TONES: Mapping[str, str] = {"equal": "good", "explained": "good", "differs": "bad", "missing": "warn", "unreadable": "warn"}
_HEADS = (
    "#nr", "tensor", "operator", "stage", "status", "#max abs", "#max rel", "#rms", "#cosine", "#99.9 %", "#flips", "#explained",
    "worst at", "read as",
)  # fmt: skip
_MOST_MAPS, _FEW_MAPS = 24, 6
_FLOOR, _CEILING = -8, 1  # powers of ten between which the strip shows relative differences


def page_text(result: Result, index: Index) -> str:
    """The page as HTML; the same for the same result.

    Args:
        result: the comparison.
        index: of the golden folder.

    Errors: UserError where there are error maps to be drawn and matplotlib is not installed.
    """
    blamed = {blame.tensor for blame in result.blamed}
    tone, headline = _headline(result)
    maps, left = _maps(result)
    return render(
        "diff.html",
        {
            "model": result.model, "golden": result.golden, "theirs": result.theirs, "source": index.source, "dialect": index.dialect,
            "sha256": index.model_sha256, "tone": tone, "headline": headline, "judged": result.judged, "tiles": _tiles(result),
            "blamed": [
                {**vars(blame), "title": _nodes(blame), "operator": ", ".join(dict.fromkeys(blame.op_types)),
                 "ratio_words": _times(blame.ratio)}
                for blame in result.blamed
            ],
            **_strip(result.tensors, blamed),
            "heads": _HEADS,
            "rows": [_row(tensor, result.explained.get(tensor.entry.name), tensor.entry.name in blamed) for tensor in result.tensors],
            "maps": maps, "maps_left": left, "remarks": result.remarks,
        },
    )  # fmt: skip


def _headline(result: Result) -> tuple[str, str]:
    if result.blamed:
        first = result.blamed[0]
        kind = f"{first.op_types[0]}, " if len(first.nodes) == 1 else ""
        return "bad", f"To blame: {_nodes(first)} ({kind}{first.stage}), {_where(first)}"
    if result.good:
        same = all(tensor.status == "equal" for tensor in result.tensors)
        return "good", "Every tensor is equal, bit by bit" if same else "Nothing beyond rounding: inputs and dtype explain every difference"
    if any(tensor.status == "differs" for tensor in result.tensors):
        return "bad", "Some tensors differ, and no single node is to blame"
    return "warn", "What was compared is explained, but not every tensor could be compared"


def _nodes(blame: Blame) -> str:
    """Its node, or where several are in question the first and the last one."""
    if len(blame.nodes) == 1:
        return blame.nodes[0]
    return f"one of {len(blame.nodes)} nodes, {blame.nodes[0]} to {blame.nodes[-1]}"


def _tiles(result: Result) -> list[dict[str, str]]:
    found = [tensor.status for tensor in result.tensors]
    tiles = [{"title": "tensors", "text": count(len(found))}]
    tiles += [{"title": status, "text": count(found.count(status))} for status in STATUSES if status in found]
    outputs = [tensor for tensor in result.tensors if tensor.entry.role == "output" and tensor.figures and tensor.figures.labels]
    flips = sum(tensor.figures.flips for tensor in outputs if tensor.figures)
    labels = sum(tensor.figures.labels for tensor in outputs if tensor.figures)
    if labels:
        tiles.append({"title": "labels of the outputs that agree", "text": share(1 - flips / labels)})
    return tiles


def _row(tensor: TensorDiff, ratio: float | None, blamed: bool) -> dict[str, Any]:
    entry, figures = tensor.entry, tensor.figures
    status = "to blame" if blamed else tensor.status
    row = {
        "name": entry.name, "node": entry.node, "operator": entry.op_type or entry.role, "stage": entry.stage, "status": status,
        "tone": "bad" if blamed else _TONES[tensor.status], "blamed": blamed, "note": tensor.note,
    }  # fmt: skip
    if figures is None:
        return {**row, "numbers": [(None, "")] * 7, "worst": ""}
    values = [figures.max_abs, figures.max_rel, figures.rms]
    numbers = [(_order(value), figure(value)) for value in values]
    numbers.append((_order(figures.cosine), f"{figures.cosine:.7f}" if math.isfinite(figures.cosine) else NOTHING))
    numbers.append((_order(figures.quantiles[-1]), figure(figures.quantiles[-1])) if figures.quantiles else (None, NOTHING))
    numbers.append((figures.flips, f"{figures.flips:,} of {figures.labels:,}") if figures.labels else (None, ""))
    numbers.append((None, "") if ratio is None else (_order(ratio), _times(ratio)))
    return {**row, "numbers": numbers, "worst": "" if tensor.status == "equal" else _worst(figures)}


def _worst(figures: Figures) -> str:
    """Where it is worst, with both values; nan and unmatched rows before all else."""
    words = []
    if figures.not_numbers:
        words.append(f"{figures.not_numbers:,} nan or inf")
    if figures.unmatched:
        words.append(f"{figures.unmatched:,} rows that only one has")
    words.append(f"{element_words(figures)}: got {figures.got:.6g}, want {figures.want:.6g}")
    if figures.row_words:
        words.append(f"worst row {figures.row_words} (rms {figure(figures.row_rms)})")
    return "; ".join(words)


def _strip(tensors: Sequence[TensorDiff], blamed: set[str]) -> dict[str, Any]:
    """Bars of the relative differences in a box of 1000 x 100, with the stages below."""
    width = 1000 / max(len(tensors), 1)
    bars = []
    for place, tensor in enumerate(tensors):
        height, words = _height(tensor)
        tone = "blamed" if tensor.entry.name in blamed else tensor.status
        words = f"{tensor.entry.name}: {tone}{words}"
        bar = {"left": f"{place * width:.3f}", "top": f"{100 - height:.2f}", "width": f"{width * 0.85:.3f}", "height": f"{height:.2f}"}
        bars.append({**bar, "tone": tone, "words": words})
    stages = [{"name": name or "inputs", "count": len(list(group))} for name, group in groupby(tensors, lambda one: one.entry.stage)]
    steps = _CEILING - _FLOOR
    peak = max((one for one in map(relative, tensors) if one is not None), default=0.0)
    return {
        "bars": bars, "stages": stages, "floor": f"1e{_FLOOR}", "ceiling": f"1e{_CEILING}",
        "lines": [f"{100 * i / steps:.2f}" for i in range(1, steps)],
        "strip_words": f"Relative difference of {len(tensors)} tensors in graph order, {figure(peak)} at most; the table below has it all",
    }  # fmt: skip


def relative(tensor: TensorDiff) -> float | None:
    """Root mean square difference over that of the golden tensor; infinite for nan, None where nothing was compared."""
    figures = tensor.figures
    if figures is None:
        return None
    if figures.not_numbers or not math.isfinite(figures.rms):
        return math.inf
    if figures.rms == 0:
        return 0.0
    return figures.rms / figures.want_rms if figures.want_rms else math.inf


def _height(tensor: TensorDiff) -> tuple[float, str]:
    """Of its bar, of 100; what could not be compared has a full one."""
    value = relative(tensor)
    if value is None:
        return 100.0, ""
    if value == 0:
        return 0.8, ""
    place = (math.log10(value) - _FLOOR) / (_CEILING - _FLOOR) if math.isfinite(value) else 1.0
    return 100 * min(max(place, 0.015), 1.0), f", relative difference {figure(value)}"


def _maps(result: Result) -> tuple[list[Picture], int]:
    """The maps of what matters most, that first, and how many are left out; of what is explained a few, where there is nothing worse."""
    blamed = {blame.tensor for blame in result.blamed}
    known = [tensor for tensor in result.tensors if tensor.maps]
    worse = [one for one in known if one.status == "differs" or one.entry.name in blamed or one.entry.role == "output"]
    order = sorted(worse or known[-_FEW_MAPS:], key=lambda one: (one.entry.name not in blamed, one.entry.role != "output"))
    shown: list[Picture] = []
    for tensor in order:
        if len(shown) + len(tensor.maps) <= _MOST_MAPS:
            status = "to blame" if tensor.entry.name in blamed else tensor.status
            shown += [map_picture(one, tensor.entry.name, status) for one in tensor.maps]
    return shown, sum(len(tensor.maps) for tensor in known) - len(shown)


def _times(ratio: float) -> str:
    return f"{ratio:,.3g} ×" if math.isfinite(ratio) else "beyond all"


def _order(value: float) -> float | None:
    """What a column is sorted by: infinity is the largest number, nan none."""
    return None if math.isnan(value) else max(min(value, sys.float_info.max), -sys.float_info.max)


def _where(blame: Blame) -> str:
    """The place with its preposition."""
    return blame.place if blame.place == "everywhere" else f"worst at {blame.place}"
