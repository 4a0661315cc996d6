"""Do the sizes of a node's ports fit together? Solved by the letters of their forms; the one that spoils it is named where there is one.

The suspects are the ports, and the attributes with which sizes follow. A suspect is guilty when everything else fits without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

from ..attributes import Window
from ..contract import Port
from ..forms import NUMBERS, PORT_FORMS
from ..sizes import solve, value_of
from .finding import Finding
from .site import Site

_ATTRIBUTES = {"groups": "groups", "deform_groups": "deform_groups", "window": "stride, padding, dilation"}
_SOURCES = {"C": "input", "O": "weight"}


class Fit(NamedTuple):
    """Letters → numbers, and the sentences that contradict each other."""

    letters: dict[str, int]
    conflicts: list[str]


@dataclass(frozen=True)
class _Sizes:
    """What a node tells of its sizes."""

    ports: Mapping[str, tuple[str, tuple[int, ...]]]  # name → the form's shape, sizes
    window: Window | None
    area: int | None  # sum of h*w of the spatial shapes, where they are constants
    area_port: str = ""
    weight: str = ""  # name of the port

    def fit(self, without: str = "") -> Fit:
        """Solves all ports but the suspect."""
        ports = {name: sizes for name, sizes in self.ports.items() if name != without}
        known: dict[str, int] = {}
        if self.window is not None:
            known |= {"groups": self.window.groups} if without != "groups" else {}
            known |= {"G": self.window.deform_groups} if without != "deform_groups" else {}
        if self.weight in ports:
            kernel, _ = solve([ports[self.weight]], {})
            if "kh" in kernel and "kw" in kernel:
                known |= {"T": kernel["kh"] * kernel["kw"]}
        letters, conflicts = solve(ports.values(), known)
        for letter, value in self._laws(letters, without).items():
            if letters.setdefault(letter, value) != value:
                conflicts.append(f"{letter} = {value} by the other sizes, {letters[letter]} here")
        return Fit(letters, conflicts)

    def _laws(self, letters: Mapping[str, int], without: str) -> dict[str, int]:
        """Sizes that follow from others: S from the levels' areas, Ho and Wo from the window."""
        laws = {}
        if self.area is not None and without != self.area_port:
            laws["S"] = self.area
        if self.window is not None and without != "window":
            for axis, size in enumerate("HW"):
                kernel = letters.get("kh" if axis == 0 else "kw")
                if size in letters and kernel is not None:
                    reach = self.window.dilation[axis] * (kernel - 1) + 1
                    laws[f"{size}o"] = (letters[size] + 2 * self.window.padding[axis] - reach) // self.window.stride[axis] + 1
        return laws


def area_of(site: Site) -> int | None:
    """The sum of h*w of the levels; None where they are no constants or no pairs."""
    for port, name in site.ports():
        if port.form == "spatial_shapes":
            array = site.facts.constant(name)
            if array is not None and array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind in "iu":
                return int(array.prod(1).sum())
    return None


def solve_site(site: Site, window: Window | None = None) -> tuple[dict[str, int], list[Finding]]:
    """The letters of a node, and what does not fit.

    Args:
        window: stands in for what the attributes say, where the right one is known; it is no suspect then.

    Returns:
        Letters → numbers, empty where it cannot be told which of several is wrong; the findings.
    """
    sizes = _sizes(site, window)
    whole = sizes.fit()
    if not whole.conflicts:
        return whole.letters, list(_divisible(site, whole.letters, sizes.window))
    order = _other_order(site, sizes)
    if order:
        expected = ", ".join(port.name for port, _ in site.ports()[:-1])
        got = f"shapes that fit {', '.join(order)}"
        return {}, [Finding(site.name, "order of the inputs", expected, got, "bring them into the expected order")]
    suspects = [*sizes.ports, *(_ATTRIBUTES if window is None and sizes.window is not None else ())]
    guilty = [suspect for suspect in suspects if not sizes.fit(suspect).conflicts]
    if len(guilty) == 1:
        letters = sizes.fit(guilty[0]).letters
        return letters, [_accused(site, guilty[0], letters, sizes)]
    among = " and ".join(_ATTRIBUTES.get(suspect, suspect) for suspect in guilty) if 0 < len(guilty) < 4 else "sizes of the ports"
    return {}, [Finding(site.name, among, "sizes that fit together", "; ".join(whole.conflicts[:2]))]


