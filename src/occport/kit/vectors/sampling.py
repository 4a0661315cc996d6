"""A network's activations cut down to a small case: the same operator on fewer queries, heads, channels or a window of the map.

*Attention.* Queries, heads and channels of a head do not mix: the case's output is a part of the network's, number by number. Queries are
kept for their locations: the farthest out, the innermost, some outside of the map, and random ones.

*Deformable convolution.* Output channels do not mix, so some are left out. A window of output rows r0 … r1 takes the input rows from
r0*stride on, so that padding, stride and offsets stay what they are: output row r0 + i reads r0*stride + i*stride - padding + … of the
map, which is row i*stride - padding + … of the cut-out. Only where a tap reads a pixel of the map that is not in the cut-out would it
find zero instead: such taps get the mask 0. All that is left reads, tap by tap, what it reads in the network. Columns likewise.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ...graph.attributes import Window
from ...graph.forms import PORT_FORMS, SCALARS, scalar
from ...graph.port_arrays import lower_arrays, raise_arrays
from ..cases.case import Case
from ..cases.golden import locations
from .activations import CustomNode
from .allowance import input_length

Arrays = Mapping[str, np.ndarray]


class Sample(NamedTuple):
    """What a case is made of: port name → array, what was taken in words and numbers, and the queries by number (attention only)."""

    ports: dict[str, np.ndarray]
    facts: dict[str, Any]
    queries: np.ndarray | None


def draw_of(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one node, whatever the others are."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def image_of(node: CustomNode, seed: int) -> int:
    """The image that a node's case is of."""
    return int(draw_of(seed, node.name).integers(node.letters["A"]))


def sampled(node: CustomNode, ports: Arrays, letters: Mapping[str, int], seed: int) -> Sample:
    """Cuts one image's activations down to the given sizes.

    Args:
        node: of the network.
        ports: port name → array of one image (A = 1).
        letters: sizes of the case, as `allowance.fitted` gives them.
    """
    facts: dict[str, Any] = {"image": image_of(node, seed), "images": node.letters["A"]}
    draw = draw_of(seed + 1, node.name)
    if node.operator == "msda":
        return _sampled_attention(node, ports, letters, facts, draw)
    return _sampled_deform_conv(node, ports, letters, facts, draw)


def _sampled_attention(
    node: CustomNode, ports: Arrays, letters: Mapping[str, int], facts: dict[str, Any], draw: np.random.Generator
) -> Sample:
    heads = np.arange(letters["M"])
    case = Case(node.name, "msda", raise_arrays(node.contract, ports), {}, "")
    queries = chosen_queries(locations(case)[0][:, heads], letters["Q"], draw)
    taken = {"Q": queries, "M": heads, "D": np.arange(letters["D"])}
    cut = {name: _taken(node.taps[name].form, array, taken, node, letters) for name, array in ports.items()}
    facts |= {
        "queries": {"taken": len(queries), "of": node.letters["Q"], "numbers": "sampled_queries.npy"},
        "heads": {"taken": letters["M"], "of": node.letters["M"], "which": "the first"},
        "head_channels": {"taken": letters["D"], "of": node.letters["D"], "which": "the first of each head"},
    }
    return Sample(cut, facts, queries)


def _taken(form: str, array: np.ndarray, taken: Arrays, node: CustomNode, letters: Mapping[str, int]) -> np.ndarray:
    """What a port of the smaller node holds."""
    if form in SCALARS:
        return np.full_like(array, scalar(form, node.contract, letters))
    for axis, letter in enumerate(PORT_FORMS[form].shape.split()):
        if letter in taken:
            array = array.take(taken[letter], axis)
    return array


