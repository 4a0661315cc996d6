"""A cost as a chart: each node by its intensity and speed under a chip's roof, or by its products; and the stages' shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.stages import PLACES, REST
from ...view.canvas import FAINT, INK, Canvas, canvas, log_axes
from .cost import Cost
from .roofline import Roofline, has_rates

if TYPE_CHECKING:
    from ...view.canvas import Axes

_COLOURS = ("#7f7f7f", "#1f77b4", "#17becf", "#2ca02c", "#bcbd22", "#ff7f0e", "#d62728", "#9467bd")  # one for each stage
_WIDTH, _HEIGHT = 1100, 420
_LEAST = 8.0  # area of a dot


def svg(cost: Cost, found: Roofline | None) -> str:
    """As an <svg> element for a page."""
    with canvas(_WIDTH, _HEIGHT) as page:
        _draw(page, cost, found)
        return page.svg()


def png(cost: Cost, found: Roofline | None) -> bytes:
    """As a PNG file."""
    with canvas(_WIDTH, _HEIGHT) as page:
        _draw(page, cost, found)
        return page.png()


def _draw(page: Canvas, cost: Cost, found: Roofline | None) -> None:
    left, right = page.figure.subplots(1, 2, width_ratios=(3, 2))
    if found is None:
        _intensities(left, cost)
        _bars(right, {row.name: row.macs / 1e9 for row in cost.rows("stage")}, "GMAC")
    else:
        _roof(left, found)
        _bars(right, {stage: seconds * 1e3 for stage, seconds in found.by_stage().items()}, "ms")
    page.figure.tight_layout()


def _colour(stage: str) -> str:
    return _COLOURS[(*PLACES, REST).index(stage) if stage in (*PLACES, REST) else -1]


def _intensities(axes: Axes, cost: Cost) -> None:
    nodes = [node for node in cost.nodes if node.moved and node.work.flops]
    if not nodes:
        axes.set(xlim=(1, 10), ylim=(1, 10))
    axes.scatter(
        [node.work.flops / node.moved for node in nodes], [node.work.flops / 1e9 for node in nodes], s=28, alpha=0.6,
        c=[_colour(node.stage) for node in nodes], linewidths=0,
    )  # fmt: skip
    _frame(axes, "operations for each byte", "GFLOP of a node", cost.file)


def _roof(axes: Axes, found: Roofline) -> None:
    """Nodes that compute: those that move nothing through the chip's memory stand at the right edge."""
    times = [time for time in found.times if time.flops and time.seconds]
    longest = max((time.seconds for time in times), default=0.0)
    slope = found.chip.bandwidth / 1e3
    peaks = {dtype: found.chip.rate(dtype, "") / 1e12 for dtype in dict.fromkeys(time.dtype for time in times) if has_rates(dtype)}
    known = [time.flops / time.moved for time in times if time.moved]
    stops = [*known, *(peak / slope for peak in peaks.values())] or [1.0]
    left, edge = min(stops) / 2, 2 * max(stops)
    x, y = [time.flops / time.moved if time.moved else edge for time in times], [time.flops / time.seconds / 1e12 for time in times]
    sizes = [_LEAST + 300 * time.seconds / longest for time in times]
    axes.scatter(x, y, s=sizes, alpha=0.6, c=[_colour(time.node.stage) for time in times], linewidths=0)
    for dtype, peak in peaks.items():
        axes.plot((left, peak / slope, edge), (left * slope, peak, peak), color=INK, linewidth=1)
        axes.text(edge, peak, dtype, ha="right", va="bottom", fontsize=8, color=INK)
    if not times:
        axes.set(xlim=(1, 10), ylim=(1, 10))
    across, free = "operations for each byte of the chip's memory", len(times) - len(known)
    across += f"; at the right edge {free} of {len(times)} nodes that move nothing through it" if free else ""
    _frame(axes, across, "TFLOP/s; a dot's area: its time", found.chip.name)


def _frame(axes: Axes, across: str, up: str, title: str) -> None:
    log_axes(axes, 9)
    axes.set_xlabel(across, fontsize=9, color=FAINT)
    axes.set_ylabel(up, fontsize=9, color=FAINT)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.grid(alpha=0.25)


def _bars(axes: Axes, values: dict[str, float], unit: str) -> None:
    names = list(values)[::-1]
    axes.barh(names, [values[name] for name in names], color=[_colour(name) for name in names])
    for i, name in enumerate(names):
        axes.text(values[name], i, f" {values[name]:,.3g}", va="center", fontsize=8, color=INK)
    axes.set_xlim(0, max(values.values(), default=0.0) * 1.2 or 1)
    axes.set_xlabel(unit, fontsize=9, color=FAINT)
    axes.set_title("by stage", fontsize=10, color=INK, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
