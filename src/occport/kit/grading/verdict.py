"""The verdict on a kernel: which known bug explains all of its outputs, the failed and the passed ones.

A bug explains a case where every element is what a kernel with this bug and no other would give, within the error bound of that
wrong arithmetic. Only a bug that explains every case is named; a combination of bugs, or a bug that is not in the table, stays unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..cases.folder import Stored
from ..cases.golden import evaluate
from ..cases.reading import RIGHT
from ..cases.tolerance import bound
from .bugs.bug import Bug, scaled
from .bugs.table import bugs

KINDS = {
    "passed": "all cases passed", "named": "one known bug explains all cases", "ambiguous": "several known bugs explain all cases",
    "unknown": "no single known bug explains all cases", "shape": "the values are right, the shape is not",
    "incomplete": "some cases have no output to judge by, the others passed", "unjudged": "no case has an output to judge by",
}  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """One case with an output that has as many values as it should.

    Attributes:
        load: reads the case.
        got: the output in float64, in the operator's own shape.
        dtype: of the tolerances.
        failed: some element is outside them.
    """

    load: Callable[[], Stored]
    got: np.ndarray
    dtype: str
    failed: bool


@dataclass(frozen=True)
class Verdict:
    """What is wrong with the kernel of one operator.

    Attributes:
        operator: "msda" or "dcn".
        kind: one of KINDS.
        bugs: the bugs that explain every case.
        unjudged: number of cases without an output to judge by: missing, damaged, of the wrong size.
    """

    operator: str
    kind: str
    bugs: tuple[Bug, ...]
    unjudged: int


def outside(got: np.ndarray, want: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """True where |got - want| exceeds what is allowed. An infinite bound allows anything, and nan is right where it is wanted."""
    with np.errstate(invalid="ignore"):
        near = np.abs(got - want) <= allowed
    return np.asarray(~(near | np.isinf(allowed) | (np.isnan(got) & np.isnan(want))))


def expectation(bug: Bug, stored: Stored, dtype: str, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a kernel in `dtype` with this bug gives for a case, and how far it may be off; `right` is the bound of a right kernel."""
    taken = bug.inputs(stored.case)
    if taken is stored.case and bug.way is RIGHT:
        output, allowed = stored.golden, right
    else:
        output = evaluate(taken, bug.way)
        allowed = bound(taken, dtype, bug.way, output)
    wrong = bug.output(stored.case, output)
    return wrong, np.nan_to_num(np.abs(bug.output(stored.case, allowed)), nan=0.0, posinf=np.inf)


def judge(operator: str, evidence: Sequence[Evidence], unjudged: int, wrong_shapes: int) -> Verdict:
    """The verdict on one operator.

    Args:
        operator: "msda" or "dcn".
        evidence: its cases with an output of the right size.
        unjudged: number of its other cases.
        wrong_shapes: how many of `evidence` have an output of another shape than they should.
    """
    if any(one.failed for one in evidence):
        found = _explaining(operator, evidence)
        return Verdict(operator, {0: "unknown", 1: "named"}.get(len(found), "ambiguous"), found, unjudged)
    kind = "shape" if wrong_shapes else "unjudged" if not evidence else "incomplete" if unjudged else "passed"
    return Verdict(operator, kind, (), unjudged)


def _explaining(operator: str, evidence: Sequence[Evidence]) -> tuple[Bug, ...]:
    """The bugs that explain every case. Small cases come first, failed ones before passed ones: most bugs are out after a few."""
    ordered = sorted(evidence, key=lambda one: (not one.failed, one.got.size))
    candidates = [bug for bug in bugs(operator) if bug.name != "scaled"]
    factor = _factor([one for one in ordered if one.failed])
    if factor is not None:
        candidates.append(scaled(operator, factor))
    shown: set[str] = set()  # bugs for which at least one failed element was not a matter of an infinite bound
    for one in ordered:
        if not candidates:
            break
        stored = one.load()
        right = bound(stored.case, one.dtype, golden=stored.golden)
        beyond = outside(one.got, stored.golden, right)
        left = []
        for bug in candidates:
            wrong, allowed = expectation(bug, stored, one.dtype, right)
            if not outside(one.got, wrong, allowed).any():
                left.append(bug)
                if (beyond & np.isfinite(allowed)).any():
                    shown.add(bug.name)
        candidates = left
    return tuple(bug for bug in candidates if bug.name in shown)


def _factor(failed: Sequence[Evidence]) -> float | None:
    """The one factor between right outputs and the failed ones, by least squares; None where no factor is worth a try."""
    product = square = 0.0
    for one in failed:
        golden = one.load().golden
        if not np.isfinite(one.got).all():
            return None
        product += float(np.vdot(one.got, golden))
        square += float(np.vdot(golden, golden))
    factor = product / square if square else 0.0
    return factor if abs(factor) > 1e-6 and abs(factor - 1) > 1e-6 else None

