"""A contract: what one custom node of a dialect looks like, field by field, and what its kernel can do."""

from __future__ import annotations

from dataclasses import dataclass

TWIN_DOMAIN = "occport.twin"  # where the nodes of an empty-domain dialect stand in memory: ONNX's own domain takes no bodies


@dataclass(frozen=True)
class Port:
    """One input, or the output, of a custom node."""

    form: str
    dtype: str
    rank: int
    name: str = "output"
    optional: bool = False
    place: str = "value"  # of numbers: "constant" (a Constant node) or "initializer"; "value" says nothing
    wide: bool = False  # stays float32 where the node computes in 16 bits


@dataclass(frozen=True)
class Attribute:
    """One attribute: a fixed default, or the form that fills it."""

    name: str
    type: str  # "int", "ints", "float" or "string"
    form: str = ""
    default: int | float | str = 0


@dataclass(frozen=True)
class Limit:
    """A bound of the target's kernel on one size of the node (`forms.SIZES`): what is outside is a finding of lint."""

    size: str
    multiple_of: int = 1
    at_least: int = 0
    at_most: int = 2**31 - 1
    dtype: str = ""  # of a kernel that only this dtype has; "" = of all
    why: str = ""

    def holds(self, got: int) -> bool:
        """True where the size is one that the kernel takes."""
        return got % self.multiple_of == 0 and self.at_least <= got <= self.at_most

    def describe(self) -> str:
        """The bound in words."""
        parts = [f"a multiple of {self.multiple_of}"] * (self.multiple_of > 1) + [f"at least {self.at_least}"] * (self.at_least > 0)
        return " and ".join(parts + [f"at most {self.at_most}"] * (self.at_most < 2**31 - 1))


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
    limits: tuple[Limit, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)  # that the target's kernel computes in
    other_names: tuple[str, ...] = ()  # that it may have instead, where the name is a guess; `probe` asks for them

    @property
    def title(self) -> str:
        """DOMAIN::NAME, or NAME alone in the empty domain."""
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type
