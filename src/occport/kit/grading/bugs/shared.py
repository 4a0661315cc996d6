"""The bugs that both operators share: how a map is read, and how the output is written."""

from __future__ import annotations

import numpy as np

from ...cases.case import Case
from ...cases.reading import Axis, Way, all_or_nothing, border, exchanged, nearest, reflection, truncated
from .bug import Bug, Output, scaled


def reading_bugs(operator: str) -> tuple[Bug, ...]:
    """Wrong readings between pixels and outside the map."""

    def bug(name: str, what: str, look_at: str, axis: Axis, wanders: bool = False) -> Bug:
        return Bug(name, operator, what, look_at, way=Way(axis=axis, wanders=wanders))

    return (
        bug("border", "outside the map the nearest border pixel is read, where zero is right", "padding mode: zeros, not border", border),
        bug(
            "reflection", "outside the map its mirror image is read, where zero is right", "padding mode: zeros, not reflection",
            reflection, True,
        ),
        bug("nearest", "the nearest pixel is read, without interpolation", "interpolation mode: bilinear, not nearest", nearest),
        bug("truncated", "the pixel below and left of the position is read alone", "the fraction left by floor: it is lost", truncated),
        bug(
            "corner_weights_exchanged", "each neighbour of a position gets the weight of the one across",
            "the bilinear weights: the lower pixel gets 1 - fraction, the upper one fraction", exchanged,
        ),
        bug(
            "partly_outside_dropped", "a sample with any of its four neighbours outside counts as zero as a whole",
            "the bounds test: -1 < position < size, then each neighbour on its own", all_or_nothing,
        ),
    )  # fmt: skip


def writing_bugs(operator: str) -> tuple[Bug, ...]:
    """Right values written wrongly, whatever the operator."""

    def bug(name: str, what: str, look_at: str, output: Output) -> Bug:
        return Bug(name, operator, what, look_at, output=output)

    return (
        bug(
            "zero", "the output is all zero", "whether the kernel ran and wrote into this buffer",
            lambda case, output: np.zeros_like(output),
        ),
        bug(
            "nan", "the output is all nan", "buffers that were never written, 0 * inf, the softmax of infinite logits",
            lambda case, output: np.full_like(output, np.nan),
        ),
        scaled(operator, 2.0),
        bug(
            "first_row_unwritten", "the first row of each image is zero, the others are right",
            "the first index of the loop or of the thread grid", _first_row_zero,
        ),
        bug(
            "rows_late", "each row holds what belongs to the row before it, the first is zero",
            "an index of the output that starts at 1, or a buffer that is written before it is computed", _one_row_late,
        ),
        bug(
            "only_first_image", "every image holds the output of the first", "the image's part of the output index",
            lambda case, output: np.repeat(output[:1], len(output), 0),
        ),
    )  # fmt: skip


def _rows(case: Case, output: np.ndarray) -> np.ndarray:
    """(A, rows, values of a row): queries, or the rows of a map."""
    return output if case.operator == "msda" else output.transpose(0, 2, 1, 3)  # (A, O, Ho, Wo) to (A, Ho, O, Wo)


def _first_row_zero(case: Case, output: np.ndarray) -> np.ndarray:
    out = output.copy()
    _rows(case, out)[:, 0] = 0
    return out


def _one_row_late(case: Case, output: np.ndarray) -> np.ndarray:
    out = np.zeros_like(output)
    _rows(case, out)[:, 1:] = _rows(case, output)[:, :-1]
    return out
