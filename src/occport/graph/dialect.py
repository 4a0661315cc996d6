"""Dialects: how a chip names and cuts the two custom operators, as data in `dialects/*.toml`, all read by one strict loader.

A contract lists the ports of a node in order, each with dtype, rank and *form* (the closed list of `forms.py`: what the port
holds), its attributes with types, its output, and the limits of the target's kernel. A dialect without contracts uses standard
operators only. A user's own dialect is such a file too, given by its path; `base = "NAME"` starts from a built-in one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import onnx

from ..errors import ExportError
from .attributes import ATTRIBUTE_FORMS
from .contract import Attribute, Contract, Limit, Port
from .forms import OUTPUT_FORMS, PORT_FORMS, SCALARS, obtainable
from .sizes import SIZES

FOLDER = Path(__file__).parent / "dialects"
DTYPES = ("float32", "float16", "bfloat16", "int64", "int32")
FLOATS = DTYPES[:3]
PLACES = ("value", "constant", "initializer")
BIASES = ("batchnorm", "add", "input")  # what follows a DCN: BatchNormalization; folded and Add; folded into a fifth input
ATTRIBUTE_TYPES = {"int": int, "ints": list, "float": float, "string": str}
NEEDED = {
    "msda": ("value", "spatial_shapes", "sampling_locations", "attention_weights"),
    "dcn": ("input", "offset", "mask", "weight"),
}


@dataclass(frozen=True)
class Guess:
    """Something that nobody has told us about the target, and the flag that changes it."""

    what: str
    flag: str


@dataclass(frozen=True)
class Defaults:
    """What an export takes where the user says nothing; each is a flag of `occport export`."""

    calibration: str = "runtime"
    outputs: str = ""  # "" = labels, or probabilities without semantics
    label_dtype: str = "int64"
    softmax: bool = False
    dropped: bool = True
    img_rank: int = 5
    lidar2img_rank: int = 4
    msda: str = ""  # arithmetic of bodies and of the standard dialect; "" = the best that the opset has
    dcn: str = ""


@dataclass(frozen=True)
class Dialect:
    """A target's way of writing the network."""

    name: str
    title: str
    checked_against: str
    opset: int
    functions: bool
    default: bool = False  # taken where the user names none; one of the built-in dialects
    ir: int = 0  # 0 = the oldest that the opset goes with
    msda: Contract | None = None
    dcn: Contract | None = None
    export: Defaults = Defaults()
    guesses: tuple[Guess, ...] = ()

    @property
    def domains(self) -> dict[str, int]:
        """Domain → version of its custom nodes."""
        return {contract.domain: contract.version for contract in (self.msda, self.dcn) if contract is not None}

    @property
    def in_empty_domain(self) -> bool:
        """True where custom nodes stand in ONNX's own domain, where no function body can."""
        return "" in self.domains


def names() -> list[str]:
    """The built-in dialects."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def default() -> Dialect:
    """The built-in dialect that is taken where the user names none."""
    return next(dialect for dialect in map(load, names()) if dialect.default)


def load(name: str) -> Dialect:
    """A built-in dialect by name, or a user's own by the path of its file. ExportError when there is none."""
    if name in names():
        return read(FOLDER / f"{name}.toml")
    if name.endswith(".toml"):
        return read(Path(name))
    raise ExportError(f"dialect {name!r}", expected=f"one of {', '.join(names())}, or a .toml file", fix="choose with --dialect")


def read(path: Path) -> Dialect:
    """A dialect from its file. ExportError names the file and the dotted key of anything unknown, missing or out of place."""
    return from_table(_table(path), str(path))


def from_table(table: Mapping[str, Any], where: str) -> Dialect:
    """A dialect from a TOML file's values, or from what `to_table` gave. ExportError as `read`."""
    dialect: Dialect = _build(Dialect, table, where)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", dialect.name):  # file names have it in them
        raise ExportError(f"{where}: name", expected="letters, digits, _ . or -", got=repr(dialect.name))
    if (dialect.msda is None) != (dialect.dcn is None):
        raise ExportError(where, expected="msda and dcn, or neither", got="msda alone" if dialect.msda else "dcn alone")
    for key, contract in (("msda", dialect.msda), ("dcn", dialect.dcn)):
        if contract is not None:
            _check_contract(key, contract, f"{where}: {key}")
    if dialect.msda is not None and dialect.dcn is not None:
        check_names(dialect.msda, dialect.dcn, where)
    return dialect


def to_table(dialect: Dialect) -> dict[str, Any]:
    """The dialect as TOML and JSON values, in full; `from_table` reads it back."""
    table: dict[str, Any] = _plain(asdict(dialect))
    return {key: value for key, value in table.items() if value is not None}


def check_names(msda: Contract, dcn: Contract, where: str) -> None:
    """ExportError where the two operators cannot be told from each other, or stand under ONNX's own name."""
    if "ai.onnx" in (msda.domain, dcn.domain) or (msda.domain, msda.op_type) == (dcn.domain, dcn.op_type):
        got = f"msda={msda.title}, dcn={dcn.title}"
        raise ExportError(where, expected="two different names outside ONNX's own domain", got=got)
    for contract in (msda, dcn):
        if not contract.domain and onnx.defs.has(contract.op_type):
            raise ExportError(where, expected="in the empty domain a name that ONNX does not have", got=contract.op_type)


