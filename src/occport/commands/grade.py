"""Grade a kernel against the conformance vectors: which cases pass, by how much others fail, and which known bug explains them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..output_files import write_file

if TYPE_CHECKING:
    from ..kit.grading.grade import CaseGrade
    from ..kit.grading.verdict import Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the vectors, as `occport vectors` wrote them")
    parser.add_argument(
        "--outputs", type=Path, required=True, metavar="THEIRS",
        help="folder with the kernel's output of each case: CASE.npy, CASE.pb, CASE.bin, CASE/output.npy, CASE/output_0.pb, "
        "CASE/test_data_set_0/output_0.pb or CASE/output.bin",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="what the kernel computes in; by default what its files hold"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")


def run(options: argparse.Namespace) -> int:
    """Prints a line for each case and the verdicts. Returns 0 where all cases passed, else 1."""
    from ..kit.grading.grade import grade

    report = grade(options.folder, options.outputs, options.dtype)
    if options.json is not None:
        write_file("--json", options.json, json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n")
    width = max(len(case.name) for case in report.cases)
    for case in report.cases:
        print(f"{case.status:<10} {case.name:<{width}}  {_line(case)}".rstrip())
    passed = sum(case.status == "passed" for case in report.cases)
    print(f"\n{passed} of {len(report.cases)} cases passed")
    for verdict in report.verdicts:
        print(f"\n{_verdict(verdict)}")
    return 0 if report.passed else 1


def _line(case: CaseGrade) -> str:
    """What is to be said about one case."""
    parts = [case.note] if case.note else []
    if case.worst is not None:
        worst = case.worst
        parts.append(f"worst at {worst.place}: got {worst.got:.6g}, expected {worst.expected:.6g} ± {worst.allowed:.2g}")
    if case.outside:
        parts.append(f"{case.outside} of {case.total} outside ({case.outside / case.total:.1%})")
    return "; ".join(parts + [case.dtype] * bool(case.dtype))


def _verdict(verdict: Verdict) -> str:
    """The verdict in words: one line, and two for each bug."""
    from ..kit.grading.verdict import KINDS

    some = verdict.unjudged and verdict.kind != "unjudged"
    unjudged = f" ({verdict.unjudged} without an output to judge by)" if some else ""
    lines = [f"{verdict.operator}: {KINDS[verdict.kind]}{unjudged}"]
    for bug in verdict.bugs:
        lines += [f"  {bug.name}: {bug.what}", f"    look at: {bug.look_at}"]
    return "\n".join(lines)
