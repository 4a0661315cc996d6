"""A case: one call of a custom operator, as quantities that do not depend on any chip's way of cutting them into ports.

Letters: A images, S values, M heads, D head width, Q queries, L levels, P points; C input and O output channels, G deform groups,
T = kh*kw taps, H x W input map, Ho x Wo output map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...errors import ModelFileError

OPERATORS = ("msda", "dcn")
QUANTITIES = {
    "msda": (
        "value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights", "reference_points", "sampling_offsets",
        "attention_logits",
    ),
    "dcn": ("input", "offset", "mask", "weight", "bias"),
}  # fmt: skip
PLACE_NAMES = {"msda": ("image", "query", "head", "channel"), "dcn": ("image", "channel", "row", "column")}


@dataclass(frozen=True)
class Case:
    """One call of an operator.

    Attributes:
        name: valid as a folder's name.
        operator: "msda" or "dcn".
        quantities: "msda": value (A, S, M, D) float32, spatial_shapes (L, 2) int64 as (h, w), level_start_index (L) int64 (derived from
            the shapes where absent), and either sampling_locations (A, Q, M, L, P, 2), (x, y) in [0, 1] of the map, or reference_points
            (A, Q, L, 2) with sampling_offsets (A, Q, M, L, P, 2) in pixels of the level; and either attention_weights (A, Q, M, L, P),
            after the softmax, or attention_logits, before it. Where both are given, the second of each counts.
            "dcn": input (A, C, H, W), offset (A, G*2*T, Ho, Wo) in pixels as (dy, dx) of each tap, mask (A, G*T, Ho, Wo) after the
            sigmoid, weight (O, C/groups, kh, kw), and bias (O) or none; float32.
        attributes: "dcn": stride, padding, dilation (two ints each, y then x), groups, deform_groups. "msda": none.
        what: one sentence: what the case tests.
        source: name of the network's node that it was taken from, or "edge".
    """

    name: str
    operator: str
    quantities: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]
    what: str
    source: str = "edge"

    def float64(self, quantity: str) -> np.ndarray:
        """The quantity in float64."""
        return self.quantities[quantity].astype(np.float64)

    def with_quantities(self, changes: Mapping[str, np.ndarray | None]) -> Case:
        """The case with some quantities replaced, added, or removed (None)."""
        merged = {**self.quantities, **changes}
        return replace(self, quantities={name: array for name, array in merged.items() if array is not None})

    def with_attributes(self, changes: Mapping[str, Any]) -> Case:
        """The case with some attributes replaced."""
        return replace(self, attributes={**self.attributes, **changes})


class Window(NamedTuple):
    """The attributes of a deformable convolution; pairs are y then x."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int


def window(case: Case) -> Window:
    """The attributes of a "dcn" case. Errors: ModelFileError for one that is absent or of the wrong kind."""
    pairs, numbers = [], []
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
        got = case.attributes.get(name)
        if not isinstance(got, tuple | list) or len(got) != 2 or not all(type(part) is int and part >= least for part in got):
            raise _unfit(case, f"attribute {name}", f"two ints of at least {least}", repr(got))
        pairs.append((got[0], got[1]))
    for name in ("groups", "deform_groups"):
        number = case.attributes.get(name)
        if type(number) is not int or number < 1:
            raise _unfit(case, f"attribute {name}", "an int of at least 1", repr(number))
        numbers.append(number)
    return Window(pairs[0], pairs[1], pairs[2], numbers[0], numbers[1])


def split_shape(case: Case) -> tuple[int, ...]:
    """Shape of the output with heads on an axis of their own, as `PLACE_NAMES` names it: (A, Q, M, D) or (A, O, Ho, Wo)."""
    if case.operator == "dcn":
        offset = case.quantities["offset"]
        return (offset.shape[0], case.quantities["weight"].shape[0], *offset.shape[2:])
    A, _, M, D = case.quantities["value"].shape
    places = case.quantities.get("sampling_offsets", case.quantities.get("sampling_locations"))
    assert places is not None
    return A, places.shape[1], M, D


def output_shape(case: Case) -> tuple[int, ...]:
    """Shape of the golden output: (A, Q, M*D) or (A, O, Ho, Wo)."""
    split = split_shape(case)
    return split if case.operator == "dcn" else (*split[:2], split[2] * split[3])


