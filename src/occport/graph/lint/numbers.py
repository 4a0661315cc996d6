"""The numbers that a custom node takes as inputs: level sizes, level starts, and the scalars. A wrong one passes every numeric check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..contract import Port
from ..forms import NUMBERS, SCALARS, scalar
from .finding import NOTE, Finding
from .site import Site

_LETTERS = {"num_images": "A", "num_queries": "Q"}


def check_numbers(site: Site, letters: Mapping[str, int], maps: Sequence[tuple[int, int]] | None) -> Iterator[Finding]:
    """Every port that holds numbers.

    Args:
        letters: the node's sizes.
        maps: (h, w) of each level where they are known; a number that is no constant is an error then, and else a note.
    """
    for port, name in site.ports():
        if port.form not in NUMBERS:
            continue
        array, what = site.facts.constant(name), f"{port.name} ({name})"
        wanted = _wanted(site, port, letters, maps)
        if array is None:
            if maps is not None:
                yield Finding(site.name, what, str(wanted), "no constant")
            elif port.place == "value":
                fix = "bake it in as a constant, so that it can be checked"
                yield Finding(site.name, what, "a constant", "a value that is computed", fix, NOTE)
        elif maps is None and port.form == "spatial_shapes":
            yield from _pairs(site, what, array)
        elif wanted is not None and _plain(array, wanted) != wanted:
            yield Finding(site.name, what, str(wanted), str(array.tolist()), _meaning(site, port))


def _wanted(site: Site, port: Port, letters: Mapping[str, int], maps: Sequence[tuple[int, int]] | None) -> object:
    """What a port must hold; None where it is not known."""
    if port.form in SCALARS:
        needed = ("M", "D") if port.form == "num_embed" else (_LETTERS[port.form],)
        known = all(letter in letters for letter in needed)
        return scalar(port.form, site.contract, {**dict.fromkeys("AMDQ", 0), **letters}) if known else None
    sizes = [list(pair) for pair in maps] if maps is not None else _maps_of(site)
    if port.form == "spatial_shapes" or sizes is None:
        return sizes
    starts: list[int] = np.cumsum([0, *(h * w for h, w in sizes)])[:-1].tolist()
    return starts


def _maps_of(site: Site) -> list[list[int]] | None:
    """What the node's own spatial_shapes hold, where they are constant pairs."""
    for port, name in site.ports():
        array = site.facts.constant(name) if port.form == "spatial_shapes" else None
        if array is not None and array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind in "iu":
            pairs: list[list[int]] = array.astype(np.int64).tolist()
            return pairs
    return None


def _pairs(site: Site, what: str, array: np.ndarray) -> Iterator[Finding]:
    if array.ndim != 2 or array.shape[1] != 2:
        yield Finding(site.name, what, "(h, w) of each level, shape (L, 2)", f"shape {array.shape}")
    elif array.dtype.kind not in "iu" or array.size == 0 or array.min() <= 0:
        yield Finding(site.name, what, "sizes from 1 up", str(array.tolist()))


def _plain(array: np.ndarray, wanted: object) -> object:
    """The array as Python numbers; a scalar may have rank 0 or 1."""
    if isinstance(wanted, int):
        return array.ravel().tolist()[0] if array.size == 1 else array.tolist()
    return array.tolist()


def _meaning(site: Site, port: Port) -> str:
    meanings = {
        "num_images": "it is A, the images of value: cameras x batch",
        "num_queries": "it is Q, the queries of one image",
        "num_embed": "it is " + ("M*D, heads x head width" if site.contract.num_embed == "all" else "D, the width of one head"),
        "level_start_index": "each level starts where the areas of those before it end",
    }
    return meanings.get(port.form, "")
