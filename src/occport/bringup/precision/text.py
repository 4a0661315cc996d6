"""A hazard report as text for a terminal, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

from .hazard import KINDS, SEVERITIES, SEVERITY_WORDS, SPREADING, Hazard
from .hazards import Hazards

_SHOWN = 3  # of a kind and severity


def hazards_text(report: Hazards, everything: bool) -> str:
    """Hazards by kind, worst first, with the advice.

    Args:
        everything: every finding, instead of the first or worst few of each kind.
    """
    lines = [f"{report.low.name} on {report.file}: {report.tensors} tensors of this frame"]
    if report.hits:
        lines.append(f"projection: {report.rig}")
    if report.unseen:
        lines.append(f"not looked at: {'; '.join(report.unseen)}")
    for severity in SEVERITIES:
        of_severity = [hazard for hazard in report.found if hazard.severity == severity]
        if of_severity:
            lines += ["", f"{severity} ({len(of_severity)}): {SEVERITY_WORDS[severity]}"]
        if severity == "kept" and of_severity and not everything:
            lines += _folded(of_severity)
            continue
        for kind in KINDS:
            found = [hazard for hazard in of_severity if hazard.kind == kind]
            if found:
                lines += [f"  {KINDS[kind].title} ({len(found)})", f"    do: {KINDS[kind].advice}"]
                shown = found if everything else _shown(kind, found)
                lines += [f"    {_line(hazard)}" for hazard in shown]
                if len(found) > len(shown):
                    lines.append(f"    ... and {len(found) - len(shown)} more; --all shows them")
    if not report.found:
        lines.append("nothing that 16 bits would do to this frame was found")
    return "\n".join(lines) + "\n"


def _folded(found: Sequence[Hazard]) -> Iterator[str]:
    """What exports keep in float32, in one line."""
    kinds = [hazard.kind for hazard in found]
    counts = ", ".join(f"{kind} {kinds.count(kind)}" for kind in KINDS if kind in kinds)
    largest = max(found, key=lambda hazard: max(abs(hazard.low), abs(hazard.high)))
    size = max(abs(largest.low), abs(largest.high))
    yield f"  in the geometry ({largest.stage}): {counts}; up to {size:,.6g} at {largest.tensor}; --all shows them"


def _shown(kind: str, found: Sequence[Hazard]) -> list[Hazard]:
    """Of a kind that spreads those where it begins, in graph order; of any other the worst."""
    if kind in SPREADING:
        return [hazard for hazard in found if hazard.begins][:_SHOWN] or list(found[:_SHOWN])
    return sorted(found, key=lambda hazard: -_badness(hazard))[:_SHOWN]


def _badness(hazard: Hazard) -> float:
    """Of hazards of one kind: the first figure that says how bad it is."""
    for name in ("rms", "terms", "labels", "largest", "zero", "lost"):
        if name in hazard.figures:
            return hazard.figures[name]
    return max(abs(hazard.low), abs(hazard.high))


def _line(hazard: Hazard) -> str:
    extent = "" if math.isnan(hazard.low) else f" [{hazard.low:.4g}, {hazard.high:.4g}]"
    where = ", ".join(filter(None, (hazard.stage, hazard.op_type)))
    begins = "begins at " if hazard.begins else ""
    return f"{begins}{hazard.tensor}{f' ({where})' if where else ''}{extent}: {hazard.words}"


def csv_text(report: Hazards) -> str:
    """Every hazard, a row each."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["severity", "kind", "tensor", "node", "operator", "stage", "low", "high", "begins", "words", "advice"])
    for one in report.found:
        writer.writerow([
            one.severity, one.kind, one.tensor, one.node, one.op_type, one.stage, one.low, one.high, "yes" if one.begins else "", one.words,
            one.advice,
        ])  # fmt: skip
    return content.getvalue()
