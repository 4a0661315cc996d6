"""How checks are told and collected."""

from __future__ import annotations

from dataclasses import asdict

from occport.errors import VerificationFailed
from occport.export.report import Check, Report


def test_each_check_is_told_at_once_and_kept():
    lines: list[str] = []
    report = Report(lines.append)
    assert report.add("structure", True, "all is well") is True
    report.where = "this file"
    assert report.add("labels", False, "3 of 20 differ", {"differing": 3}) is False
    assert lines == ["-[✓] structure: all is well", "-[x] labels [this file]: 3 of 20 differ"]
    assert report.checks == [
        Check("structure", True, "all is well"),
        Check("labels", False, "3 of 20 differ", "this file", {"differing": 3}),
    ]
    assert report.failures == ["labels: 3 of 20 differ"]
    assert asdict(report.checks[1])["figures"] == {"differing": 3}


def test_findings_tell_five_and_count_the_rest():
    lines: list[str] = []
    report = Report(lines.append)
    assert report.findings("contract", [], "26 nodes") is True
    assert report.findings("contract", [f"node {i}" for i in range(7)], "26 nodes") is False
    assert lines == ["-[✓] contract: 26 nodes", "-[x] contract: node 0; node 1; node 2; node 3; node 4; and 2 more"]
    assert report.findings("contract", [f"node {i}" for i in range(5)], "") is False
    assert lines[-1].endswith("node 4")


def test_failure_line_counts_checks():
    assert str(VerificationFailed(["a"])).startswith("verification failed: 1 check ")
    assert str(VerificationFailed(["a", "b"])).startswith("verification failed: 2 checks ")
