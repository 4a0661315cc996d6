"""Attributes of a custom node: names, types, values. Plugins do not notice a wrong name: they take their default instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

from ..attributes import ATTRIBUTE_FORMS
from ..contract import Attribute
from .finding import Finding
from .site import Site


def check_attributes(site: Site, wanted: Mapping[str, object]) -> Iterator[Finding]:
    """Attributes that are missing, unknown, of another type, or have a value that cannot be.

    Args:
        wanted: attribute → the value that it must have; without one, any that its form allows. Fixed defaults must be as they are.
    """
    got, known = site.attributes(), {attribute.name for attribute in site.contract.attributes}
    spare = [name for name in got if name not in known]
    for attribute in site.contract.attributes:
        what = f"attribute {attribute.name}"
        value = wanted.get(attribute.name) if attribute.form else attribute.default
        right = str(value) if value is not None else f"{attribute.type}, {ATTRIBUTE_FORMS[attribute.form].what}"
        if attribute.name not in got:
            near = _near(attribute.name, spare)
            fix = f"it stands there as {near!r}, which the target does not read" if near else "a target takes a default of its own"
            yield Finding(site.name, what, right, "none", fix)
            continue
        kind, found = got[attribute.name]
        if kind != attribute.type or (value is not None and found != value):
            expected = f"{attribute.type} {value}" if value is not None else right
            yield Finding(site.name, what, expected, f"{kind} {found}")
        elif attribute.form and not _can_be(attribute, found):
            yield Finding(site.name, what, ATTRIBUTE_FORMS[attribute.form].what, str(found))
    for name in spare:
        near = _near(name, known - got.keys()) or _near(name, known)
        fix = f"did you mean {near!r}? A target does not notice a wrong name" if near else "leave it out"
        yield Finding(site.name, f"attribute {name}", "none of this name", str(got[name][1]), fix)


def _can_be(attribute: Attribute, value: object) -> bool:
    """Whether a form's value tells a window: strides, dilations and groups from 1 up, paddings from 0 up."""
    read = ATTRIBUTE_FORMS[attribute.form].read(value)
    if read is None:
        return False
    numbers = [number for field in read.values() for number in (field if isinstance(field, tuple) else (field,))]
    return bool(min(numbers) >= (0 if attribute.form.startswith("padding") else 1))


def _near(name: str, among: Collection[str]) -> str:
    found = difflib.get_close_matches(name, sorted(among), n=1, cutoff=0.6)
    return found[0] if found else ""
