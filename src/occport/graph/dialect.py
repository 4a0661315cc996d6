"""Dialects: how a chip names and cuts the two custom operators, as data in `dialects/*.toml`, all read by one strict loader.

A contract lists the ports of a node in order, each with dtype, rank and *form* (the closed list of `forms.py`: what the port
holds), its attributes with types, and its output. A dialect without contracts uses standard operators only.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import ExportError
from . import forms
from .contract import Attribute, Contract, Port

FOLDER = Path(__file__).parent / "dialects"
DTYPES = ("float32", "float16", "int64", "int32")
PLACES = ("value", "constant", "initializer")
BIASES = ("batchnorm", "add", "input")  # what follows a DCN: BatchNormalization; folded and Add; folded into a fifth input


@dataclass(frozen=True)
class Guess:
    """Something that nobody has told us about the target, and the flag that changes it."""

    what: str
    flag: str


@dataclass(frozen=True)
class Dialect:
    """A target's way of writing the network."""

    name: str
    title: str
    checked_against: str
    opset: int
    functions: bool
    msda: Contract | None = None
    dcn: Contract | None = None
    guesses: tuple[Guess, ...] = ()

    @property
    def domains(self) -> dict[str, int]:
        """Domain → version of its custom nodes."""
        return {contract.domain: contract.version for contract in (self.msda, self.dcn) if contract is not None}


def names() -> list[str]:
    """The built-in dialects."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Dialect:
    """A built-in dialect by name. ExportError when there is none."""
    if name not in names():
        raise ExportError(f"dialect {name!r}", expected="one of " + ", ".join(names()), fix="choose with --dialect")
    return read(FOLDER / f"{name}.toml")


def read(path: Path) -> Dialect:
    """A dialect from its file. ExportError names the file and the dotted key of anything unknown, missing or out of place."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ExportError(f"dialect file {path}", expected="a TOML file", got=str(error)) from error
    dialect: Dialect = _build(Dialect, table, str(path))
    if (dialect.msda is None) != (dialect.dcn is None):
        raise ExportError(str(path), expected="msda and dcn, or neither", got="msda alone" if dialect.msda else "dcn alone")
    for key, contract, is_attention in (("msda", dialect.msda, True), ("dcn", dialect.dcn, False)):
        ports = enumerate(contract.inputs) if contract is not None else ()
        for i, port in ports:
            if (forms.PORT_FORMS[port.form] is not None) != is_attention:
                raise ExportError(f"{path}: {key}.inputs[{i}].form", expected=f"a form of {key}'s inputs", got=repr(port.form))
    return dialect


_NESTED = {"msda": Contract, "dcn": Contract, "output": Port}
_LISTS = {"inputs": Port, "attributes": Attribute, "guesses": Guess}
_CLOSED: Mapping[tuple[type, str], tuple[str, ...]] = {
    (Port, "dtype"): DTYPES,
    (Port, "place"): PLACES,
    (Port, "form"): tuple(forms.PORT_FORMS),
    (Attribute, "form"): ("", *forms.ATTRIBUTE_FORMS),
    (Attribute, "type"): ("int", "ints"),
    (Contract, "bias"): BIASES,
    (Contract, "num_embed"): ("all", "head"),
}


