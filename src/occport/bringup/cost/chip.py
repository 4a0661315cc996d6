"""A chip as a user describes it in TOML: what it computes and moves in a second."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from .work import KINDS

FOLDER = Path(__file__).parent / "chips"
DTYPES = ("float32", "float16", "bfloat16", "int8")


class _Range(NamedTuple):
    """What a number can be; beyond it was meant in another unit."""

    unit: str
    least: float
    most: float


_NUMBERS = {"bandwidth": _Range("GB/s", 1e-3, 1e6), "sram": _Range("MiB", 0.0, 1e6), "launch": _Range("microseconds", 0.0, 1e6)}
_SHOWN = 40  # characters of a wrong value in a message
_USUAL = {"sram": 0.0, "launch": 0.0}  # the bandwidth must be told
_PEAKS, _SHARES = _Range("TFLOP/s", 1e-6, 1e6), _Range("a share of the peak", 1e-6, 1.0)
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

    @property
    def fallback(self) -> str:
        """The dtype whose rate those have that the chip has none for: float32, or without that the fastest."""
        return "float32" if "float32" in self.peak else max(self.peak, key=lambda dtype: self.peak[dtype])

    def rate(self, dtype: str, kind: str) -> float:
        """FLOP/s of a class of operators; of a dtype that the chip has no rate for, that of `fallback`."""
        return self.peak[dtype if dtype in self.peak else self.fallback] * self.efficiency.get(kind, 1.0) * 1e12


def chip_names() -> tuple[str, ...]:
    """Names of the example chips."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_chip(name: str) -> Chip:
    """Reads a chip: the name of an example, or a TOML file.

    Errors: UserError with the key that is wrong, for a file that cannot be read, unknown or missing keys, and numbers that cannot be
        or that cannot be meant in their unit.
    """
    path = FOLDER / f"{name}.toml" if name in chip_names() else Path(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else f"no TOML: {error}"
        expected = f"{', '.join(chip_names())}, or a TOML file"
        raise UserError(f"--chip {name}", expected=expected, got=got, fix="copy an example and fill it in") from error
    _only(name, "the file", table, ("name", "fuse", *_NUMBERS, "peak", "efficiency"))
    peak = _rates(name, table, "peak", DTYPES, _PEAKS)
    if not peak:
        raise UserError(f"--chip {name}: [peak]", expected=f"TFLOP/s of one of {', '.join(DTYPES)}", got="none", fix="add it")
    numbers = {key: _number(name, key, table.get(key, _USUAL.get(key)), bounds) for key, bounds in _NUMBERS.items()}
    title = table.get("name", path.stem)
    if not isinstance(title, str):
        raise UserError(f"--chip {name}: name", expected="a text", got=repr(title), fix="put it in quotes")
    fuse = table.get("fuse", False)
    if not isinstance(fuse, bool):
        raise UserError(f"--chip {name}: fuse", expected="true or false", got=repr(fuse), fix="correct it")
    efficiency = _rates(name, table, "efficiency", _COMPUTING, _SHARES)
    return Chip(title, numbers["bandwidth"], numbers["sram"], numbers["launch"], fuse, peak, efficiency)


def _rates(chip: str, table: Mapping[str, Any], key: str, known: tuple[str, ...], bounds: _Range) -> dict[str, float]:
    rates = table.get(key, {})
    if not isinstance(rates, dict):
        raise UserError(f"--chip {chip}: {key}", expected=f"a table [{key}]", got=repr(rates), fix="see the examples")
    _only(chip, f"[{key}]", rates, known)
    return {name: _number(chip, f"{key}.{name}", value, bounds) for name, value in rates.items()}


def _number(chip: str, key: str, value: object, bounds: _Range) -> float:
    unit, least, most = bounds
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        got = "none" if value is None else f"{value:.6g}" if isinstance(value, float) else repr(value)
        got = got if len(got) <= _SHOWN else f"{got[:_SHOWN]}... ({len(got)} characters)"
        expected = f"{unit}: a number from {least:,g} to {most:,.0f}"
        raise UserError(f"--chip {chip}: {key}", expected=expected, got=got, fix="give it in this unit; see the examples")
    return float(value)


def _only(chip: str, where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            expected = f"one of {', '.join(known)}"
            raise UserError(f"--chip {chip}: {key} in {where}", expected=expected, got="an unknown key", fix="correct it")
