"""A chip as a user describes it in TOML: what it computes and moves in a second."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from .work import KINDS

FOLDER = Path(__file__).parent / "chips"
DTYPES = ("float32", "float16", "bfloat16", "int8")
_NUMBERS = {"bandwidth": None, "sram": 0.0, "launch": 0.0}  # key → default; None: must be told
_COMPUTING = tuple(kind for kind in KINDS if kind not in ("movement", "view"))


@dataclass(frozen=True)
class Chip:
    """What a chip can do.

    Attributes:
        name: for people.
        bandwidth: of its memory, GB/s.
        sram: on the chip, for activations, MiB.
        launch: time that every node costs, microseconds.
        fuse: whether elementwise nodes are done with the node before them.
        peak: dtype → TFLOP/s, a multiplication and its addition being two.
        efficiency: class of operators (`work.KINDS`) → share of the peak that it reaches at best; 1 where nothing is told.
    """

    name: str
    bandwidth: float
    sram: float
    launch: float
    fuse: bool
    peak: Mapping[str, float]
    efficiency: Mapping[str, float]

    def rate(self, dtype: str, kind: str) -> float:
        """FLOP/s of a class of operators; of a dtype that the chip has no rate for, that of float32."""
        return self.peak.get(dtype, self.peak.get("float32", max(self.peak.values()))) * self.efficiency.get(kind, 1.0) * 1e12


def chip_names() -> tuple[str, ...]:
    """Names of the example chips."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_chip(name: str) -> Chip:
    """Reads a chip: the name of an example, or a TOML file.

    Errors: UserError with the key that is wrong, for a file that cannot be read, unknown or missing keys, and numbers that cannot be.
    """
    path = FOLDER / f"{name}.toml" if name in chip_names() else Path(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else f"no TOML: {error}"
        expected = f"{', '.join(chip_names())}, or a TOML file"
        raise UserError(f"--chip {name}", expected=expected, got=got, fix="copy an example and fill it in") from error
    _only(name, "the file", table, ("name", "fuse", *_NUMBERS, "peak", "efficiency"))
    peak = _rates(name, table, "peak", DTYPES, most=1e6)
    if not peak:
        raise UserError(f"--chip {name}: [peak]", expected=f"TFLOP/s of one of {', '.join(DTYPES)}", got="none", fix="add it")
    numbers = {key: _number(name, key, table.get(key, default)) for key, default in _NUMBERS.items()}
    if numbers["bandwidth"] == 0:
        raise UserError(f"--chip {name}: bandwidth", expected="GB/s, over 0", got="0", fix="fill it in")
    title = table.get("name", path.stem)
    if not isinstance(title, str):
        raise UserError(f"--chip {name}: name", expected="a text", got=repr(title), fix="put it in quotes")
    fuse = table.get("fuse", False)
    if not isinstance(fuse, bool):
        raise UserError(f"--chip {name}: fuse", expected="true or false", got=repr(fuse), fix="correct it")
    efficiency = _rates(name, table, "efficiency", _COMPUTING, 1.0)
    return Chip(title, numbers["bandwidth"], numbers["sram"], numbers["launch"], fuse, peak, efficiency)


def _rates(chip: str, table: Mapping[str, Any], key: str, known: tuple[str, ...], most: float) -> dict[str, float]:
    rates = table.get(key, {})
    if not isinstance(rates, dict):
        raise UserError(f"--chip {chip}: {key}", expected=f"a table [{key}]", got=repr(rates), fix="see the examples")
    _only(chip, f"[{key}]", rates, known)
    found = {name: _number(chip, f"{key}.{name}", value) for name, value in rates.items()}
    for name, value in found.items():
        if not 0 < value <= most:
            raise UserError(f"--chip {chip}: {key}.{name}", expected=f"over 0, at most {most:g}", got=f"{value:g}", fix="correct it")
    return found


def _number(chip: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        got = "none" if value is None else repr(value)
        raise UserError(f"--chip {chip}: {key}", expected="a number from 0 on", got=got, fix="see the examples")
    return float(value)


def _only(chip: str, where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            expected = f"one of {', '.join(known)}"
            raise UserError(f"--chip {chip}: {key} in {where}", expected=expected, got="an unknown key", fix="correct it")
