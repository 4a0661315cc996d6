"""Sizes of a custom node by the letters of the forms' shapes: solving them from the shapes of its ports.

"A Q M L*P*2" with (6, 100, 8, 4)  says  A = 6, Q = 100, M = 8, and L*P*2 = 4 once L or P is known
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

# operator → sizes on which a target can have a limit → how each is had from the letters
SIZES: dict[str, dict[str, str]] = {
    "msda": {
        "images": "A", "values": "S", "heads": "M", "head_width": "D", "queries": "Q", "levels": "L", "points": "P", "channels": "M*D",
    },
    "dcn": {
        "images": "A", "channels": "C", "out_channels": "O", "groups": "groups", "deform_groups": "G", "kernel_h": "kh", "kernel_w": "kw",
        "channels_per_group": "C/groups", "out_channels_per_group": "O/groups", "unevenness": "unevenness",
    },
}  # fmt: skip


def solve(shapes: Iterable[tuple[str, tuple[int, ...]]], known: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """Letters → numbers.

    Args:
        shapes: a form's shape ("A Q M L*P*2") with the sizes that were found.
        known: letters that are known beforehand (`groups`, `T`).

    Returns:
        What is known at the end, and a sentence for each contradiction: "Q = 5 elsewhere, 7 here".
    """
    letters = dict(known)
    pending = [(term, size) for shape, sizes in shapes for term, size in zip(shape.split(), sizes, strict=True)]
    conflicts: list[str] = []
    while pending:
        left: list[tuple[str, int]] = []
        for term, size in pending:
            unknown = [part for part in _factors(term) if not part.isdigit() and part not in letters]
            if len(set(unknown)) > 1 or (unknown and "/" in term and unknown[0] == term.partition("/")[2]):
                left.append((term, size))
            elif unknown:
                found = _solve_for(unknown[0], term, size, letters)
                if found is None:
                    conflicts.append(f"{term} = {size}, which cannot be")
                else:
                    letters[unknown[0]] = found
            elif value_of(term, letters) != size:
                conflicts.append(f"{term} = {value_of(term, letters)} elsewhere, {size} here")
        if len(left) == len(pending):
            break
        pending = left
    return letters, conflicts


def value_of(term: str, letters: Mapping[str, int]) -> int | None:
    """A product or a quotient of letters and digits as a number; None while a letter is unknown."""
    numerator, _, denominator = term.partition("/")
    top = [_number(part, letters) for part in numerator.split("*")]
    bottom = _number(denominator, letters) if denominator else 1
    if None in top or not bottom:
        return None
    return math.prod(part for part in top if part is not None) // bottom


def _factors(term: str) -> list[str]:
    return term.replace("/", "*").split("*")


def _number(part: str, letters: Mapping[str, int]) -> int | None:
    return int(part) if part.isdigit() else letters.get(part)


def _solve_for(letter: str, term: str, size: int, letters: Mapping[str, int]) -> int | None:
    if "/" in term:
        return size * letters[term.partition("/")[2]]
    rest = math.prod(_number(part, letters) or 1 for part in term.split("*") if part != letter)
    return size // rest if rest and size % rest == 0 else None