def _table(path: Path) -> dict[str, Any]:
    """The values of a file, on top of those of its base."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        fix = "`occport dialects` lists those that are built in"
        raise ExportError(f"dialect file {path}", expected="a TOML file", got=got, fix=fix) from error
    base = table.pop("base", None)
    if base is None:
        return table
    if base not in names():
        raise ExportError(f"{path}: base", expected="one of " + ", ".join(names()), got=repr(base))
    under = {**_table(FOLDER / f"{base}.toml"), "name": path.stem, "default": False}
    for key in _TABLES:
        if isinstance(table.get(key), dict) and key in under:
            table[key] = {**under[key], **table[key]}
    return {**under, **table}


_NAMES = ("other_names", "dtypes")  # lists of texts
_NESTED = {"output": Port}  # by key; at the top:
_TABLES = {"msda": Contract, "dcn": Contract, "export": Defaults}
_LISTS = {"inputs": Port, "attributes": Attribute, "guesses": Guess, "limits": Limit}
_CLOSED: Mapping[tuple[type, str], Collection[object]] = {
    (Port, "dtype"): DTYPES,
    (Port, "place"): PLACES,
    (Port, "form"): PORT_FORMS,
    (Attribute, "form"): ("", *ATTRIBUTE_FORMS),
    (Attribute, "type"): ATTRIBUTE_TYPES,
    (Contract, "bias"): BIASES,
    (Contract, "num_embed"): ("all", "head"),
    (Defaults, "calibration"): ("runtime", "tables", "fixed"),
    (Defaults, "outputs"): ("", "labels", "logits", "probabilities"),
    (Defaults, "label_dtype"): ("int64", "int32"),
    (Defaults, "img_rank"): (4, 5),
    (Defaults, "lidar2img_rank"): (3, 4),
    (Defaults, "msda"): ("", "gridsample", "gather"),
    (Defaults, "dcn"): ("", "deformconv", "gridsample", "gather"),
}


def _build(kind: type, table: Any, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise ExportError(where, expected="a table", got=repr(table))
    known = {field.name: field for field in fields(kind)}
    arguments: dict[str, Any] = {}
    for key, value in table.items():
        place = f"{where}{': ' if kind is Dialect else '.'}{key}"
        if key not in known:
            keys = [*known, *["base"] * (kind is Dialect)]
            raise ExportError(place, expected="one of " + ", ".join(keys), got="an unknown key")
        nested = _TABLES if kind is Dialect else _NESTED
        if key in nested:
            value = _build(nested[key], value, place)
        elif key in _LISTS:
            if not isinstance(value, list):
                raise ExportError(place, expected="a list of tables", got=repr(value))
            value = tuple(_build(_LISTS[key], item, f"{place}[{i}]") for i, item in enumerate(value))
        elif key in _NAMES:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ExportError(place, expected="a list of names", got=repr(value))
            value = tuple(value)
        elif type(value).__name__ not in str(known[key].type).split(" | "):
            raise ExportError(place, expected=str(known[key].type).replace(" |", " or"), got=repr(value))
        if (kind, key) == (Contract, "dtypes") and not {"float32"} <= set(value) <= set(FLOATS):
            raise ExportError(place, expected=f"float32, and further ones of {', '.join(FLOATS)}", got=repr(list(value)))
        if (kind, key) in _CLOSED and value not in _CLOSED[kind, key]:
            raise ExportError(place, expected="one of " + ", ".join(repr(choice) for choice in _CLOSED[kind, key]), got=repr(value))
        arguments[key] = value
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ExportError(where, expected="every field of its kind", got=str(error).split(") ")[-1]) from error


def _check_contract(key: str, contract: Contract, where: str) -> None:
    """ExportError for a form in the wrong place, one that is there twice, and for what the operator needs and no port holds."""
    for i, port in enumerate(contract.inputs):
        if PORT_FORMS[port.form].operator != key:
            raise ExportError(f"{where}.inputs[{i}].form", expected=f"a form of {key}'s inputs", got=repr(port.form))
        if port.form not in SCALARS and port.rank != len(PORT_FORMS[port.form].shape.split()):
            expected = f"the rank of ({', '.join(PORT_FORMS[port.form].shape.split())})"
            raise ExportError(f"{where}.inputs[{i}].rank", expected=expected, got=str(port.rank))
    for what, given in (("form", [port.form for port in contract.inputs]), ("name", [port.name for port in contract.inputs])):
        twice = sorted({one for one in given if given.count(one) > 1})
        if twice:
            raise ExportError(f"{where}.inputs", expected=f"every {what} once", got=f"{twice[0]!r} twice")
    if contract.output.form not in OUTPUT_FORMS[key]:
        raise ExportError(f"{where}.output.form", expected="one of " + ", ".join(OUTPUT_FORMS[key]), got=repr(contract.output.form))
    missing = sorted(set(NEEDED[key]) - obtainable(port.form for port in contract.inputs))
    if missing:
        raise ExportError(f"{where}.inputs", expected=f"ports from which {missing[0]} follows", got="none")
    if not contract.op_type:
        raise ExportError(f"{where}.op_type", expected="the operator's name", got="an empty one")
    for attribute in contract.attributes:
        place = f"{where}: attribute {attribute.name}"
        if attribute.form and (key != "dcn" or ATTRIBUTE_FORMS[attribute.form].type != attribute.type):
            expected = f"{ATTRIBUTE_FORMS[attribute.form].type} for {attribute.form!r}, of dcn"
            raise ExportError(place, expected=expected, got=f"{attribute.type} of {key}")
        if not attribute.form and type(attribute.default) is not ATTRIBUTE_TYPES[attribute.type]:
            raise ExportError(place, expected=f"a form, or a default that is of type {attribute.type}", got=repr(attribute.default))
    for i, limit in enumerate(contract.limits):
        if limit.size not in SIZES[key]:
            raise ExportError(f"{where}.limits[{i}].size", expected="one of " + ", ".join(SIZES[key]), got=repr(limit.size))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
