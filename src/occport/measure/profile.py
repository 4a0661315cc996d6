"""ONNX Runtime's profile of a session: which node took how long in each run, by stage and by operator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from ..graph.stages import REST, stage_of_node
from .flops import of_columns
from .operators import Operator

_RUN, _NODE, _KERNEL = "model_run", "Node", "_kernel_time"
_MICRO = 1e-6  # the profile counts microseconds
_Shapes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class ProfiledRun:
    """One run of a session.

    Attributes:
        stages: seconds of each stage; a node whose name tells nothing counts for the stage before it.
        flops: operations of each stage that has any.
        operators: a call each, in the order of the run.
    """

    stages: Mapping[str, float]
    flops: Mapping[str, int]
    operators: tuple[Operator, ...]


def read_profile(path: Path) -> list[ProfiledRun]:
    """Reads the profile that `Session.profile` has written. Errors: ModelFileError for a file that is none."""
    try:
        events = json.loads(path.read_text(encoding="utf-8"))
        runs = [event for event in events if event.get("name") == _RUN]
        nodes = [event for event in events if event.get("cat") == _NODE and event["name"].endswith(_KERNEL)]
        nodes.sort(key=lambda event: event["ts"])
        return [_run(run, nodes) for run in sorted(runs, key=lambda event: event["ts"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"profile {path}", expected="one that ONNX Runtime has written", got=f"{error}") from error


def _run(run: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> ProfiledRun:
    begin, end = run["ts"], run["ts"] + run["dur"]
    stages: dict[str, float] = {}
    flops: dict[str, int] = {}
    operators, stage = [], REST
    for node in nodes:
        if begin <= node["ts"] <= end:
            seconds, details = node["dur"] * _MICRO, node["args"]
            stage = stage_of_node(node["name"]) or stage
            stages[stage] = stages.get(stage, 0.0) + seconds
            count = _flops(details)
            if count:
                flops[stage] = flops.get(stage, 0) + count
            operators.append(Operator(details["op_name"], 1, seconds, count))
    return ProfiledRun(stages, flops, tuple(operators))


def _flops(details: Mapping[str, Any]) -> int:
    """Operations of a node as `flops.py` counts them; 0 where the kind of node or its shapes tell nothing."""
    name = str(details["op_name"])
    formula = next((formula for end, formula in _FORMULAS if name.endswith(end)), None)
    into, out = (list(_shapes(details.get(key, ()))) for key in ("input_type_shape", "output_type_shape"))
    return formula(into, out) if formula is not None and len(into) > 1 and out else 0


def _shapes(listed: Sequence[Mapping[str, Sequence[int]]]) -> Iterator[Sequence[int]]:
    """[{"float": [1, 3]}, …] → [1, 3], …; an absent input is {}."""
    for entry in listed:
        yield from entry.values()


def _conv(into: _Shapes, out: _Shapes) -> int:
    return 2 * prod(out[0]) * prod(into[1][1:])  # (O, C/groups, …)


def _transposed(into: _Shapes, out: _Shapes) -> int:
    return 2 * prod(into[0]) * prod(into[1][1:])  # (C, O/groups, …)


def _matmul(into: _Shapes, out: _Shapes) -> int:
    """2 M N K. The first factor is (M, K) or transposed: K is what is left of it without M."""
    rows = out[0][-2] if len(out[0]) > 1 else 1
    return 2 * prod(out[0]) * (prod(into[0][-2:]) // max(rows, 1))


def _deform(into: _Shapes, out: _Shapes) -> int:
    return of_columns(into[1], out[0], into[0][1])


# by the end of the operator's name: ONNX Runtime's fused ones are called FusedConv, NhwcFusedConv, FusedMatMul, …
_FORMULAS: tuple[tuple[str, Callable[[_Shapes, _Shapes], int]], ...] = (
    ("DeformConv", _deform),
    ("ConvTranspose", _transposed),
    ("Conv", _conv),
    ("MatMul", _matmul),
    ("Gemm", _matmul),
)
