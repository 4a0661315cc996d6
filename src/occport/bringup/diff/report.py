"""A comparison as text for a terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ...columns import aligned
from ..dumps.axes import AXIS_WORDS
from .result import QUANTILES, STATUSES, Figures, Result, TensorDiff

_FIRST = 10  # differing tensors that are shown beside outputs and what is blamed
_HEAD = ["tensor", "operator", "stage", "status", "max abs", "rms", "cosine", "flips", "worst row"]


def report_text(result: Result, everything: bool) -> str:
    """The table, what is to blame, and the remarks.

    Args:
        everything: every tensor, instead of the first that differ, those that could not be compared, and the outputs.
    """
    shown = list(result.tensors) if everything else _shown(result)
    lines = [aligned([_HEAD, *map(_cells, shown)], (0, 1, 2, 3, -1))] if shown else []
    if len(shown) < len(result.tensors):
        lines.append(f"... {len(result.tensors) - len(shown)} of {len(result.tensors)} tensors not shown; --all shows them")
    lines += [f"{tensor.entry.name}: {tensor.note}" for tensor in shown if tensor.figures is None]
    return "\n".join([*lines, "", *_verdict(result), *(f"note: {remark}" for remark in result.remarks)]) + "\n"


def _verdict(result: Result) -> Iterator[str]:
    found = [tensor.status for tensor in result.tensors]
    counts = {status: found.count(status) for status in STATUSES if status in found}
    yield f"{len(result.tensors)} tensors: {', '.join(f'{count} {status}' for status, count in counts.items())}"
    if result.judged:
        yield f"judged {result.judged}"
    for number, blame in enumerate(result.blamed):
        yield f"{'first to blame' if number == 0 else 'also'}: {blame.words}"
    if not result.blamed and not result.good:
        yield "no single node is to blame: see the tensors above"
    if result.good:
        yield "nothing differs beyond what dtype and inputs explain"


def _shown(result: Result) -> list[TensorDiff]:
    blamed = {blame.tensor for blame in result.blamed}
    differing = [tensor for tensor in result.tensors if tensor.status == "differs"][:_FIRST]
    lost = [tensor for tensor in result.tensors if tensor.figures is None]
    first = {tensor.entry.name for tensor in (*differing, *lost[:_FIRST])}
    return [one for one in result.tensors if one.entry.name in first | blamed or one.entry.role == "output"]


def _cells(tensor: TensorDiff) -> list[str]:
    entry, figures = tensor.entry, tensor.figures
    head = [entry.name, entry.op_type or entry.role, entry.stage, tensor.status]
    if figures is None:
        return [*head, "", "", "", "", ""]
    flips = f"{figures.flips:,} of {figures.labels:,}" if figures.labels else ""
    place = "" if tensor.status == "equal" else figures.row_words or element_words(figures)
    if figures.not_numbers:
        place = f"{figures.not_numbers:,} nan or inf, the first at {element_words(figures)}"
    return [*head, f"{figures.max_abs:.2e}", f"{figures.rms:.2e}", f"{figures.cosine:.7f}", flips, place]


def element_words(figures: Figures) -> str:
    """The worst element's place: "camera 3, channel 17, row 4, column 9"; bare numbers where the axes are unknown."""
    axes = figures.axes or ("",) * len(figures.index)
    return ", ".join(f"{AXIS_WORDS.get(axis, axis)} {i}".strip() for axis, i in zip(axes, figures.index, strict=True))


def csv_text(result: Result) -> str:
    """Every tensor, a row each."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    quantiles = [f"quantile_{q:g}" for q in QUANTILES]
    writer.writerow(
        ["tensor", "node", "operator", "stage", "role", "status", "dtype", "max_abs", "max_rel", "rms", "cosine", *quantiles, "worst_index",
         "got", "want", "worst_row", "row_rms", "flips", "labels", "not_numbers", "unmatched", "explained_ratio", "note"]
    )  # fmt: skip
    for tensor in result.tensors:
        entry, figures = tensor.entry, tensor.figures
        head = [entry.name, entry.node, entry.op_type, entry.stage, entry.role, tensor.status, tensor.dtype]
        ratio = result.explained.get(entry.name, "")
        if figures is None:
            writer.writerow([*head, *[""] * (14 + len(QUANTILES)), ratio, tensor.note])
            continue
        writer.writerow(
            [*head, figures.max_abs, figures.max_rel, figures.rms, figures.cosine, *figures.quantiles, _joined(figures.index), figures.got,
             figures.want, figures.row_words or _joined(figures.row), figures.row_rms, figures.flips, figures.labels, figures.not_numbers,
             figures.unmatched, ratio, tensor.note]
        )  # fmt: skip
    return content.getvalue()


def _joined(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def to_json(result: Result) -> dict[str, Any]:
    """Everything but the pictures as JSON values; numbers that are none become null."""
    return {
        "golden": result.golden, "theirs": result.theirs, "model": result.model, "good": result.good, "judged": result.judged,
        "blamed": [_plain(vars(blame)) for blame in result.blamed],
        "remarks": list(result.remarks),
        "tensors": [
            {
                **{key: value for key, value in vars(tensor.entry).items() if key not in ("file", "sha256")},
                "status": tensor.status, "note": tensor.note, "their_dtype": tensor.dtype,
                "explained_ratio": _number(result.explained.get(tensor.entry.name)),
                "figures": None if tensor.figures is None else {**_plain(vars(tensor.figures)), "quantiles": _quantiles(tensor.figures)},
            }
            for tensor in result.tensors
        ],
    }  # fmt: skip


def _quantiles(figures: Figures) -> dict[str, float | None]:
    return {f"{q:g}": _number(value) for q, value in zip(QUANTILES, figures.quantiles, strict=True)}


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) if isinstance(value, float) else value for key, value in table.items()}


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
