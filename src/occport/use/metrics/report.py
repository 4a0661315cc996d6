"""The outcome of an evaluation, as JSON, Markdown and plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...columns import aligned
from .agreement import Agreement
from .totals import Names, Scores

UNDEFINED = "–"


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        labels, described: short and long names of what was judged and what it was compared with; the second is "" where there is none.
        scores: of what was judged; of 0 frames where there was no ground truth.
        others: of what it was compared with.
        compared: their agreement.
        frames: how many were done.
        remarks: what must be known beside the scores' own remarks, a line each.
        failed: the frames that are not counted.
    """

    labels: tuple[str, str]
    described: tuple[str, str]
    scores: Scores
    others: Scores | None
    compared: Agreement | None
    frames: int
    remarks: tuple[str, ...]
    failed: Names

    def to_json(self) -> dict[str, Any]:
        """Plain values: the metrics at the top; those of the other side below "against", "difference" = first - other."""
        scores = self.scores.to_json() if self.scores.frames else {}
        table: dict[str, Any] = {**scores, "frames": self.frames, "predictions": self.described[0]}
        if self.others is not None:
            if self.scores.frames:
                table["against"] = {"predictions": self.described[1], **self.others.to_json()}
                difference: dict[str, Any] = _differences(self.scores.values, self.others.values)
                if self.scores.classes:
                    difference["classes"] = _differences(self.scores.classes, self.others.classes)
                table["difference"] = difference
            else:
                table["against"] = {"predictions": self.described[1]}
        if self.compared is not None:
            table["agreement"] = self.compared.to_json()
        return {**table, "remarks": self.all_remarks(), "frames_failed": self.failed.count, "failed": list(self.failed.first)}

    def all_remarks(self) -> list[str]:
        """The remarks of both sides' scores, then the report's own."""
        lines = [*self.scores.remarks]
        if self.others is not None:
            lines += [f"against: {remark}" for remark in self.others.remarks if remark not in self.scores.remarks]
        return lines + list(self.remarks)

    def text(self) -> str:
        """For a terminal: aligned columns."""
        parts = [self._title(), *(_aligned(rows) for rows in self._tables())]
        return "\n\n".join(parts + (["\n".join(self.all_remarks())] if self.all_remarks() else [])) + "\n"

    def markdown(self) -> str:
        """For a document."""
        parts = ["# Evaluation", self._title(), *(_markdown(rows) for rows in self._tables())]
        remarks = "\n".join(f"- {_escaped(remark)}" for remark in self.all_remarks())
        return "\n\n".join(parts + ([remarks] if remarks else [])) + "\n"

    def _title(self) -> str:
        against = f", against {self.described[1]}" if self.described[1] else ""
        return f"{frames_text(self.frames)}: {self.described[0]}{against}"

    def _tables(self) -> Iterator[list[Sequence[str]]]:
        """Rows of texts; the first is the head."""
        first, second = self.labels
        if self.scores.frames:
            values = {**self.scores.values, **self.scores.classes}
            if self.others is None:
                yield [("metric", first), *((name, _number(value)) for name, value in values.items())]
            else:
                others = {**self.others.values, **self.others.classes}
                apart = _differences(values, others)
                head = ("metric", first, second if second != first else f"{second} (against)", "difference")
                yield [head, *((name, _number(values[name]), _number(others[name]), _number(apart[name], "+")) for name in values)]
        if self.compared is not None:
            compared = self.compared
            rows: list[Sequence[str]] = [("the same label", "share", "where")]
            rows.append(("all voxels", _share(compared.share), f"{compared.voxels - compared.equal} of {compared.voxels} differ"))
            rows.append(("worst frame", _share(compared.worst_frame_share), compared.worst_frame))
            if compared.worst_class is not None:
                rows.append(("worst class", _share(compared.classes[compared.worst_class]), compared.worst_class))
            yield rows


def frames_text(count: int) -> str:
    """1 frame, 200 frames."""
    return f"{count} {'frame' if count == 1 else 'frames'}"


def _differences(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> dict[str, float | None]:
    apart: dict[str, float | None] = {}
    for name, value in first.items():
        other = second[name]
        apart[name] = None if value is None or other is None else value - other
    return apart


def _number(value: float | None, sign: str = "") -> str:
    return UNDEFINED if value is None else f"{value:{sign}.5f}"


def _share(value: float | None) -> str:
    """Never 100 % where it is not all; rounding would make it so."""
    if value is None:
        return UNDEFINED
    return "100 %" if value == 1 else f"{min(value, 0.9999999) * 100:.5f} %"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of numbers to the right, those of texts to the left."""
    return aligned(rows, [column for column in range(len(rows[0])) if _is_text(rows, column)])


def _is_text(rows: Sequence[Sequence[str]], column: int) -> bool:
    return column == 0 or rows[0][column] == "where"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    marks = ["---" if _is_text(rows, column) else "---:" for column in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(map(_escaped, row)) + " |" for row in (rows[0], marks, *rows[1:]))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