def _build(kind: type, table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise ExportError(where, expected="a table", got=repr(table))
    known = {field.name: field for field in fields(kind)}
    arguments: dict[str, Any] = {}
    for key, value in table.items():
        place = f"{where}{': ' if kind is Dialect else '.'}{key}"
        if key not in known:
            raise ExportError(place, expected="one of " + ", ".join(known), got="an unknown key")
        if key in _NESTED:
            value = _build(_NESTED[key], value, place)
        elif key in _LISTS:
            if not isinstance(value, list):
                raise ExportError(place, expected="a list of tables", got=repr(value))
            value = tuple(_build(_LISTS[key], item, f"{place}[{i}]") for i, item in enumerate(value))
        elif type(value).__name__ != known[key].type:
            raise ExportError(place, expected=f"{known[key].type}", got=repr(value))
        if (kind, key) in _CLOSED and value not in _CLOSED[kind, key]:
            raise ExportError(place, expected="one of " + ", ".join(repr(choice) for choice in _CLOSED[kind, key]), got=repr(value))
        arguments[key] = value
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ExportError(where, expected="every field of its kind", got=str(error).split(") ")[-1]) from error


@dataclass(frozen=True)
class Settings:
    """What the user changes of a dialect; None leaves it as it is."""

    op_names: tuple[tuple[str, str], ...] = ()  # ("dcn" or "msda", "domain::name")
    scalar_rank: int | None = None
    scalar_dtype: str | None = None
    scalar_place: str | None = None
    num_embed: str | None = None
    shapes_dtype: str | None = None
    im2col_step: int | None = None
    dcn_bias: str | None = None


def with_settings(dialect: Dialect, settings: Settings) -> Dialect:
    """The dialect as the user wants it. ExportError for a setting that the dialect has no place for."""
    if settings != Settings() and dialect.msda is None:
        raise ExportError(
            f"dialect {dialect.name}", expected="no operator settings, as it has no custom nodes",
            fix="choose another dialect, or leave them out",
        )  # fmt: skip
    msda, dcn = dialect.msda, dialect.dcn
    if msda is not None and dcn is not None:
        _check_places(dialect.name, msda, settings)
        for operator, name in settings.op_names:
            domain, separator, op_type = name.partition("::")
            if not (separator and domain and op_type) or operator not in ("dcn", "msda"):
                raise ExportError("--op-name", expected="dcn=DOMAIN::NAME or msda=DOMAIN::NAME", got=f"{operator}={name}")
            if operator == "dcn":
                dcn = replace(dcn, domain=domain, op_type=op_type)
            else:
                msda = replace(msda, domain=domain, op_type=op_type)
        if "ai.onnx" in (msda.domain, dcn.domain) or (msda.domain, msda.op_type) == (dcn.domain, dcn.op_type):
            got = f"msda={msda.domain}::{msda.op_type}, dcn={dcn.domain}::{dcn.op_type}"
            raise ExportError("--op-name", expected="two different names outside ONNX's own domain", got=got)
        msda = replace(
            msda,
            inputs=tuple(_set_port(port, settings) for port in msda.inputs),
            attributes=tuple(
                replace(attribute, default=settings.im2col_step)
                if attribute.name == "im2col_step" and settings.im2col_step is not None
                else attribute
                for attribute in msda.attributes
            ),
            num_embed=settings.num_embed or msda.num_embed,
        )
        dcn = replace(dcn, bias=settings.dcn_bias or dcn.bias)
    return replace(dialect, msda=msda, dcn=dcn)


def _check_places(name: str, msda: Contract, settings: Settings) -> None:
    """ExportError for a setting of something that the attention node does not have."""
    ports = {port.form for port in msda.inputs}
    scalars = bool(ports & set(forms.SCALARS))
    wanted = (
        ("--scalar-rank", settings.scalar_rank, scalars),
        ("--scalar-dtype", settings.scalar_dtype, scalars),
        ("--scalar-place", settings.scalar_place, scalars),
        ("--num-embed", settings.num_embed, "num_embed" in ports),
        ("--shapes-dtype", settings.shapes_dtype, "spatial_shapes" in ports),
        ("--im2col-step", settings.im2col_step, any(attribute.name == "im2col_step" for attribute in msda.attributes)),
    )
    for flag, value, found in wanted:
        if value is not None and not found:
            raise ExportError(flag, expected="a dialect whose attention node has one", got=f"dialect {name}", fix=f"leave {flag} out")


def _set_port(port: Port, settings: Settings) -> Port:
    if port.form in forms.SCALARS:
        rank = port.rank if settings.scalar_rank is None else settings.scalar_rank
        return replace(port, rank=rank, dtype=settings.scalar_dtype or port.dtype, place=settings.scalar_place or port.place)
    if port.form in ("spatial_shapes", "level_start_index"):
        return replace(port, dtype=settings.shapes_dtype or port.dtype)
    return port
