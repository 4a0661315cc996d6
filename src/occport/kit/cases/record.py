"""The record of a case: what `case.json` and `index.json` say about it, and reading that back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelFileError
from .case import OPERATORS
from .tolerance import Pair

FORMAT = "occport vectors 1"
INDEX = "index.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
AGAIN = "write the vectors again with `occport vectors MODEL.onnx -o DIR`"


@dataclass(frozen=True)
class Port:
    """What one input of the node is: the form as in `graph/forms.py`; `graph_input`: fed to the model, not a constant inside it."""

    name: str
    form: str
    dtype: str
    shape: tuple[int, ...]
    graph_input: bool


@dataclass(frozen=True)
class Record:
    """One case on disk. `shape`, `dtype`: of the output. `tolerance`: dtype of the kernel → atol and rtol. `facts`: seed, sampling."""

    name: str
    operator: str
    source: str
    what: str
    attributes: Mapping[str, Any]
    inputs: tuple[Port, ...]
    shape: tuple[int, ...]
    dtype: str
    tolerance: Mapping[str, Pair]
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the files."""
        return {
            "name": self.name, "operator": self.operator, "source": self.source, "what": self.what, "attributes": dict(self.attributes),
            "inputs": [asdict(port) for port in self.inputs], "output": {"dtype": self.dtype, "shape": list(self.shape)},
            "tolerance": {dtype: {"atol": pair.atol, "rtol": pair.rtol} for dtype, pair in self.tolerance.items()}, **self.facts,
        }  # fmt: skip


_FIELDS = ("name", "operator", "source", "what", "attributes", "inputs", "output", "tolerance")


@dataclass(frozen=True)
class Index:
    """What `index.json` says: the dialect's name, its contracts by operator as they were written, the cases."""

    dialect: str
    contracts: Mapping[str, Any]
    records: tuple[Record, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        cases = [record.to_json() for record in self.records]
        return {"format": FORMAT, "dialect": self.dialect, "contracts": dict(self.contracts), "cases": cases}


def read_index(folder: Path) -> Index:
    """The index of a folder that `occport vectors` has written.

    Errors: ModelFileError where it is absent, no JSON, of another format, or lacks a field.
    """
    path = folder / INDEX
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        got, fix = error.strerror or str(error), "give the folder that `occport vectors MODEL.onnx -o DIR` wrote"
        raise ModelFileError(f"vectors folder {folder}", expected=f"an {INDEX} in it", got=got, fix=fix) from error
    except ValueError as error:
        raise ModelFileError(f"{path}", expected="JSON", got=str(error), fix=AGAIN) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        got = repr(found.get("format")) if isinstance(found, dict) else type(found).__name__
        raise ModelFileError(f"{path}, format", expected=repr(FORMAT), got=got, fix=AGAIN)
    dialect, contracts, cases = found.get("dialect"), found.get("contracts"), found.get("cases")
    if not isinstance(dialect, str) or not isinstance(contracts, dict) or not isinstance(cases, list):
        raise ModelFileError(f"{path}", expected="dialect, contracts and cases", got=f"the fields {', '.join(found)}", fix=AGAIN)
    records = tuple(_record(path, number, case) for number, case in enumerate(cases))
    names = [record.name for record in records]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelFileError(f"{path}", expected="each case once", got=f"{twice[0]} twice", fix=AGAIN)
    return Index(dialect, contracts, records)


def _record(path: Path, number: int, found: Any) -> Record:
    """One of the cases. Whatever is of the wrong kind is one error: nobody writes these by hand."""
    where = f"{path}, case {number}"
    if not isinstance(found, dict) or set(_FIELDS) - set(found):
        got = f"without {', '.join(field for field in _FIELDS if field not in found)}" if isinstance(found, dict) else type(found).__name__
        raise ModelFileError(where, expected=f"the fields {', '.join(_FIELDS)}", got=got, fix=AGAIN)
    try:
        record = Record(
            name=found["name"], operator=found["operator"], source=found["source"], what=found["what"],
            attributes=dict(found["attributes"]), inputs=tuple(_port(port) for port in found["inputs"]),
            shape=tuple(int(size) for size in found["output"]["shape"]), dtype=str(found["output"]["dtype"]),
            tolerance={dtype: Pair(float(pair["atol"]), float(pair["rtol"])) for dtype, pair in found["tolerance"].items()},
            facts={key: fact for key, fact in found.items() if key not in _FIELDS},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(where, expected="a record of a case", got=f"{type(error).__name__}: {error}", fix=AGAIN) from error
    check_name(where, record.name)
    if record.operator not in OPERATORS:
        raise ModelFileError(f"{where}, operator", expected=" or ".join(OPERATORS), got=repr(record.operator), fix=AGAIN)
    return record


def _port(found: Mapping[str, Any]) -> Port:
    shape = tuple(int(size) for size in found["shape"])
    return Port(str(found["name"]), str(found["form"]), np.dtype(found["dtype"]).name, shape, bool(found["graph_input"]))


def check_name(where: str, name: Any) -> None:
    """Raises ModelFileError unless the name can be a file's or folder's anywhere."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModelFileError(f"{where}, name", expected="letters, digits, _, . and -", got=repr(name), fix=AGAIN)