def chosen_queries(places: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Which queries to keep, for where they look.

    Args:
        places: (Q, M, L, P, 2) locations in [0, 1] of the map.
        count: how many; at most Q.

    Returns:
        (count) int64, ascending: about a quarter each of those with the farthest and the nearest location from the map's middle, of those
        with the most locations outside, the rest random.
    """
    Q = places.shape[0]
    distance = np.abs(np.nan_to_num(places.reshape(Q, -1, 2), nan=np.inf) - 0.5).max(-1)  # (Q, M*L*P)
    outside = (distance > 0.5).sum(1)
    orders = (np.argsort(-distance.max(1), kind="stable"), np.argsort(distance.min(1), kind="stable"), np.argsort(-outside, kind="stable"))
    kept = np.zeros(Q, bool)
    for order in orders:
        kept[order[~kept[order]][: count // 4]] = True
    rest = np.flatnonzero(~kept)
    kept[draw.choice(rest, count - int(kept.sum()), replace=False)] = True
    return np.flatnonzero(kept)


def _sampled_deform_conv(
    node: CustomNode, ports: Arrays, letters: Mapping[str, int], facts: dict[str, Any], draw: np.random.Generator
) -> Sample:
    assert node.window is not None
    whole = raise_arrays(node.contract, ports)
    starts = [_start(node.letters[side] - letters[side], draw) for side in ("Ho", "Wo")]
    outputs = kept_outputs(node.letters["O"], letters["O"], node.window.groups)
    part = Cut((starts[0], letters["Ho"]), (starts[1], letters["Wo"]))
    cut, masked = cut_out(whole, node.window, part)
    cut |= {name: cut[name][outputs] for name in ("weight", "bias") if name in cut}
    facts |= {
        "out_channels": {"taken": letters["O"], "of": node.letters["O"], "which": "the first of each group"},
        "rows": {"from": part.rows[0], "taken": part.rows[1], "of": node.letters["Ho"]},
        "columns": {"from": part.columns[0], "taken": part.columns[1], "of": node.letters["Wo"]},
        "taps_masked": masked,
    }
    return Sample(_like(lower_arrays(node.contract, cut), ports), facts, None)


def _like(made: Arrays, ports: Arrays) -> dict[str, np.ndarray]:
    """The ports that the node has; the form's own zeros for a bias come out as they went in."""
    return {name: made[name].astype(ports[name].dtype) for name in ports}


def _start(room: int, draw: np.random.Generator) -> int:
    """At the map's beginning, at its end, or anywhere: the borders are where kernels go wrong."""
    return int(draw.choice([0, room, int(draw.integers(room + 1))]))


def kept_outputs(outputs: int, count: int, groups: int) -> np.ndarray:
    """The first output channels of each group, `count` in all."""
    return np.arange(outputs).reshape(groups, -1)[:, : count // groups].ravel()


class Cut(NamedTuple):
    """A window of the output: (first, how many) rows and columns."""

    rows: tuple[int, int]
    columns: tuple[int, int]


def cut_out(quantities: Arrays, window: Window, part: Cut) -> tuple[dict[str, np.ndarray], int]:
    """The quantities of a deformable convolution for a part of its output (see above).

    Args:
        quantities: input, offset, mask, and whatever else there is, of the whole map.
        part: of the output.

    Returns:
        The same quantities for the part, and how many taps got the mask 0.
    """
    offset, mask, image = quantities["offset"], quantities["mask"], quantities["input"]
    inputs, outputs = [], []
    for axis, (first, count) in enumerate(part):
        begin, length = first * window.stride[axis], image.shape[2 + axis]
        end = begin + input_length(window, "HW"[axis], count)
        last = first + count == offset.shape[2 + axis]
        inputs.append((begin, length if last else end))
        outputs.append(slice(first, first + count))
    inner = (slice(None), slice(None), *outputs)
    lost = _reads_outside(offset[inner].astype(np.float64), window, part, image.shape[2:], inputs)
    kept = np.where(lost, 0, mask[inner]).astype(mask.dtype)
    pixels = image[:, :, slice(*inputs[0]), slice(*inputs[1])]
    return {**quantities, "input": pixels, "offset": offset[inner], "mask": kept}, int(np.count_nonzero(lost))


def _reads_outside(
    offset: np.ndarray, window: Window, part: Cut, size: tuple[int, ...], inputs: list[tuple[int, int]]
) -> np.ndarray:
    """(A, G*T, rows, columns): where a tap reads a pixel of the map that is not in the cut-out."""
    A, _, rows, columns = offset.shape
    pairs = offset.reshape(A, window.deform_groups, -1, 2, rows, columns)  # (A, G*T*2, …) to (A, G, T, 2, …)
    in_map, in_cut = [], []
    for axis, (first, count) in enumerate(part):
        grid = (first + np.arange(count)) * window.stride[axis]
        along = (-1, 1) if axis == 0 else (1, -1)
        place = pairs[:, :, :, axis] + window.taps(axis).reshape(-1, 1, 1) + grid.reshape(along)
        low = np.floor(place)
        neighbours = [(low, np.isfinite(place)), (low + 1, np.isfinite(place) & (place != low))]  # a whole place has one pixel
        in_map.append([counts & (pixel >= 0) & (pixel < size[axis]) for pixel, counts in neighbours])
        in_cut.append([counts & (pixel >= inputs[axis][0]) & (pixel < inputs[axis][1]) for pixel, counts in neighbours])
    lost = np.zeros(pairs[:, :, :, 0].shape, bool)
    for row in range(2):
        for column in range(2):
            lost |= in_map[0][row] & in_map[1][column] & ~(in_cut[0][row] & in_cut[1][column])
    return lost.reshape(A, -1, rows, columns)  # (A, G, T, …) to (A, G*T, …)
