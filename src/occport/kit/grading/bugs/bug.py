"""A bug of a kernel: the golden arithmetic with one thing wrong in it.

A bug changes what the kernel takes its inputs for (`inputs`), the way it reads a map (`way`), or where and what it writes (`output`).
A case that a bug cannot show (another order of one point) keeps its golden value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...cases.case import Case
from ...cases.golden import evaluate
from ...cases.reading import RIGHT, Way

Inputs = Callable[[Case], Case]
Output = Callable[[Case, np.ndarray], np.ndarray]


def _unchanged(case: Case) -> Case:
    return case


def _as_written(case: Case, output: np.ndarray) -> np.ndarray:
    return output


@dataclass(frozen=True)
class Bug:
    """One known bug.

    Attributes:
        name: unique within its operator.
        operator: "msda" or "dcn".
        what: one sentence: what the kernel does wrong.
        look_at: what to look at in the kernel.
        inputs: case → the case that the kernel takes it for.
        way: how the kernel reads a map.
        output: (case, right output) → what the kernel writes, of the same shape; linear, so that it holds for error bounds too.
    """

    name: str
    operator: str
    what: str
    look_at: str
    inputs: Inputs = _unchanged
    way: Way = RIGHT
    output: Output = _as_written


def wrong_output(bug: Bug, case: Case) -> np.ndarray:
    """What a kernel with this bug gives for the case: float64, of the golden output's shape."""
    assert bug.operator == case.operator, (bug.name, case.name)
    return bug.output(case, evaluate(bug.inputs(case), bug.way))


def scaled(operator: str, factor: float) -> Bug:
    """The bug of an output that is `factor` times the right one."""
    what = f"the output is {factor:.6g} times the right one"
    look_at = "the scale of a quantised input or output, or a division by (or missing sum over) heads, levels or points"
    return Bug("scaled", operator, what, look_at, output=lambda case, output: output * factor)
