"""What a comparison of dumps comes to: one record for each tensor, the node to blame, and remarks. Tables, JSON and the page read these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..dumps.index import Entry

STATUSES = ("equal", "explained", "differs", "missing", "unreadable")
QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Figures:
    """How far one tensor is from its golden one, over all elements that both have.

    Attributes:
        max_abs, max_rel, rms, cosine: as in `compare.Comparison`.
        quantiles: of |got - want|, at QUANTILES.
        index, axes, got, want: the worst element, its place and both values.
        row, row_axes, row_rms: the worst row (voxel, camera, query, channel): its place, what its axes are, and the root mean square
            difference along it.
        row_words: the same in words: "camera 2 (CAM_BACK), voxel (12, 40, 3)"; "" where the index says it all.
        flips, labels: labels that differ, and how many there are; 0 and 0 for tensors that hold no labels or logits.
        not_numbers: elements of theirs that are nan or infinite where golden ones are not.
        unmatched: rows (voxels) that only one of both has.
        total: elements compared.
        want_rms: root mean square of ours.
    """

    max_abs: float
    max_rel: float
    rms: float
    cosine: float
    quantiles: tuple[float, ...]
    index: tuple[int, ...]
    axes: tuple[str, ...]
    got: float
    want: float
    row: tuple[int, ...]
    row_axes: tuple[str, ...]
    row_rms: float
    row_words: str = ""
    flips: int = 0
    labels: int = 0
    not_numbers: int = 0
    unmatched: int = 0
    total: int = 0
    want_rms: float = 0.0


@dataclass(frozen=True, eq=False)
class ErrorMap:
    """A small picture of where a tensor differs.

    Attributes:
        title: what is shown ("camera 2 (CAM_BACK), mean over channels").
        error: (rows, columns) float32, mean |got - want|; nan where nothing was compared.
        down, right: what the axes are; row 0 is at the top, or with `upwards` at the bottom.
        cell: rows and columns of the tensor in one of the picture, whose worst is shown.
        upwards: rows count upwards.
    """

    title: str
    error: NDArray[np.float32]
    down: str
    right: str
    cell: tuple[int, int] = (1, 1)
    upwards: bool = False


@dataclass(frozen=True, eq=False)
class TensorDiff:
    """One tensor.

    Attributes:
        entry: of the golden folder.
        status: one of STATUSES. "explained": it differs, and its inputs' error and the dtype explain that.
        note: one line: what was read how (layout, dtype, scale), or what is wrong with it and what to do.
        dtype: theirs, as read; "" where nothing was.
        figures: None where nothing could be compared.
        maps: a few; () where there is no difference.
    """

    entry: Entry
    status: str
    note: str = ""
    dtype: str = ""
    figures: Figures | None = None
    maps: tuple[ErrorMap, ...] = ()


@dataclass(frozen=True)
class Blame:
    """The first node that diverges beyond what its inputs' error and dtype explain.

    Attributes:
        nodes: names in the model, in graph order; one, unless tensors in between were not dumped.
        op_types: of each.
        stage: of the network.
        tensor: the one that they make.
        ratio: its difference over what is explained (both root mean square), from THEIR inputs.
        place: where it is worst, in words: "camera 3, channel 17", "voxel (3, 4, 5)".
        words: one line for the user: what was found, and what to look at.
    """

    nodes: tuple[str, ...]
    op_types: tuple[str, ...]
    stage: str
    tensor: str
    ratio: float
    place: str
    words: str


@dataclass(frozen=True, eq=False)
class Result:
    """A whole comparison.

    Attributes:
        golden, theirs: the folders, as the user named them.
        model: file name of the model.
        tensors: in graph order, one for each golden tensor.
        blamed: the first node, then further ones whose own inputs do not explain them, in graph order; () where all is explained.
        judged: how each status and the blame came about, in one line.
        remarks: lines for the user: files that belong to no tensor, layouts that were detected, ...
        explained: tensor → its difference over what is explained, where that was worked out.
    """

    golden: str
    theirs: str
    model: str
    tensors: tuple[TensorDiff, ...]
    blamed: tuple[Blame, ...] = ()
    judged: str = ""
    remarks: tuple[str, ...] = ()
    explained: Mapping[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """True where every tensor was compared and nothing differs beyond what is explained."""
        return not self.blamed and all(tensor.status in ("equal", "explained") for tensor in self.tensors)
