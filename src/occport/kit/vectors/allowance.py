"""How big a network's case may become: bytes on disk, shared over the cases, and the sizes of a node that fit.

What can shrink without becoming another operator: queries, heads and channels of an attention, output channels and the window of rows
and columns of a deformable convolution; both take one image. Values of an attention and input channels of a convolution stay whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...graph.attributes import Window
from ...graph.contract import Contract
from ...graph.forms import PORT_FORMS
from ...graph.sizes import SIZES, value_of
from .activations import CustomNode

Letters = Mapping[str, int]

COPIES = 3  # of each array: .pb, .npy, .bin
FILE = 512  # bytes of headers and names of an array's files together
RECORD = 16 * 2**10  # bytes of the record, twice, and of the model without bodies
FEW_QUERIES, FEW_HEADS, FEW_CHANNELS, FEW_ROWS = 32, 2, 8, 4  # what an attention or a window keeps as long as anything else can give


def case_bytes(node: CustomNode, letters: Letters) -> int:
    """The most bytes that a case of these sizes takes on disk, without function bodies."""
    numbers = sum(_elements(tap.form, letters) * tap.dtype.itemsize for tap in node.taps.values())
    output = _elements(node.contract.output.form, letters)
    golden = np.dtype(np.float64).itemsize * (COPIES - 1)  # no .pb
    chosen = letters["Q"] * np.dtype(np.int64).itemsize if node.operator == "msda" else 0
    return COPIES * numbers + output * (4 * COPIES + golden) + chosen + FILE * (len(node.taps) + 3) + RECORD


def shared_out(least: Sequence[int], most: Sequence[int], total: int) -> list[int]:
    """What each of several may have: all the same share beyond its least, and what one does not need goes to the others.

    Args:
        least: what each needs at any rate; together at most `total`.
        most: what each can use.
        total: to be shared.
    """
    shares = list(least)
    left = total - sum(least)
    hungry = [i for i in range(len(most)) if most[i] > least[i]]
    while hungry and left >= len(hungry):
        each = left // len(hungry)
        for i in list(hungry):
            taken = min(each, most[i] - shares[i])
            shares[i] += taken
            left -= taken
            if shares[i] == most[i]:
                hungry.remove(i)
    return shares


def one_image(node: CustomNode) -> dict[str, int]:
    """The node's sizes with one image: the most that a case has."""
    return {**node.letters, "A": 1}


def fitted(node: CustomNode, allowed: int) -> dict[str, int]:
    """The sizes of a case of at most `allowed` bytes, or the smallest ones where nothing fits."""
    letters = one_image(node)
    smaller = _smaller_attention if node.operator == "msda" else _smaller_deform_conv
    while case_bytes(node, letters) > allowed:
        step = next((step for step in smaller(node, letters, allowed) if _keeps_limits(node, step)), None)
        if step is None:
            return letters
        letters = step
    return _grown(node, letters, allowed)


def _smaller_attention(node: CustomNode, letters: Letters, allowed: int) -> list[dict[str, int]]:
    """Smaller sizes, the best first."""
    per_query = case_bytes(node, letters) - case_bytes(node, {**letters, "Q": letters["Q"] - 1})
    queries_first = per_query * letters["Q"] > allowed / 2
    order = [("Q", FEW_QUERIES), ("M", FEW_HEADS), ("D", FEW_CHANNELS)]
    order = [*(order if queries_first else [*order[1:], order[0]]), ("M", 1), ("Q", 1), ("D", 1)]
    return [_halved(letters, letter, least) for letter, least in order if letters[letter] > least]


def _smaller_deform_conv(node: CustomNode, letters: Letters, allowed: int) -> list[dict[str, int]]:
    assert node.window is not None
    weight = next(tap for tap in node.taps.values() if tap.form == "weight")
    weight_first = COPIES * _elements("weight", letters) * weight.dtype.itemsize > allowed / 2
    sides = sorted(("Ho", "Wo"), key=lambda side: -letters[side])
    order = [(side, FEW_ROWS) for side in sides]
    groups = node.window.groups
    order = [("O", groups), *order] if weight_first else [*order, ("O", groups)]
    order += [(side, 1) for side in sides]
    steps = []
    for letter, least in order:
        step = _halved(letters, letter, least)
        if letter == "O":
            step["O"] -= step["O"] % groups
        if step[letter] < letters[letter] and (letter == "O" or input_length(node.window, letter[0], step[letter]) >= 1):
            steps.append(with_input(node, step))
    return steps


def _halved(letters: Letters, letter: str, least: int) -> dict[str, int]:
    return {**letters, letter: max(letters[letter] // 2, least)}


def _grown(node: CustomNode, letters: dict[str, int], allowed: int) -> dict[str, int]:
    """Halving has thrown away too much: adds as much as fits again."""
    grown = True
    while grown:
        grown = False
        for side in ("Q",) if node.operator == "msda" else ("Ho", "Wo", "O"):
            for step in (256, 32, 4, 1):
                more = step * letters["groups"] if side == "O" else step
                bigger = {**letters, side: min(letters[side] + more, node.letters[side])}
                bigger = with_input(node, bigger) if node.operator == "dcn" else bigger
                if bigger[side] > letters[side] and case_bytes(node, bigger) <= allowed and _keeps_limits(node, bigger):
                    letters, grown = bigger, True
                    break
    return letters


def input_length(window: Window, side: str, outputs: int) -> int:
    """The fewest input rows ("H") or columns ("W") from which a convolution makes so many outputs; may be below 1."""
    axis = "HW".index(side)
    reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
    return (outputs - 1) * window.stride[axis] + reach - 2 * window.padding[axis]


def with_input(node: CustomNode, letters: dict[str, int]) -> dict[str, int]:
    """The sizes with as many input rows and columns as the outputs can take: where stride leaves some over at the map's end, with them."""
    assert node.window is not None
    found = dict(letters)
    for axis, (side, out) in enumerate((("H", "Ho"), ("W", "Wo"))):
        longest = input_length(node.window, side, letters[out]) + node.window.stride[axis] - 1
        found[side] = min(longest, node.letters[side])
    return found


def _keeps_limits(node: CustomNode, letters: Letters) -> bool:
    """True where the target's kernel takes these sizes, or did not take the node's own either."""
    broken, before = (broken_limit(node.contract, node.operator, sizes, node.window) for sizes in (letters, one_image(node)))
    return not broken or bool(before)


def broken_limit(contract: Contract, operator: str, letters: Letters, window: Window | None) -> str:
    """The first limit of the contract that these sizes do not keep, in words, or ""."""
    known = dict(letters)
    if window is not None:
        known["unevenness"] = max(abs(pair[0] - pair[1]) for pair in (window.stride, window.padding, window.dilation))
    for limit in contract.limits:
        got = value_of(SIZES[operator][limit.size], known)
        if limit.dtype in ("", "float32") and got is not None and not limit.holds(got):
            why = f" ({limit.why})" if limit.why else ""
            return f"{contract.title} takes {limit.size} {limit.describe()}, got {got}{why}"
    return ""


def _elements(form: str, letters: Letters) -> int:
    sizes = [value_of(term, letters) for term in PORT_FORMS[form].shape.split()]
    assert None not in sizes, (form, letters)
    return math.prod(size for size in sizes if size is not None)
