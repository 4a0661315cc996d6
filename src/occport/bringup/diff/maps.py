"""An error map as a picture with a scale of colours."""

from __future__ import annotations

import numpy as np

from ...view.canvas import FAINT, INK, canvas
from ..page.picture import Picture
from ..page.words import figure
from .result import ErrorMap

_WIDTH, _LEFT, _ACROSS = 460, 60, 300  # pixels: the whole, what is left of the map, and the map
_TOP, _BOTTOM, _LOWEST = 12, 46, 90
_DPI = 100
_GREY = "#b4bac2"  # nothing was compared
_LONGEST = 4.0  # of the sides' ratio; longer ones are not drawn with square cells


def map_picture(found: ErrorMap, tensor: str, status: str) -> Picture:
    """Draws one map. Errors: UserError where matplotlib is not installed.

    Args:
        found: (rows, columns), nan where nothing was compared.
        tensor, status: its name and what was found of it, for the words.
    """
    error = np.where(np.isfinite(found.error), found.error, np.nan)
    known = bool(np.isfinite(error).any())
    most = float(np.nanmax(error)) if known else 0.0
    rows, columns = error.shape
    square = max(rows, columns) <= _LONGEST * min(rows, columns)
    down = min(max(_ACROSS * rows // columns, _LOWEST), _ACROSS)
    height = _TOP + down + _BOTTOM
    with canvas(_WIDTH, height, _DPI) as sheet:
        bottom, share = _BOTTOM / height, down / height
        axes = sheet.figure.add_axes((_LEFT / _WIDTH, bottom, _ACROSS / _WIDTH, share))
        axes.set_facecolor(_GREY)
        ends = (-0.5, rows * found.cell[0] - 0.5)  # in the tensor's own rows, whatever a cell of the picture holds
        image = axes.imshow(
            error, cmap="magma", vmin=0.0, vmax=most or 1.0, interpolation="nearest", aspect="equal" if square else "auto",
            origin="lower" if found.upwards else "upper",
            extent=(-0.5, columns * found.cell[1] - 0.5, *(ends if found.upwards else ends[::-1])),
        )  # fmt: skip
        axes.set_xlabel(found.right, fontsize=8, color=FAINT)
        axes.set_ylabel(f"{found.down}{', up' if found.upwards else ''}", fontsize=8, color=FAINT)
        axes.tick_params(labelsize=7, colors=FAINT)
        axes.locator_params(integer=True)
        bar = sheet.figure.colorbar(image, cax=sheet.figure.add_axes(((_LEFT + _ACROSS + 15) / _WIDTH, bottom, 12 / _WIDTH, share)))
        bar.ax.tick_params(labelsize=7, colors=INK)
        content = sheet.png()
    return Picture(f"{tensor}: {status}; {found.title}", _alt(found, tensor, error, most if known else None), content)


def _alt(found: ErrorMap, tensor: str, error: np.ndarray, most: float | None) -> str:
    head = f"Map of the mean difference of {tensor}, {found.title}"
    if most is None:
        return f"{head}: nothing was compared"
    row, column = np.unravel_index(int(np.nanargmax(error)), error.shape)
    where = f"{found.down} {row * found.cell[0]}, {found.right} {column * found.cell[1]}"
    return f"{head}: at most {figure(most)}, at {where}"
