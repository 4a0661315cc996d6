"""A finding: one way in which a file is not what it should be, or one thing that its reader should know."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

ERROR, NOTE = "error", "note"


@dataclass(frozen=True)
class Finding:
    """One line of lint. `str(finding)` is "node: what: expected …, got …".

    Args:
        node: the node's name; "" for the file as a whole.
        what: the port, the attribute, or the part of the file.
        expected: what would have been right.
        got: what is there.
        fix: what the reader can do about it.
        severity: "error", or "note" for what need not be wrong.
    """

    node: str
    what: str
    expected: str = ""
    got: str = ""
    fix: str = ""
    severity: str = ERROR

    def __str__(self) -> str:
        middle = ", ".join(part for part in (f"expected {self.expected}" * bool(self.expected), f"got {self.got}" * bool(self.got)) if part)
        line = ": ".join(part for part in (self.node, self.what, middle) if part)
        return " ".join(line.split())


@dataclass(frozen=True)
class Folded:
    """Findings that say the same of several nodes."""

    first: Finding
    count: int
    same_everywhere: bool  # what was got is the same too


def fold(findings: Iterable[Finding]) -> list[Folded]:
    """Joins findings that differ in nothing but the node, the tensor (in brackets behind a port) and what was got. Keeps the order."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        port = re.sub(r" \(.*\)$", "", finding.what)
        groups.setdefault((finding.severity, port, finding.expected, finding.fix), []).append(finding)
    return [Folded(group[0], len(group), len({finding.got for finding in group}) == 1) for group in groups.values()]


def count_of(findings: Iterable[Finding], severity: str) -> int:
    """How many findings are of this severity."""
    return sum(finding.severity == severity for finding in findings)
