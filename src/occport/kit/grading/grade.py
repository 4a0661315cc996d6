"""Grading a kernel: its output of every case against the golden values, and a verdict on each operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ..cases.case import OPERATORS, PLACE_NAMES, split_shape
from ..cases.folder import Stored, read_case
from ..cases.raised_ports import RaisePorts, raised_ports
from ..cases.record import Record, read_index
from ..cases.tolerance import bound
from .outputs import PLACES, Output, read_output
from .verdict import KINDS, Evidence, Verdict, judge, outside


@dataclass(frozen=True)
class Worst:
    """The element that exceeds its tolerance by the largest factor, or comes closest to it."""

    place: str  # "image 0, query 3, head 1, channel 2"
    got: float
    expected: float
    allowed: float


@dataclass(frozen=True)
class CaseGrade:
    """How one case went.

    Attributes:
        name, operator: of the case.
        status: "passed", "failed" (values), "shape" (another shape or size), "missing", "unreadable".
        dtype: of the tolerances; "" where there are none.
        file: the output's.
        outside, nans, total: number of elements outside their tolerance, of those that are nan, of all.
        worst: None where values were not compared.
        note: what is to be said beyond that, such as a transposition that makes the values right.
    """

    name: str
    operator: str
    status: str
    dtype: str = ""
    file: str = ""
    outside: int = 0
    nans: int = 0
    total: int = 0
    worst: Worst | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """All cases, and a verdict for each operator that has some."""

    dialect: str
    cases: tuple[CaseGrade, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """True where every case passed."""
        return all(case.status == "passed" for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """For a file: numbers that are not finite are strings."""
        return {
            "format": "occport grade 1", "dialect": self.dialect, "passed": self.passed,
            "cases": [_case_json(case) for case in self.cases],
            "verdicts": [
                {
                    "operator": verdict.operator, "kind": verdict.kind, "what": KINDS[verdict.kind], "unjudged": verdict.unjudged,
                    "bugs": [{"name": bug.name, "what": bug.what, "look_at": bug.look_at} for bug in verdict.bugs],
                }
                for verdict in self.verdicts
            ],
        }  # fmt: skip


def grade(folder: Path, outputs: Path, dtype: str | None = None, raise_ports: RaisePorts = raised_ports) -> Report:
    """Grades the outputs of a kernel.

    Args:
        folder: written by `occport vectors`.
        outputs: holds an output for each case (`outputs.PLACES`).
        dtype: what the kernel computed in: "float32", "float16" or "bfloat16"; None: what each file holds.
        raise_ports: as for `folder.read_case`.

    Raises:
        ModelFileError: the folder of the vectors is damaged.
        UserError: there are no cases, or no output of any of them.
    """
    index = read_index(folder)
    if not index.records:
        raise UserError(f"vectors folder {folder}", expected="cases", got="none", fix="write the vectors again with `occport vectors`")
    if not outputs.is_dir():
        got = "a file" if outputs.exists() else "nothing"
        raise UserError(f"outputs {outputs}", expected="a folder", got=got, fix="name it with --outputs")
    grades: list[CaseGrade] = []
    evidence: dict[str, list[Evidence]] = {operator: [] for operator in OPERATORS}
    for record in index.records:
        one, found = _grade_case(folder, record, outputs, dtype, raise_ports)
        grades.append(one)
        evidence[record.operator] += found
    if all(one.status == "missing" for one in grades):
        wanted = f"an output of each case, such as {', '.join(place.format(grades[0].name) for place in PLACES[:4])}"
        raise UserError(f"outputs {outputs}", expected=wanted, got="none", fix="name them after the cases")
    return Report(index.dialect, tuple(grades), _verdicts(grades, evidence))


def _verdicts(grades: Sequence[CaseGrade], evidence: dict[str, list[Evidence]]) -> tuple[Verdict, ...]:
    verdicts = []
    for operator in OPERATORS:
        own = [one for one in grades if one.operator == operator]
        if own:
            shapes = sum(one.status == "shape" and one.total > 0 for one in own)
            verdicts.append(judge(operator, evidence[operator], len(own) - len(evidence[operator]), shapes))
    return tuple(verdicts)


def _grade_case(
    folder: Path, record: Record, outputs: Path, dtype: str | None, raise_ports: RaisePorts
) -> tuple[CaseGrade, list[Evidence]]:
    """The grade, and what the verdict can use: nothing where there are no values of the right number."""
    output = read_output(outputs, record.name, record.shape, dtype)
    if output.array is None or output.path is None:
        status = "missing" if output.path is None else "unreadable"
        return CaseGrade(record.name, record.operator, status, file=str(output.path or ""), note=output.problem), []
    used = dtype or output.dtype
    if output.array.size != np.prod(record.shape):
        note = f"expected shape {list(record.shape)}, got {list(output.array.shape)}"
        return CaseGrade(record.name, record.operator, "shape", used, str(output.path), note=note), []
    load = partial(read_case, folder, record, raise_ports)
    stored = load()
    got = output.array.reshape(stored.golden.shape)
    allowed = bound(stored.case, used, golden=stored.golden)
    one = replace(_compared(stored, got, allowed), dtype=used, file=str(output.path))
    failed = one.status == "failed"
    if output.array.shape != record.shape:
        one = replace(one, status="shape", note=_shape_note(record, output, stored, allowed, failed))
    return one, [Evidence(load, got, used, failed)]


def _compared(stored: Stored, got: np.ndarray, allowed: np.ndarray) -> CaseGrade:
    beyond = outside(got, stored.golden, allowed)
    distance = np.nan_to_num(np.abs(got - stored.golden), nan=np.inf)
    index = int(np.argmax(distance / allowed))  # a bound is never 0
    places = np.unravel_index(index, split_shape(stored.case))
    place = ", ".join(f"{name} {at}" for name, at in zip(PLACE_NAMES[stored.case.operator], places, strict=True))
    worst = Worst(place, float(got.flat[index]), float(stored.golden.flat[index]), float(allowed.flat[index]))
    count, nans = int(np.count_nonzero(beyond)), int(np.count_nonzero(np.isnan(got)))
    note = f"{nans} of {got.size} values are nan" if nans else ""
    status = "failed" if count else "passed"
    return CaseGrade(stored.record.name, stored.record.operator, status, outside=count, nans=nans, total=got.size, worst=worst, note=note)


def _shape_note(record: Record, output: Output, stored: Stored, allowed: np.ndarray, failed: bool) -> str:
    """What to do about another shape: nothing but a reshape, a transposition, or not known."""
    assert output.array is not None
    line = f"expected shape {list(record.shape)}, got {list(output.array.shape)}"
    if not failed:
        return f"{line}; the values are right in this order: reshape the output"
    golden, limits = stored.golden.reshape(record.shape), allowed.reshape(record.shape)
    for order in permutations(range(golden.ndim)):
        turned = golden.transpose(order)
        if turned.shape == output.array.shape and not outside(output.array, turned, limits.transpose(order)).any():
            back = [order.index(axis) for axis in range(golden.ndim)]
            return f"{line}; the values are right after transpose({', '.join(map(str, back))})"
    return line


def _case_json(case: CaseGrade) -> dict[str, Any]:
    worst = case.worst and {
        "place": case.worst.place, "got": _number(case.worst.got), "expected": _number(case.worst.expected),
        "allowed": _number(case.worst.allowed),
    }  # fmt: skip
    return {
        "name": case.name, "operator": case.operator, "status": case.status, "dtype": case.dtype, "file": case.file,
        "outside": case.outside, "nans": case.nans, "total": case.total, "worst": worst, "note": case.note,
    }  # fmt: skip


def _number(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)