def check_shapes(site: Site, letters: Mapping[str, int]) -> Iterator[Finding]:
    """Every port's shape against known letters; numbers are not looked at here."""
    for port, name in site.ports():
        if port.form not in NUMBERS:
            wanted = tuple(value_of(term, letters) for term in PORT_FORMS[port.form].shape.split())
            got = site.facts.type(name)[1]
            if None not in wanted and got != wanted:
                yield Finding(site.name, f"{port.name} ({name})", f"shape {wanted}", str(got))


def _sizes(site: Site, window: Window | None) -> _Sizes:
    weight = next((port.name for port in site.contract.inputs if port.form == "weight"), "")
    area_port = next((port.name for port in site.contract.inputs if port.form == "spatial_shapes"), "")
    found = None if site.is_attention else window or site.window()
    return _Sizes(site.sizes(), found, area_of(site), area_port, weight)


def _accused(site: Site, suspect: str, letters: Mapping[str, int], sizes: _Sizes) -> Finding:
    """The finding on the one suspect without which all the others fit."""
    attribute = next((each.name for each in site.contract.attributes if each.form == suspect), suspect)
    if suspect == "deform_groups" and sizes.window is not None:
        return Finding(site.name, f"attribute {attribute}", str(letters.get("G", "")), str(sizes.window.deform_groups), _BY_PORTS)
    if suspect in _ATTRIBUTES:
        return Finding(site.name, _ATTRIBUTES[suspect], "what fits the ports", "; ".join(sizes.fit().conflicts[:1]))
    port, name = next((port, name) for port, name in site.ports() if port.name == suspect)
    terms = PORT_FORMS[port.form].shape.split()
    if port.form == "spatial_shapes" and "S" in letters:
        return Finding(site.name, f"{suspect} ({name})", f"areas that add up to S = {letters['S']}", str(sizes.area))
    expected = f"shape ({', '.join(_size(term, letters) for term in terms)}) as ({', '.join(terms)})"
    return Finding(site.name, f"{suspect} ({name})", expected, str(site.facts.type(name)[1]))


_BY_PORTS = "so many say the channels of the other ports"


def _size(term: str, letters: Mapping[str, int]) -> str:
    value = value_of(term, letters)
    return term if value is None else str(value)


def _divisible(site: Site, letters: Mapping[str, int], window: Window | None) -> Iterator[Finding]:
    """Groups that do not divide the channels; reference points that do not divide the points."""
    for letter, port in _SOURCES.items():
        if window is not None and letters.get(letter, 0) % window.groups:
            attribute = next((each.name for each in site.contract.attributes if each.form == "groups"), "groups")
            yield Finding(site.name, f"attribute {attribute}", f"a divisor of the {letters[letter]} channels of {port}", str(window.groups))
    if window is not None and letters.get("C", 0) % window.deform_groups:
        attribute = next((each.name for each in site.contract.attributes if each.form == "deform_groups"), "deform_groups")
        yield Finding(site.name, f"attribute {attribute}", f"a divisor of the {letters['C']} channels of input", str(window.deform_groups))
    if "R" in letters and letters.get("P", 0) % letters["R"]:
        yield Finding(site.name, "reference_points", f"a divisor of the {letters['P']} points of a level", str(letters["R"]))


def _other_order(site: Site, sizes: _Sizes) -> list[str]:
    """The names of the ports in the order in which the inputs seem to stand, or nothing: ports of one dtype and rank are tried."""
    kinds: dict[tuple[str, int], list[Port]] = {}
    for port, _ in site.ports()[:-1]:
        if port.name in sizes.ports and port.form not in NUMBERS:
            kinds.setdefault((port.dtype, port.rank), []).append(port)
    alike = [port.name for port in max(kinds.values(), key=len, default=[])]
    for other in permutations(alike):
        moved = {name: (sizes.ports[name][0], sizes.ports[source][1]) for name, source in zip(alike, other, strict=True)}
        full = all(len(term.split()) == len(found) for term, found in moved.values())
        if other != tuple(alike) and full and not replace(sizes, ports={**sizes.ports, **moved}).fit().conflicts:
            taken = {source: name for name, source in zip(alike, other, strict=True)}
            return [taken.get(port.name, port.name) for port, _ in site.ports()[:-1]]
    return []
