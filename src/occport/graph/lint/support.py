"""A chip's list of operators, and what of a file is not on it.

The list is a text file, one operator a line; `#` begins a comment, an empty line says nothing.

    Conv                          by name; ai.onnx::Conv is the same
    DL::ModulatedDeformConv2d     DOMAIN::NAME
    Gather float32,int64          only where every input and output has one of these element types
    Resize >=13                   only in files of opset 13 or later; <=17 likewise, and both may stand together

Several lines for one operator are ways to be supported: one that holds is enough.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from ...errors import ModelFileError
from .facts import NO_TYPE, Facts, dtype_name
from .finding import Finding
from .scopes import label, operator_of, scopes
from .versions import opset_of

SHOWN = 3  # node names
_OPERATOR = re.compile(r"(?:([A-Za-z0-9_.\-]+)::)?([A-Za-z_]\w*)\Z")
_BOUND = re.compile(r"(>=|<=)(\d+)\Z")
_DTYPES = frozenset(
    "string" if name == "STRING" else dtype_name(code) for name, code in onnx.TensorProto.DataType.items() if name != "UNDEFINED"
)


@dataclass(frozen=True)
class Support:
    """One line of a list."""

    dtypes: frozenset[str] = frozenset()  # empty: any
    least: int = 0  # opset
    most: int = 2**31 - 1

    def covers(self, dtypes: set[str], opset: int) -> bool:
        """Whether a node with these element types in a file of this opset is supported."""
        return self.least <= opset <= self.most and (not self.dtypes or dtypes <= self.dtypes)

    def describe(self) -> str:
        """The condition in words."""
        parts = [", ".join(sorted(self.dtypes))] * bool(self.dtypes) + [f"opset >= {self.least}"] * (self.least > 0)
        return " and ".join(parts + [f"opset <= {self.most}"] * (self.most < 2**31 - 1)) or "any"


def read_support(path: Path) -> dict[str, list[Support]]:
    """Operator (DOMAIN::NAME, or NAME) → its lines. ModelFileError names the line that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise ModelFileError(f"support list {path}", expected="a text file, one operator a line", got=got, fix="check the path") from error
    table: dict[str, list[Support]] = defaultdict(list)
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            operator, support = _read_line(words, f"support list {path}, line {number}")
            table[operator].append(support)
    if not table:
        raise ModelFileError(f"support list {path}", expected="one operator a line", got="none", fix="name the operators of the chip")
    return dict(table)


def _read_line(words: list[str], where: str) -> tuple[str, Support]:
    match = _OPERATOR.match(words[0])
    if match is None:
        raise ModelFileError(where, expected="NAME or DOMAIN::NAME first", got=repr(words[0]))
    domain, name = match.groups()
    dtypes: frozenset[str] = frozenset()
    bounds = {">=": 0, "<=": 2**31 - 1}
    for word in words[1:]:
        bound = _BOUND.match(word)
        if bound is not None:
            bounds[bound[1]] = int(bound[2])
            continue
        dtypes = frozenset(word.split(","))
        if not dtypes <= _DTYPES:
            wrong = ", ".join(sorted(dtypes - _DTYPES))
            fix = "write `Add float32,int64` or `Resize >=13`"
            raise ModelFileError(where, expected="element types or a bound on the opset", got=repr(wrong or word), fix=fix)
    return f"{domain}::{name}" if domain not in (None, "ai.onnx") else name, Support(dtypes, bounds[">="], bounds["<="])


def check_support(model: onnx.ModelProto, table: Mapping[str, list[Support]], facts: Facts) -> Iterator[Finding]:
    """A finding for each operator, and each use of one, that the list does not have. Function bodies are not looked at.

    Args:
        facts: of the main graph; values without a type count as any.
    """
    opset = opset_of(model) or 0
    missing: dict[tuple[str, str], list[onnx.NodeProto]] = defaultdict(list)
    for scope in scopes(model):
        for node in scope.nodes if scope.function is None else ():
            dtypes = {facts.type(name)[0] for name in (*node.input, *node.output) if name} - {NO_TYPE}
            operator = operator_of(node)
            if operator not in table:
                missing[operator, "none"].append(node)
            elif not any(line.covers(dtypes, opset) for line in table[operator]):
                missing[operator, f"{', '.join(sorted(dtypes))} at opset {opset}"].append(node)
    for (operator, got), nodes in sorted(missing.items()):
        names = ", ".join(label(node) for node in nodes[:SHOWN])
        count = f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}: {names}" + ", …" * (len(nodes) > SHOWN)
        lines = " or ".join(line.describe() for line in table.get(operator, []))
        yield Finding("", operator, lines or "an operator of the support list", count if got == "none" else f"{got} in {count}")
