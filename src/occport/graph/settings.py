"""What a user changes of a dialect on the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import ExportError
from .contract import Contract, Port
from .dialect import Dialect, check_names
from .forms import SCALARS


@dataclass(frozen=True)
class Settings:
    """What the user changes of a dialect; None leaves it as it is."""

    op_names: tuple[tuple[str, str], ...] = ()  # ("dcn" or "msda", "domain::name")
    scalar_rank: int | None = None
    scalar_dtype: str | None = None
    scalar_place: str | None = None
    num_embed: str | None = None
    shapes_dtype: str | None = None
    im2col_step: int | None = None
    dcn_bias: str | None = None


def with_settings(dialect: Dialect, settings: Settings) -> Dialect:
    """The dialect as the user wants it. ExportError for a setting that the dialect has no place for."""
    if settings == Settings():
        return dialect
    if dialect.msda is None or dialect.dcn is None:
        raise ExportError(
            f"dialect {dialect.name}", expected="no operator settings, as it has no custom nodes",
            fix="choose another dialect, or leave them out",
        )  # fmt: skip
    _check_places(dialect.name, dialect.msda, settings)
    msda, dcn = _renamed(dialect.msda, dialect.dcn, settings)
    check_names(msda, dcn, "--op-name")
    msda = replace(
        msda,
        inputs=tuple(_set_port(port, settings) for port in msda.inputs),
        attributes=tuple(
            replace(attribute, default=settings.im2col_step)
            if attribute.name == "im2col_step" and settings.im2col_step is not None
            else attribute
            for attribute in msda.attributes
        ),
        num_embed=settings.num_embed or msda.num_embed,
    )
    bias = settings.dcn_bias or dcn.bias
    if bias == "input" and all(port.form != "bias" for port in dcn.inputs):
        raise ExportError("--dcn-bias input", expected="a dialect whose convolution has a bias input", got=f"dialect {dialect.name}")
    return replace(dialect, msda=msda, dcn=replace(dcn, bias=bias))


def _renamed(msda: Contract, dcn: Contract, settings: Settings) -> tuple[Contract, Contract]:
    for operator, name in settings.op_names:
        domain, separator, op_type = name.partition("::")  # an empty domain is some compilers' own
        if not (separator and op_type) or operator not in ("dcn", "msda"):
            raise ExportError("--op-name", expected="dcn=DOMAIN::NAME or msda=DOMAIN::NAME", got=f"{operator}={name}")
        if operator == "dcn":
            dcn = replace(dcn, domain=domain, op_type=op_type)
        else:
            msda = replace(msda, domain=domain, op_type=op_type)
    return msda, dcn


def _check_places(name: str, msda: Contract, settings: Settings) -> None:
    """ExportError for a setting of something that the attention node does not have."""
    ports = {port.form for port in msda.inputs}
    scalars = bool(ports & set(SCALARS))
    wanted = (
        ("--scalar-rank", settings.scalar_rank, scalars),
        ("--scalar-dtype", settings.scalar_dtype, scalars),
        ("--scalar-place", settings.scalar_place, scalars),
        ("--num-embed", settings.num_embed, "num_embed" in ports),
        ("--im2col-step", settings.im2col_step, any(attribute.name == "im2col_step" for attribute in msda.attributes)),
    )
    for flag, value, found in wanted:
        if value is not None and not found:
            raise ExportError(flag, expected="a dialect whose attention node has one", got=f"dialect {name}", fix=f"leave {flag} out")


def _set_port(port: Port, settings: Settings) -> Port:
    if port.form in SCALARS:
        rank = port.rank if settings.scalar_rank is None else settings.scalar_rank
        return replace(port, rank=rank, dtype=settings.scalar_dtype or port.dtype, place=settings.scalar_place or port.place)
    if port.form in ("spatial_shapes", "level_start_index"):
        return replace(port, dtype=settings.shapes_dtype or port.dtype)
    return port
