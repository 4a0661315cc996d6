"""mmcv-style config files as data: `_base_` inheritance and overrides by dotted key, without running anything.

Inheritance follows mmcv 1.4 (`Config.fromfile`): a child's dicts are merged into the base's, everything else is replaced, and
`_delete_=True` inside a dict replaces the base's dict as a whole.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .expression import MAX_TEXT, MAX_WHOLE, evaluate_assignments
from .kinds import shown

MAX_BASES = 10  # depth of inheritance


def read_config_file(path: Path) -> dict[str, Any]:
    """Reads a Python config file and its `_base_` files.

    Returns:
        top-level name → value: None, bool, int, float, str, or a list, tuple or dict of such. `_base_` itself is left out.

    Errors: ConfigError, one line with file and, where there is one, line.
    """
    return _read(Path(path), f"config {path}", ())


def _read(path: Path, what: str, chain: tuple[str, ...]) -> dict[str, Any]:
    text = _text(path, what)
    place = os.path.realpath(path)
    if place in chain:
        raise ConfigError(what, expected="bases that end", got="a file that is, by way of its bases, its own base")
    if len(chain) >= MAX_BASES:
        raise ConfigError(what, expected=f"at most {MAX_BASES} bases of bases")
    child = evaluate_assignments(text, str(path))
    names = child.pop("_base_", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: _base_", expected="a file name or a list of file names", got=shown(names))
    bases: dict[str, Any] = {}
    for name in names:
        base = _read(path.parent / name, f"base {path.parent / name} of {path}", (*chain, place))
        if twice := sorted(bases.keys() & base.keys()):
            raise ConfigError(f"{path}: _base_", expected="bases that share no key", got=f"{', '.join(twice)} in two of them")
        bases.update(base)
    return _merged(child, bases, str(path))


def _text(path: Path, what: str) -> str:
    if path.suffix in {".json", ".yaml", ".yml"}:
        raise ConfigError(what, expected="a Python config (.py)", got=path.suffix)
    try:
        if path.is_dir():
            raise ConfigError(what, expected="a file", got="a folder", fix="name a config inside it")
        if not path.exists():
            raise ConfigError(what, expected="a file", got="nothing there", fix=_similar(path))
        if not path.is_file():
            raise ConfigError(what, expected="a file", got="a device, pipe or socket")
        if path.stat().st_size > 4 * MAX_TEXT:
            raise ConfigError(what, expected=f"a config of at most {MAX_TEXT:,} characters", got=f"{path.stat().st_size:,} bytes")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(what, expected="UTF-8 text", got=f"byte 0x{error.object[error.start]:02x} at offset {error.start}") from error
    except OSError as error:
        raise ConfigError(what, expected="a readable file", got=error.strerror or str(error)) from error
    except ValueError as error:  # a null character in the name
        raise ConfigError(what, expected="a file name", got=str(error)) from error


def _similar(path: Path) -> str:
    """A hint for a mistyped name."""
    try:
        there = [entry.name for entry in path.parent.iterdir() if entry.suffix == ".py"]
    except OSError:
        there = []
    close = difflib.get_close_matches(path.name, there, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else "check the path"


def _merged(child: Mapping[str, Any], base: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The base with the child's values in it, as mmcv's `_merge_a_into_b`; the `_delete_` marks are gone."""
    result = dict(base)
    for key, value in child.items():
        if isinstance(value, dict):
            inherited = {} if value.get("_delete_") else base.get(key, {})
            if not isinstance(inherited, dict):
                raise ConfigError(
                    f"{place}: {key}", expected=f"{shown(inherited)} of the base to be replaced by a value of its kind",
                    got="a dict, which can only be merged into a dict", fix="put _delete_=True into it to replace the base's value",
                )
            value = _merged({name: item for name, item in value.items() if name != "_delete_"}, inherited, f"{place}: {key}")
        result[key] = value
    return result


