"""What came of the probes: a grade for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...compare import compare
from ...errors import ModelFileError
from ...graph.dialect import Dialect, from_table
from .write import FORMAT, INDEX, SCRIPT

PASSED, COMPILED, WRONG, FAILED, NOT_RUN = "passed", "compiled only", "wrong values", "refused", "not run"
TAKEN = (PASSED, COMPILED)
LINE = 160  # characters of a log that a report quotes


@dataclass(frozen=True)
class Result:
    """What came of one probe. `detail`: the worst difference, or the log's last line where the command failed."""

    name: str
    question: str
    value: str
    asks: str
    opset: int
    ir: int
    grade: str
    detail: str = ""

    @property
    def taken(self) -> bool:
        """Whether the compiler took it, and gave the right values where it gave any."""
        return self.grade in TAKEN


@dataclass(frozen=True)
class Results:
    """All of them, and the dialect that they were written around."""

    dialect: Dialect
    built_in: bool
    results: tuple[Result, ...]

    def of(self, question: str) -> list[Result]:
        """Those of one question, in the order of preference."""
        return [result for result in self.results if result.question == question]

    def count(self, *grades: str) -> int:
        """How many have one of these grades."""
        return sum(result.grade in grades for result in self.results)


def read_results(folder: Path) -> Results:
    """Reads what `run.sh` left in a folder of probes.

    Raises:
        ModelFileError: no index of probes, one that cannot be read, an array of outputs that is none, or nothing was run yet.
    """
    path = folder / INDEX
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            raise ValueError(f"format {table['format']}")
        dialect = from_table(table["table"], str(path))
        results = tuple(_result(folder, entry) for entry in table["probes"])
        built_in = bool(table["built_in"])
    except FileNotFoundError as error:
        fix = "give the folder that `occport probe -o` wrote"
        raise ModelFileError(f"folder {folder}", expected=f"probes with their {INDEX}", got=f"no {INDEX}", fix=fix) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{path}", expected="what `occport probe -o` writes", got=got, fix="write the probes anew") from error
    if all(result.grade == NOT_RUN for result in results):
        fix = f"run CMD='…' sh {folder / SCRIPT} first"
        raise ModelFileError(f"folder {folder}", expected="results of the probes", got="none", fix=fix)
    return Results(dialect, built_in, results)


def _result(folder: Path, entry: dict[str, Any]) -> Result:
    grade, detail = _grade(folder / entry["name"], entry["outputs"])
    name, question, value, asks, opset, ir = (entry[key] for key in ("name", "question", "value", "asks", "opset", "ir"))
    return Result(name, question, value, asks, opset, ir, grade, detail)


def _grade(folder: Path, outputs: list[dict[str, Any]]) -> tuple[str, str]:
    result = folder / "result"
    try:
        status = (result / "status").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return NOT_RUN, ""
    if status != "0":
        return FAILED, _last_line(result / "log.txt") or f"exit status {status}"
    found = [_output(result, i, entry) for i, entry in enumerate(outputs)]
    if all(path is None for path in found):
        return COMPILED, ""
    notes = []
    for path, entry in zip(found, outputs, strict=True):
        if path is None:
            return WRONG, f"no output {entry['name']}, though there are others"
        want = np.load(folder / entry["file"], allow_pickle=False)
        try:
            got = _read(path, want)
        except (OSError, ValueError) as error:
            return WRONG, f"{path.name} cannot be read: {error}"[:LINE]
        found_here = compare(got, want, atol=entry["atol"], rtol=0)
        if not found_here.passed:
            return WRONG, f"{entry['name']}: {found_here.describe()}"
        notes.append(found_here.max_abs)
    return PASSED, f"max abs {max(notes):.1e}" if max(notes) else "equal"


def _output(result: Path, number: int, entry: dict[str, Any]) -> Path | None:
    """The file of an output: output_<i>.npy, output_<i>_<anything>.npy or <name>.npy, or the same as .bin."""
    for suffix in (".npy", ".bin"):
        names = [f"output_{number}{suffix}", f"output_{number}_*{suffix}", f"{entry['name']}{suffix}"]
        found = [path for name in names for path in sorted(result.glob(name))]
        if found:
            return found[0]
    return None


def _read(path: Path, want: np.ndarray) -> np.ndarray:
    """An output as an array. Raw bytes have the wanted dtype and shape; labels may have another integer's width in .npy."""
    if path.suffix == ".bin":
        data = np.frombuffer(path.read_bytes(), want.dtype.newbyteorder("<"))
        if data.size != want.size:
            raise ValueError(f"expected {want.nbytes} bytes, got {path.stat().st_size}")
        return data.reshape(want.shape).astype(want.dtype)
    got: np.ndarray = np.load(path, allow_pickle=False)
    if got.dtype.kind == want.dtype.kind or (got.dtype.kind in "iu" and want.dtype.kind in "iu"):
        got = got.astype(want.dtype)
    return got


def _last_line(path: Path) -> str:
    """The last line of a log that is not empty, shortened, without control characters."""
    try:
        text = path.read_bytes()[-4096:].decode("utf-8", "replace")
    except OSError:
        return ""
    lines = ["".join(letter for letter in line if letter.isprintable()).strip() for line in text.splitlines()]
    return next((line[:LINE] for line in reversed(lines) if line), "")
