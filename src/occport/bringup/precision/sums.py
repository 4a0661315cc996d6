"""Long sums in 16 bits: how many terms each node adds up, and what that would cost where nothing wider accumulates them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..cost.node_cost import NodeCost
from .hazard import Hazard
from .rounding import Low
from .tensors import Place

_WORTH = 0.01  # relative error of a sum that is worth a line


class Sum(NamedTuple):
    """Of a node."""

    cost: NodeCost
    terms: int


def of_sums(sums: Sequence[Sum], low: Low) -> Iterator[Hazard]:
    """One finding for each stage: the node with the longest sum, and how many others are like it.

    Rounding after every addition costs about roundoff times the root of the number of terms, relative to the terms' root mean square
    sum; of terms of one sign roundoff times their number, and beyond 1 / roundoff terms the sum stands still.
    """
    stages: dict[str, list[Sum]] = {}
    for one in sums:
        if math.sqrt(one.terms) * low.roundoff > _WORTH:
            stages.setdefault(one.cost.stage, []).append(one)
    for stage, found in stages.items():
        worst = max(found, key=lambda one: one.terms)
        usual, same_sign = math.sqrt(worst.terms) * low.roundoff, worst.terms * low.roundoff
        stands = f": of terms of one sign, a sum stands still after {1 / low.roundoff:,.0f}" if same_sign > 1 else ""
        others = f"the longest of {len(found)} such nodes of this stage" if len(found) > 1 else "the only such node of this stage"
        words = f"sums of {worst.terms:,} terms, {others}; rounded after each: about {usual:.1%} off, {same_sign:.0%} at worst{stands}"
        place = Place(worst.cost.writes[0][0], worst.cost.name, worst.cost.op_type, stage)
        figures = {"terms": worst.terms, "usual": usual, "worst": same_sign, "nodes": len(found)}
        yield Hazard("accumulation", "loses", *place, math.nan, math.nan, words, figures)


def terms_of(cost: NodeCost, numbers: int) -> int:
    """Terms of each number that a node gives, where it sums products."""
    return cost.work.products // max(numbers, 1)
