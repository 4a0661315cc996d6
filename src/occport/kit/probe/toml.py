"""A dialect as a TOML file: only what differs from the built-in dialect under it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...graph.dialect import Dialect, load, to_table


def dialect_toml(dialect: Dialect, base: str | None, comment: str) -> str:
    """The text of a dialect's file, which `graph.dialect.read` reads back.

    Args:
        dialect: what the file says.
        base: the built-in dialect under it; None writes everything out.
        comment: one line at the top.
    """
    table = to_table(dialect)
    under: Mapping[str, Any] = {**to_table(load(base)), "name": "", "default": False} if base is not None else {}  # neither is inherited
    plain = [] if base is None else [f"base = {_value(base)}"]
    sections: list[str] = []
    for key, value in table.items():
        if not isinstance(value, dict):
            if value != under.get(key):
                plain.append(f"{key} = {_value(value)}")
            continue
        own = under.get(key, {})
        changed = [f"{inner} = {_value(item)}" for inner, item in value.items() if inner not in own or item != own[inner]]
        if changed:
            sections.append("\n".join([f"[{key}]", *changed]))
    return "\n\n".join([f"# {comment}\n" + "\n".join(plain), *sections]) + "\n"


def _value(value: Any) -> str:
    """A value in TOML. Lists of tables have a line for each."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's escapes are TOML's, but for this one letter
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, Mapping) for item in value):
            return "[\n" + "".join(f"    {_value(item)},\n" for item in value) + "]"
        return "[" + ", ".join(_value(item) for item in value) + "]"
    assert isinstance(value, (int, float)), value
    return repr(value)
