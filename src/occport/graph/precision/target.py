"""What a file of 16 bits can be: which precision goes with which dialect, opset and form."""

from __future__ import annotations

from ...errors import ExportError
from ..dialect import Dialect
from ..functions import Arithmetics
from ..rewrite import chosen
from .types import EXACT, PRECISIONS

_SAMPLING = Arithmetics("gridsample", "deformconv")  # operators that keep their places inside
_FIRST_STANDARD = 20  # at which both are there


def check_precision(precision: str, dialect: Dialect, opset: int, functions: bool, arithmetics: Arithmetics) -> None:
    """ExportError for a combination that cannot be."""
    if precision == EXACT:
        return
    if precision not in PRECISIONS:
        raise ExportError("--precision", expected=f"one of {', '.join((EXACT, *PRECISIONS))}", got=str(precision))
    wanted = PRECISIONS[precision]
    if opset < wanted.first_opset:
        fix = "leave --opset out, or take fp16"
        expected = f"opset {wanted.first_opset}, from which on convolutions have {wanted.name}"
        raise ExportError(f"--precision {precision}", expected=expected, got=f"opset {opset}", fix=fix)
    if functions:
        fix = "leave --functions out; occport runs the file with bodies that it makes in memory"
        raise ExportError(f"--precision {precision}", expected="a file without --functions, whose bodies are float32", got="one", fix=fix)
    if dialect.msda is None and chosen(opset, arithmetics) != _SAMPLING:
        forms = f"--msda {_SAMPLING.msda} --dcn {_SAMPLING.dcn}"
        got = " ".join(f"--{operator} {form}" for operator, form in chosen(opset, arithmetics)._asdict().items())
        way = f"give --opset {_FIRST_STANDARD} or higher" if opset < _FIRST_STANDARD else "leave --msda and --dcn out"
        fix = f"{way}; other forms compute places in the graph, where 16 bits are too few"
        raise ExportError(f"--precision {precision}", expected=f"{forms} in dialect {dialect.name}", got=f"{got} at opset {opset}", fix=fix)
