"""A hazard report as text for a terminal, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from .hazard import KINDS, SEVERITIES, Hazard
from .hazards import Hazards

_SHOWN = 3  # of a kind and severity


def hazards_text(report: Hazards, everything: bool) -> str:
    """Hazards by kind, worst first, with the advice.

    Args:
        everything: every tensor, instead of the worst few of each kind.
    """
    lines = [f"{report.low.name} on {report.file}: {report.tensors} tensors of this frame"]
    for severity in SEVERITIES:
        for kind in KINDS:
            found = [hazard for hazard in report.found if (hazard.severity, hazard.kind) == (severity, kind)]
            if found:
                lines += ["", f"{severity}: {KINDS[kind].title} ({len(found)})", f"  do: {KINDS[kind].advice}"]
                lines += [f"  {_line(hazard)}" for hazard in (found if everything else _worst(found))]
                if not everything and len(found) > _SHOWN:
                    lines.append(f"  ... and {len(found) - _SHOWN} more; --all shows them")
    if not report.found:
        lines.append("nothing that 16 bits would do to this frame was found")
    return "\n".join(lines) + "\n"


def _worst(found: Sequence[Hazard]) -> list[Hazard]:
    return sorted(found, key=lambda hazard: -_badness(hazard))[:_SHOWN]


def _badness(hazard: Hazard) -> float:
    """Of hazards of one kind: the first figure that says how bad it is."""
    for name in ("rms", "terms", "labels", "largest", "zero", "lost"):
        if name in hazard.figures:
            return hazard.figures[name]
    return max(abs(hazard.low), abs(hazard.high))


def _line(hazard: Hazard) -> str:
    extent = "" if math.isnan(hazard.low) else f" [{hazard.low:.4g}, {hazard.high:.4g}]"
    stage = f" ({hazard.stage})" if hazard.stage else ""
    return f"{hazard.tensor}{stage}{extent}: {hazard.words}"


def csv_text(report: Hazards) -> str:
    """Every hazard, a row each."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["severity", "kind", "tensor", "node", "operator", "stage", "low", "high", "words", "advice"])
    for one in report.found:
        writer.writerow([one.severity, one.kind, one.tensor, one.node, one.op_type, one.stage, one.low, one.high, one.words, one.advice])
    return content.getvalue()
