"""One custom node against its contract: everything that can be said without the rest of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..attributes import Window, lower_window
from .attributes import check_attributes
from .finding import Finding
from .fit import check_shapes, solve_site
from .limits import check_limits
from .numbers import check_numbers
from .ports import check_ports
from .site import Site


@dataclass(frozen=True)
class Wanted:
    """What a node must be, where the network is known: sizes by letter and (h, w) of each level, or the window."""

    letters: Mapping[str, int] | None = None
    maps: Sequence[tuple[int, int]] | None = None
    window: Window | None = None


NOTHING = Wanted()


def check_node(site: Site, wanted: Wanted = NOTHING) -> list[Finding]:
    """Ports, attributes, sizes, numbers and limits of a node.

    Args:
        wanted: what the network says; limits of the target are left out where it says anything, as the file is not to blame for them.

    Errors: ModelFileError where constants cannot be read.
    """
    findings = list(check_ports(site))
    values = lower_window(site.contract, wanted.window) if wanted.window is not None else _kernel(site)
    findings += check_attributes(site, values)
    if not site.counts_fit:
        return findings
    if wanted.letters is not None:
        letters = dict(wanted.letters)
        findings += check_shapes(site, letters)
    else:
        letters, misfits = solve_site(site, wanted.window)
        findings += misfits
    findings += check_numbers(site, letters, wanted.maps)
    if wanted == NOTHING:
        findings += check_limits(site, letters)
    return findings


def _kernel(site: Site) -> dict[str, Any]:
    """Attributes that repeat the size of the weight's kernel, with the value that they must have."""
    window = None if site.is_attention or not site.counts_fit else site.window()
    if window is None:
        return {}
    names = {attribute.name for attribute in site.contract.attributes if attribute.form.startswith("kernel")}
    return {name: value for name, value in lower_window(site.contract, window).items() if name in names}
