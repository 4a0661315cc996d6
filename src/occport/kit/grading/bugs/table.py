"""The closed table of known bugs of kernels."""

from __future__ import annotations

from .attention import ATTENTION_BUGS
from .bug import Bug
from .deform_conv import DEFORM_CONV_BUGS


def bugs(operator: str) -> tuple[Bug, ...]:
    """All known bugs of "msda" or of "dcn". `scaled` stands for every factor (`bug.scaled`); in this table it is 2."""
    return ATTENTION_BUGS if operator == "msda" else DEFORM_CONV_BUGS
