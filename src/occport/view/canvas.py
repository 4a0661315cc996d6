"""matplotlib in one place: a figure without display or window, the same bytes whatever matplotlib's settings on this machine."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    __all__ = ["Axes", "Canvas", "Figure", "Text", "canvas"]

INK, FAINT, ALARM, PALE = "#1d2733", "#5c6773", "#b3261e", "#f3f5f8"


class Canvas:
    """A figure and what becomes of it; made by `canvas`.

    Attributes:
        figure: matplotlib's; draw on it inside the `with` block of `canvas`.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def png(self) -> bytes:
        """As a PNG file, without dates or versions in it."""
        content = io.BytesIO()
        self.figure.savefig(content, format="png", metadata={"Software": None})
        return content.getvalue()

    def svg(self) -> str:
        """As an <svg> element for a page, texts as texts; without dates or versions in it."""
        content = io.StringIO()
        self.figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
        text = content.getvalue()
        return text[text.index("<svg") :]


@contextmanager
def canvas(width: float, height: float, dpi: int = 100) -> Iterator[Canvas]:
    """For a `with` block: an empty white figure.

    Args:
        width, height: in pixels at `dpi`.

    Errors: UserError where matplotlib is not installed.
    """
    try:
        import matplotlib
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("drawing a picture", expected="matplotlib", got="not installed", fix="pip install 'occport[view]'") from error
    with matplotlib.style.context("default"), warnings.catch_warnings():
        matplotlib.rcParams.update({"font.family": "DejaVu Sans", "text.parse_math": False, "axes.unicode_minus": False})
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "occport"})
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks is drawn as boxes
        figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
        FigureCanvasAgg(figure)
        yield Canvas(figure)


def round_ticks(axes: Axes, count: int) -> None:
    """Puts at most `count` intervals of round numbers on both axes."""
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=count))


def log_axes(axes: Axes, count: int) -> None:
    """Makes both axes logarithmic, with at most `count` powers of ten written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=count))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
