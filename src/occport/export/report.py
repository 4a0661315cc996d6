"""The ladder of checks as it is told: `-[✓] …`, `-[x] …`, collected for the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Check:
    """One rung: what was checked, whether it held, what was seen, and on which file or size."""

    name: str
    passed: bool
    detail: str
    where: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)  # what was measured: max_abs, rms, agreement, …


class Report:
    """Collects checks and tells each as it comes. Every failure is collected; none stops the others.

    Args:
        emit: told one line for each check.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self.checks: list[Check] = []
        self.where = ""  # what the checks to come are run on

    def add(self, name: str, passed: bool, detail: str, figures: Mapping[str, float] | None = None) -> bool:
        """Records one check and tells it in one line. Returns `passed`."""
        self.checks.append(Check(name, passed, detail, self.where, dict(figures or {})))
        place = f" [{self.where}]" if self.where else ""
        self._emit(f"-[{'✓' if passed else 'x'}] {name}{place}: {detail}")
        return passed

    def findings(self, name: str, findings: list[str], good: str) -> bool:
        """Records one check that lists what is wrong; at most five are told."""
        if not findings:
            return self.add(name, True, good)
        more = f"; and {len(findings) - 5} more" if len(findings) > 5 else ""
        return self.add(name, False, "; ".join(findings[:5]) + more)

    @property
    def failures(self) -> list[str]:
        """A line for each failed check."""
        return [f"{check.name}: {check.detail}" for check in self.checks if not check.passed]