def check(case: Case) -> None:
    """Raises ModelFileError, with a line that names the quantity, where operator, shapes or attributes do not fit together."""
    if case.operator not in OPERATORS:
        raise _unfit(case, "operator", " or ".join(OPERATORS), repr(case.operator))
    for name, array in case.quantities.items():
        if name not in QUANTITIES[case.operator]:
            raise _unfit(case, "quantities", f"some of {', '.join(QUANTITIES[case.operator])}", name)
        if array.dtype.kind not in ("iu" if name in ("spatial_shapes", "level_start_index") else "f"):
            raise _unfit(case, name, "integers" if array.dtype.kind == "f" else "floats", array.dtype.name)
    if case.operator == "msda":
        _check_attention(case)
    else:
        _check_deform_conv(case)


def _check_attention(case: Case) -> None:
    sizes: dict[str, int] = {}
    _bind(case, "value", ("A", "S", "M", "D"), sizes)
    _bind(case, "spatial_shapes", ("L", 2), sizes)
    wide_places = "sampling_offsets" in case.quantities
    if wide_places:
        _bind(case, "reference_points", ("A", "Q", "L", 2), sizes)
    _bind(case, "sampling_offsets" if wide_places else "sampling_locations", ("A", "Q", "M", "L", "P", 2), sizes)
    _bind(case, "attention_logits" if "attention_logits" in case.quantities else "attention_weights", ("A", "Q", "M", "L", "P"), sizes)
    shapes = case.quantities["spatial_shapes"]
    if shapes.min() < 1:
        raise _unfit(case, "spatial_shapes", "heights and widths of at least 1", str(shapes.tolist()))
    if int(shapes.prod(1).sum()) != sizes["S"]:
        raise _unfit(case, "spatial_shapes", f"h*w that add up to the {sizes['S']} rows of value", str(shapes.tolist()))
    if "level_start_index" in case.quantities:
        starts = _bind(case, "level_start_index", ("L",), sizes)
        if starts.tolist() != level_starts(shapes).tolist():
            raise _unfit(case, "level_start_index", str(level_starts(shapes).tolist()), str(starts.tolist()))


def _check_deform_conv(case: Case) -> None:
    stride, padding, dilation, groups, deform_groups = window(case)
    sizes: dict[str, int] = {}
    _bind(case, "input", ("A", "C", "H", "W"), sizes)
    C = sizes["C"]
    if C % groups or C % deform_groups:
        raise _unfit(case, "input", f"channels that {groups} groups and {deform_groups} deform_groups divide", f"{C} channels")
    weight = _bind(case, "weight", ("O", C // groups, "kh", "kw"), sizes)
    if weight.shape[0] % groups:
        raise _unfit(case, "weight", f"output channels that {groups} groups divide", f"{weight.shape[0]} output channels")
    kernel, taps = weight.shape[2:], weight.shape[2] * weight.shape[3]
    out = [
        (sizes[side] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1 for axis, side in enumerate("HW")
    ]
    _bind(case, "offset", ("A", deform_groups * 2 * taps, *out), sizes)
    _bind(case, "mask", ("A", deform_groups * taps, *out), sizes)
    if "bias" in case.quantities:
        _bind(case, "bias", ("O",), sizes)


def level_starts(spatial_shapes: np.ndarray) -> np.ndarray:
    """(L) int64, where each level starts in S, from (L, 2) heights and widths."""
    ends = np.cumsum(spatial_shapes.astype(np.int64).prod(1))
    return np.concatenate([np.zeros(1, np.int64), ends[:-1]])


def _bind(case: Case, quantity: str, axes: tuple[str | int, ...], sizes: dict[str, int]) -> np.ndarray:
    """The quantity; its shape must be what `axes` says, and letters that are new are noted in `sizes`."""
    array = case.quantities.get(quantity)
    if array is None:
        raise _unfit(case, quantity, f"an array of shape [{', '.join(map(str, axes))}]", "none")
    wanted = [axis if isinstance(axis, int) else sizes.get(axis, axis) for axis in axes]
    fits = array.ndim == len(axes) and all(isinstance(want, str) or want == size for want, size in zip(wanted, array.shape, strict=True))
    if not fits or not array.size:
        raise _unfit(case, quantity, f"shape [{', '.join(map(str, wanted))}]", str(list(array.shape)))
    sizes.update({axis: size for axis, size in zip(axes, array.shape, strict=True) if isinstance(axis, str)})
    return array


def _unfit(case: Case, what: str, expected: str, got: str) -> ModelFileError:
    return ModelFileError(f"case {case.name}, {what}", expected=expected, got=got, fix="write the vectors again with `occport vectors`")
