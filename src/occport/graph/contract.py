"""A contract: what one custom node of a dialect looks like, field by field."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """One input, or the output, of a custom node."""

    form: str
    dtype: str
    rank: int
    name: str = "output"
    optional: bool = False
    place: str = "value"  # of numbers: "constant" (a Constant node) or "initializer"; "value" says nothing


@dataclass(frozen=True)
class Attribute:
    """One attribute: a fixed default, or the form that fills it."""

    name: str
    type: str  # "int" or "ints"
    form: str = ""
    default: int = 0


@dataclass(frozen=True)
class Contract:
    """One custom node of a dialect."""

    domain: str
    version: int
    op_type: str
    inputs: tuple[Port, ...]
    output: Port
    attributes: tuple[Attribute, ...] = ()
    bias: str = "batchnorm"  # deformable convolution only
    num_embed: str = "all"  # attention only: "all" = heads x head width, "head" = head width