def apply_overrides(config: Mapping[str, Any], overrides: Mapping[str, object], known: Collection[str] = frozenset()) -> dict[str, Any]:
    """The config with some values replaced; `config` itself is left alone.

    Args:
        config: what `read_config_file` returned.
        overrides: dotted key from the config's top → value; items of lists by their index (`a.0.b`). A dict is merged into a dict.
        known: dotted keys that may be set although the file does not have them.

    Errors: ConfigError for a key that is neither in the file nor known, with the closest that are.
    """
    result = dict(config)
    for key, value in overrides.items():
        existing = set(_dotted(result, ""))
        if key not in existing and key not in known:
            close = difflib.get_close_matches(key[:200], existing.union(known), n=3, cutoff=0.7)
            hint = f"did you mean {' or '.join(close)}?" if close else "keys are dotted, as model.img_backbone.depth"
            raise ConfigError(f"override {shown(key)}", expected="a key that the config has", got="an unknown one", fix=hint)
        result = _replaced(result, tuple(key.split(".")), value, key)
    return result


def _dotted(value: Any, prefix: str) -> Iterator[str]:
    """Every key below a value, dotted. Keys that hold a dot themselves cannot be addressed."""
    if isinstance(value, dict):
        pairs: list[tuple[str, Any]] = [(key, item) for key, item in value.items() if isinstance(key, str) and "." not in key]
    elif isinstance(value, list | tuple):
        pairs = [(str(index), item) for index, item in enumerate(value)]
    else:
        return
    for key, item in pairs:
        yield prefix + key
        yield from _dotted(item, f"{prefix}{key}.")


def _replaced(container: Any, parts: tuple[str, ...], value: object, dotted: str) -> Any:
    """A copy of the container with the value put in; every list and dict on the way is copied."""
    if not parts:
        inherits = isinstance(value, dict) and isinstance(container, dict)
        return _merged({"": value}, {"": container}, dotted)[""] if inherits else value
    head, rest = parts[0], parts[1:]
    if isinstance(container, list | tuple) and head.isdecimal() and int(head) < len(container):
        items = list(container)
        items[int(head)] = _replaced(items[int(head)], rest, value, dotted)
        return type(container)(items)
    if container is None or isinstance(container, dict):  # None: upstream's way to leave a part out, which is put in here
        inside = container or {}
        return {**inside, head: _replaced(inside.get(head), rest, value, dotted)}
    raise ConfigError(f"override {dotted}", expected=f"a dict that holds {head}", got=f"{shown(container)} in its place")


def parse_override(text: str) -> tuple[str, object]:
    """Reads `KEY=VALUE` of the command line.

    VALUE is a Python literal (`[20, 10, 5]`, `None`), a JSON literal (`true`, `null`), a comma list (`20,10,5`, as mmcv takes it) or else
    a bare string.

    Returns:
        the dotted key and the value.

    Errors: ConfigError where there is no `=`, no key or no value, or where a bracket or quote is not closed.
    """
    key, equals, source = (part.strip() for part in text.partition("="))
    if not equals or not source or not all(part and not any(c.isspace() for c in part) for part in key.split(".")):
        raise ConfigError(f"override {shown(text)}", expected="KEY=VALUE with a dotted key, as model.img_backbone.depth=50")
    if len(source) > MAX_TEXT:
        raise ConfigError(f"override {key}", expected=f"a value of at most {MAX_TEXT:,} characters", got=f"{len(source):,}")
    try:
        return key, _literal(source)
    except ValueError:
        if source[0] in "[({'\"":
            hint = "close brackets and quotes, and quote strings"
            raise ConfigError(f"override {key}", expected="a Python or JSON literal", got=shown(source), fix=hint) from None
    if "," in source:
        return key, [_word(part.strip()) for part in source.split(",")]
    return key, source


def _word(source: str) -> object:
    try:
        return _literal(source)
    except ValueError:
        return source


def _literal(source: str) -> object:
    """A Python or JSON literal of the types a config holds; ValueError where it is none."""
    try:
        value = ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        try:
            value = json.loads(source)
        except RecursionError as error:
            raise ValueError(source) from error
    if not _plain(value):
        raise ValueError(source)
    return list(value) if isinstance(value, tuple) else value


def _plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int | float) and _plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_plain(item) for item in value)
    if isinstance(value, int | float):
        return -MAX_WHOLE <= value <= MAX_WHOLE  # neither NaN nor infinity, which JSON would let in
    return value is None or isinstance(value, str)
