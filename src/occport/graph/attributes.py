"""Attributes of a deformable convolution: the closed list of what one can hold, and both directions.

Numbers are (vertical, horizontal) unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import ModelFileError
from .contract import Contract

Pair = tuple[int, int]


class Window(NamedTuple):
    """The window of one deformable convolution."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    deform_groups: int

    def taps(self, axis: int) -> np.ndarray:
        """(T) int64: where the taps look along an axis without offset, in pixels from output position 0."""
        kh, kw = self.kernel
        index = (np.repeat(np.arange(kh), kw), np.tile(np.arange(kw), kh))[axis]
        return index * self.dilation[axis] - self.padding[axis]


class AttributeForm(NamedTuple):
    """What an attribute holds: its type, its value for a window, and what a value says about the window (None: it cannot be)."""

    type: str
    lower: Callable[[Window], Any]
    read: Callable[[Any], dict[str, Any] | None]
    what: str


def _pair(field: str) -> AttributeForm:
    return AttributeForm("ints", lambda w: list(getattr(w, field)), lambda v: {field: tuple(v)} if len(v) == 2 else None, f"{field} (h, w)")


def _one(field: str, index: int) -> AttributeForm:
    letter = "hw"[index]
    return AttributeForm("int", lambda w: getattr(w, field)[index], lambda v: {f"{field}_{letter}": v}, f"{field} along {letter}")


def _number(field: str) -> AttributeForm:
    return AttributeForm("int", lambda w: getattr(w, field), lambda v: {field: v}, field)


def _nchw(field: str) -> AttributeForm:
    def read(v: Any) -> dict[str, Any] | None:
        return {field: tuple(v[2:])} if len(v) == 4 and list(v[:2]) == [1, 1] else None

    return AttributeForm("ints", lambda w: [1, 1, *getattr(w, field)], read, f"{field} (1, 1, h, w)")


def _padding_begin_end(v: Any) -> dict[str, Any] | None:
    return {"padding": tuple(v[:2])} if len(v) == 4 and list(v[:2]) == list(v[2:]) else None


def _padding_sides(v: Any) -> dict[str, Any] | None:
    return {"padding": (v[0], v[2])} if len(v) == 4 and v[0] == v[1] and v[2] == v[3] else None


def _kernel_wh(v: Any) -> dict[str, Any] | None:
    return {"kernel": (v[1], v[0])} if len(v) == 2 else None


ATTRIBUTE_FORMS: dict[str, AttributeForm] = {
    "stride": _pair("stride"),
    "padding": _pair("padding"),
    "dilation": _pair("dilation"),
    "groups": _number("groups"),
    "deform_groups": _number("deform_groups"),
    "kernel": _pair("kernel"),
    "kernel_wh": AttributeForm("ints", lambda w: [w.kernel[1], w.kernel[0]], _kernel_wh, "kernel (w, h)"),
    "stride_nchw": _nchw("stride"),
    "dilation_nchw": _nchw("dilation"),
    "padding_sides": AttributeForm(
        "ints", lambda w: [w.padding[0], w.padding[0], w.padding[1], w.padding[1]], _padding_sides, "padding (top, bottom, left, right)"
    ),
    "padding_begin_end": AttributeForm(
        "ints", lambda w: [*w.padding, *w.padding], _padding_begin_end, "padding (top, left, bottom, right)"
    ),
    **{f"{field}_{letter}": _one(field, index) for field in ("stride", "padding", "dilation") for index, letter in enumerate("hw")},
}
DEFAULTS: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "deform_groups": 1}


def lower_window(contract: Contract, window: Window) -> dict[str, Any]:
    """The attributes of a contract's node for a window, by name, in the contract's order."""
    return {
        attribute.name: ATTRIBUTE_FORMS[attribute.form].lower(window) if attribute.form else attribute.default
        for attribute in contract.attributes
    }


def read_window(contract: Contract, values: Mapping[str, Any], kernel: Pair, where: str) -> Window:
    """The window that a node's attributes tell.

    Args:
        contract: the node's.
        values: attribute name → int, or list of ints. One that is missing has the operator's usual value.
        kernel: (kh, kw) of the weight.
        where: the node, for the error.

    Raises:
        ModelFileError: a value that the form does not allow, such as a padding that differs from side to side.
    """
    known: dict[str, Any] = dict(DEFAULTS)
    for attribute in contract.attributes:
        if not attribute.form or attribute.name not in values:
            continue
        form, value = ATTRIBUTE_FORMS[attribute.form], values[attribute.name]
        read = form.read(value) if isinstance(value, list) == (form.type == "ints") else None
        if read is None:
            raise ModelFileError(f"{where}: attribute {attribute.name}", expected=form.what, got=str(value))
        for key, number in read.items():
            field, _, letter = key.rpartition("_")
            if letter in ("h", "w") and field:
                pair = list(known[field])
                pair["hw".index(letter)] = number
                known[field] = tuple(pair)
            else:
                known[key] = number
    return Window(kernel, *(known[field] for field in Window._fields[1:]))
