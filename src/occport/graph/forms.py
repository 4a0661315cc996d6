"""Forms: the closed list of what a port of a custom node can hold, each with its shape and both directions.

A *quantity* is what the operators compute with, whatever the chip's way of cutting it: the inputs of `canonical.py`, and the
sampling locations and attention weights that follow from them. `lower` makes what a port holds from quantities; `raised` makes
quantities from ports. Both are stated once for arrays, graphs and function bodies (`arithmetic.py`).

Letters as in `canonical.py`: A images, S values, M heads, D head width, Q queries, L levels, P points, R reference points of a
query that its points share in turn; C channels, O output channels, G deform groups, T taps, H x W and Ho x Wo maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .arithmetic import Arithmetic
from .contract import Contract

Quantities = Mapping[str, Any]
Lower = Callable[[Arithmetic[Any], Quantities], Any]

SCALARS = ("num_images", "num_queries", "num_embed")
NUMBERS = ("spatial_shapes", "level_start_index", *SCALARS)


class Form(NamedTuple):
    """What a port holds: of which operator, in which shape, made of which quantities."""

    operator: str  # "msda", "dcn"; "output" for outputs
    shape: str
    needs: tuple[str, ...]
    lower: Lower
    what: str


def _same(quantity: str) -> Lower:
    return lambda w, q: q[quantity]


def _merged(quantity: str) -> Lower:
    return lambda w, q: w.reshape(q[quantity], 0, 0, 0, -1, name=f"{quantity}_merged")


def _part(quantity: str, index: int, name: str) -> Lower:
    return lambda w, q: w.take(q[quantity], 5, index, name=name)


def _offset_part(w: Arithmetic[Any], q: Quantities, index: int, name: str) -> Any:
    """(A, G*T*2, Ho, Wo) in pairs (dy, dx) → (A, G*T, Ho, Wo), all dy or all dx."""
    offset = q["offset"]
    pairs = w.reshape(offset, 0, -1, 2, w.size(offset, 2), w.size(offset, 3), name="offset_pairs")
    return w.take(pairs, 2, index, name=name)


def _offset_all(w: Arithmetic[Any], q: Quantities) -> Any:
    parts = [_offset_part(w, q, 1, "offset_x"), _offset_part(w, q, 0, "offset_y"), q["mask"]]
    return w.concat(parts, 1, name="offset_all")


def _form(operator: str, shape: str, what: str, needs: str = "", lower: Lower | None = None) -> Form:
    quantities = tuple(needs.split())
    return Form(operator, shape, quantities, lower or _same(quantities[0]), what)


PORT_FORMS: dict[str, Form] = {
    "value": _form("msda", "A S M D", "feature maps of all levels, one after the other, row by row", "value"),
    "spatial_shapes": _form("msda", "L 2", "(h, w) of each level", "spatial_shapes"),
    "level_start_index": _form("msda", "L", "where each level starts in S", "level_start_index"),
    "sampling_locations": _form("msda", "A Q M L P 2", "(x, y) in [0, 1] of the map", "sampling_locations"),
    "sampling_locations_merged": _form(
        "msda", "A Q M L*P*2", "(x, y) in [0, 1] of the map", "sampling_locations", _merged("sampling_locations")
    ),
    "sampling_locations_x": _form(
        "msda", "A Q M L P", "x in [0, 1] of the map", "sampling_locations", _part("sampling_locations", 0, "locations_x")
    ),
    "sampling_locations_y": _form(
        "msda", "A Q M L P", "y in [0, 1] of the map", "sampling_locations", _part("sampling_locations", 1, "locations_y")
    ),
    "attention_weights": _form("msda", "A Q M L P", "after the softmax over L and P", "attention_weights"),
    "attention_weights_merged": _form(
        "msda", "A Q M L*P", "after the softmax over L and P", "attention_weights", _merged("attention_weights")
    ),
    "reference_points": _form("msda", "A Q L 2", "(x, y) in [0, 1] of the map, of each level", "reference_points"),
    "reference_points_shared": _form(
        "msda", "A Q 1 2*R", "(x, y) in [0, 1] of the map, for all levels; point p takes number p mod R", "reference_points",
        lambda w, q: q["reference_points"] if w.levels == 1 else None,
    ),
    "sampling_offsets": _form("msda", "A Q M L P 2", "(x, y) in pixels of each map", "sampling_offsets"),
    "sampling_offsets_merged": _form(
        "msda", "A Q M L*P*2", "(x, y) in pixels of each map", "sampling_offsets", _merged("sampling_offsets")
    ),
    "attention_logits": _form("msda", "A Q M L P", "before the softmax over L and P", "attention_logits"),
    "attention_logits_merged": _form(
        "msda", "A Q M L*P", "before the softmax over L and P", "attention_logits", _merged("attention_logits")
    ),
    "num_images": _form("msda", "", "A", "num_images"),
    "num_queries": _form("msda", "", "Q", "num_queries"),
    "num_embed": _form("msda", "", "M*D, or D", "num_embed"),
    "input": _form("dcn", "A C H W", "feature maps", "input"),
    "offset": _form("dcn", "A G*T*2 Ho Wo", "pixels, (dy, dx) of each tap", "offset"),
    "offset_y": _form("dcn", "A G*T Ho Wo", "pixels, dy of each tap", "offset", lambda w, q: _offset_part(w, q, 0, "offset_y")),
    "offset_x": _form("dcn", "A G*T Ho Wo", "pixels, dx of each tap", "offset", lambda w, q: _offset_part(w, q, 1, "offset_x")),
    "offset_all": _form("dcn", "A G*T*3 Ho Wo", "all dx, then all dy, then the mask", "offset mask", _offset_all),
    "mask": _form("dcn", "A G*T Ho Wo", "after the sigmoid", "mask"),
    "weight": _form("dcn", "O C/groups kh kw", "the kernel", "weight"),
    "bias": _form("dcn", "O", "added to each output channel", "bias"),
    "heads_merged": _form("output", "A Q M*D", "heads one after the other", "output"),
    "heads_split": _form(
        "output", "A Q M D", "heads on an axis of their own", "output",
        lambda w, q: w.reshape(q["output"], 0, 0, w.size(q["value"], 2), -1, name="heads"),
    ),
    "map": _form("output", "A O Ho Wo", "feature maps", "output"),
}  # fmt: skip
OUTPUT_FORMS = {"msda": ("heads_merged", "heads_split"), "dcn": ("map",)}


def _locations(w: Arithmetic[Any], q: Quantities) -> Any:
    """location = reference + offset / (w, h)."""
    reference = w.reshape(q["reference_points"], 0, 0, 1, -1, 1, 2, name="reference")
    return w.add(reference, _in_maps(w, q), name="locations")


def _locations_of_shared(w: Arithmetic[Any], q: Quantities) -> Any:
    """As `_locations`; the points of a level take the R reference points in turn."""
    reference = w.reshape(q["reference_points_shared"], 0, 0, 1, 1, 1, w.references, 2, name="reference")
    offsets = w.reshape(_in_maps(w, q), 0, 0, 0, 0, -1, w.references, 2, name="in_turn")
    return w.reshape(w.add(reference, offsets, name="locations_in_turn"), 0, 0, 0, 0, -1, 2, name="locations")


def _in_maps(w: Arithmetic[Any], q: Quantities) -> Any:
    return w.divide(q["sampling_offsets"], w.map_size(q["spatial_shapes"]), name="offset_in_maps")


def _joined(x: str, y: str) -> Lower:
    def join(w: Arithmetic[Any], q: Quantities) -> Any:
        parts = [w.reshape(q[form], 0, 0, 0, 0, 0, 1, name=form) for form in (x, y)]
        return w.concat(parts, 5, name="locations")

    return join


def _pairs(w: Arithmetic[Any], dy: Any, dx: Any, like: Any) -> Any:
    """(A, G*T, Ho, Wo) twice → (A, G*T*2, Ho, Wo) in pairs."""
    rows, columns = w.size(like, 2), w.size(like, 3)
    parts = [w.reshape(part, 0, -1, 1, rows, columns, name="offset_part") for part in (dy, dx)]
    return w.reshape(w.concat(parts, 2, name="offset_pairs"), 0, -1, rows, columns, name="offset")


def _from_all(w: Arithmetic[Any], q: Quantities, index: int) -> Any:
    packed = q["offset_all"]
    thirds = w.reshape(packed, 0, 3, -1, w.size(packed, 2), w.size(packed, 3), name="offset_thirds")
    return w.take(thirds, 1, index, name=("offset_x", "offset_y", "mask")[index])


def _levels_of(quantity: str, *tail: int) -> Lower:
    return lambda w, q: w.reshape(q[f"{quantity}_merged"], 0, 0, 0, w.levels, -1, *tail, name=quantity)


# quantity → ways to have it: what each way needs, and how; the first way whose needs are there is taken
WAYS: dict[str, tuple[tuple[tuple[str, ...], Lower], ...]] = {
    "reference_points": ((("reference_points_shared",), lambda w, q: _one_reference(w, q)),),
    "sampling_offsets": ((("sampling_offsets_merged",), _levels_of("sampling_offsets", 2)),),
    "attention_logits": ((("attention_logits_merged",), _levels_of("attention_logits")),),
    "sampling_locations": (
        (("sampling_locations_merged",), _levels_of("sampling_locations", 2)),
        (("sampling_locations_x", "sampling_locations_y"), _joined("sampling_locations_x", "sampling_locations_y")),
        (("reference_points", "sampling_offsets", "spatial_shapes"), _locations),
        (("reference_points_shared", "sampling_offsets", "spatial_shapes"), _locations_of_shared),
    ),
    "attention_weights": (
        (("attention_weights_merged",), _levels_of("attention_weights")),
        (("attention_logits",), lambda w, q: w.softmax(q["attention_logits"], name="weights")),
    ),
    "offset": (
        (("offset_y", "offset_x"), lambda w, q: _pairs(w, q["offset_y"], q["offset_x"], q["offset_y"])),
        (("offset_all",), lambda w, q: _pairs(w, _from_all(w, q, 1), _from_all(w, q, 0), q["offset_all"])),
    ),
    "mask": ((("offset_all",), lambda w, q: _from_all(w, q, 2)),),
}


def _one_reference(w: Arithmetic[Any], q: Quantities) -> Any:
    """(A, Q, 1, 2) is (A, Q, L, 2) where there is one level; None where it is not."""
    return q["reference_points_shared"] if w.levels == 1 and w.references == 1 else None


class Raised(dict[str, Any]):
    """The quantities of one node, each made when it is first asked for."""

    def __init__(self, ports: Mapping[str, Any], w: Arithmetic[Any]) -> None:
        super().__init__(ports)
        self._w = w

    def get_or_none(self, quantity: str) -> Any:
        """A quantity, or None where the ports do not hold it."""
        if quantity not in self:
            for needs, way in WAYS.get(quantity, ()):
                if all(self.get_or_none(need) is not None for need in needs):
                    found = way(self._w, self)
                    if found is not None:
                        self[quantity] = found
                        break
        return self.get(quantity)


def obtainable(forms: Iterable[str]) -> set[str]:
    """The quantities that ports of these forms hold, by name (one level, one reference point a query)."""
    known = set(forms)
    while True:
        more = {quantity for quantity, ways in WAYS.items() for needs, _ in ways if set(needs) <= known} - known
        if not more:
            return known
        known |= more


def scalar(form: str, contract: Contract, sizes: Mapping[str, int]) -> int:
    """The number that a scalar port of this form holds; `sizes` by letter."""
    embed = sizes["M"] * sizes["D"] if contract.num_embed == "all" else sizes["D"]
    return {"num_images": sizes["A"], "num_queries": sizes["Q"], "num_embed": embed}[form]
