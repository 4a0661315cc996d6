"""A cost, and a roofline, as text for a terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ...columns import aligned
from .cost import Cost, Row
from .roofline import Roofline

_MIB = 2**20
_TITLES = ("nodes", "parameters", "GMAC", "of it sampled", "other Gop", "read MiB", "written MiB", "op/byte")


def cost_text(cost: Cost, by: str, top: int) -> str:
    """The sums by `cost.GROUPS`, at most `top` rows, and what holds for the file as a whole."""
    rows = cost.rows(by)
    lines = [aligned([[by, *_TITLES], *(_cells(row) for row in rows[:top])])]
    if len(rows) > top:
        lines.append(f"... and {len(rows) - top} more; --top {len(rows)} shows all")
    return "\n".join([*lines, "", *_whole(cost)]) + "\n"


def _cells(row: Row) -> list[str]:
    return [
        row.name, f"{row.nodes}", f"{row.parameters:,}", f"{row.macs / 1e9:,.2f}", f"{4 * row.sampled / 1e9:,.2f}",
        f"{row.operations / 1e9:,.2f}", f"{row.read_bytes / _MIB:,.1f}", f"{row.write_bytes / _MIB:,.1f}", f"{row.intensity:,.1f}",
    ]  # fmt: skip


def _whole(cost: Cost) -> Iterator[str]:
    total, network = cost.total, cost.network
    custom = ", ".join(f"{count} {title}" for title, count in cost.custom.items()) or "none"
    yield f"file: {total.macs / 1e12:.3f} TMAC, {total.parameters / 1e6:.1f} M parameters, custom nodes: {custom}"
    if network is not None:
        yield f"network as it is written: {network.total / 1e12:.3f} TMAC, {network.parameters / 1e6:.1f} M parameters, on the export's rig"
        if network.total > total.macs:
            yield "  the file takes less: convolutions in a row without anything between them have been joined into one"
    peak = cost.peak
    largest = ", ".join(f"{name} {size / _MIB:,.0f}" for name, size in peak.tensors[:3])
    where = f", at {peak.node} ({largest} MiB)" if peak.tensors and peak.node else ""
    yield f"activations: at most {peak.total / _MIB:,.0f} MiB alive{where}"
    yield f"weights and constants: {cost.constants / _MIB:,.0f} MiB"
    if cost.without_rule:
        yield f"without a rule of their own, one operation for each number: {', '.join(cost.without_rule)}"


def roofline_text(found: Roofline, top: int) -> str:
    """The times on a chip: whole, by stage, and the nodes that take longest."""
    whole = found.seconds
    longest = sorted(found.times, key=lambda time: -time.seconds)[:top]
    rows = [["longest nodes", "operator", "dtype", "ms", "share", "bound by"]]
    for time in longest:
        share = f"{time.seconds / (whole or 1):.1%}"
        rows.append([time.node.name, time.node.op_type, time.dtype, f"{time.seconds * 1e3:.3f}", share, time.bound])
    stages = [["stage", "ms", "share"], *([name, f"{s * 1e3:.2f}", f"{s / (whole or 1):.1%}"] for name, s in found.by_stage().items())]
    bounds = ", ".join(f"{kind} {seconds / (whole or 1):.0%}" for kind, seconds in found.by_bound().items())
    head = [f"{found.chip.name}, {found.precision or 'dtypes of the file'}: {whole * 1e3:.1f} ms at best, bound by {bounds}"]
    if found.without_rate:
        head.append(f"no rate for {', '.join(found.without_rate)}: {found.chip.fallback}'s was taken")
    return "\n".join([*head, "", aligned(stages), "", aligned(rows, (0, 1, 2, -1))]) + "\n"


def csv_text(cost: Cost, found: Roofline | None) -> str:
    """Every node, a row each."""
    times = {time.number: time for time in found.times} if found else {}
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(
        ["name", "operator", "stage", "layer", "dtype", "parameters", "products", "sampled", "operations", "macs", "read_bytes",
         "write_bytes", "seconds", "bound"]
    )  # fmt: skip
    for i, node in enumerate(cost.nodes):
        time = times.get(i)
        writer.writerow(
            [node.name, node.op_type, node.stage, node.layer, node.dtype, node.parameters, node.work.products, node.work.sampled,
             node.work.operations, node.work.macs, node.read_bytes, node.write_bytes,
             f"{time.seconds:.9g}" if time else "", time.bound if time else ""]
        )  # fmt: skip
    return content.getvalue()
