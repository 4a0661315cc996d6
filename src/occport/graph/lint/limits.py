"""The limits of a target's kernels, held against a node's sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..sizes import SIZES, value_of
from .finding import ERROR, NOTE, Finding
from .site import Site


def check_limits(site: Site, letters: Mapping[str, int]) -> Iterator[Finding]:
    """Every limit of the contract. One of a dtype that the node does not have is a note: it bites when the file is quantised."""
    window = site.window() if not site.is_attention else None
    known = dict(letters)
    if window is not None:
        known["unevenness"] = sum(abs(h - w) for h, w in (window.stride, window.padding, window.dilation))
        known |= {"groups": window.groups, "G": window.deform_groups}
    dtype = site.facts.type(site.node.input[0])[0]
    terms = SIZES["msda" if site.is_attention else "dcn"]
    for limit in site.contract.limits:
        got = value_of(terms[limit.size], known)
        if got is not None and not limit.holds(got):
            severity = NOTE if limit.dtype not in ("", dtype) else ERROR
            kernel = f"the {limit.dtype} kernel" if limit.dtype else "the kernel"
            yield Finding(site.name, f"{limit.size} for {kernel}", limit.describe(), str(got), limit.why, severity)
