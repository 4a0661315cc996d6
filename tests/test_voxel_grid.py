"""From voxel indices to metres and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.errors import FrameError
from occport.voxels.classes import CLASS_NAMES
from occport.voxels.grid import NUSCENES_RANGE, Grid
from occport.voxels.occupancy import Occupancy

NUSCENES = Grid((200, 200, 16))


def test_centres_of_the_official_grid():
    """0.5 m voxels from (-50, -50, -5)."""
    assert NUSCENES.pc_range == NUSCENES_RANGE
    assert NUSCENES.voxel_size.tolist() == [0.5, 0.5, 0.5]
    centres = NUSCENES.centres(np.array([[0, 0, 0], [199, 199, 15], [100, 99, 6]]))
    assert centres.tolist() == [[-49.75, -49.75, -4.75], [49.75, 49.75, 2.75], [0.25, -0.25, -1.75]]


def test_indices_of_points():
    points = np.array([[-50.0, -50.0, -5.0], [49.99, 49.99, 2.99], [50.0, 0.0, 0.0], [-50.01, 0.0, 0.0]])
    index = NUSCENES.index_of(points)
    assert index.tolist() == [[0, 0, 0], [199, 199, 15], [200, 100, 10], [-1, 100, 10]]
    assert NUSCENES.inside(index).tolist() == [True, True, False, False]


@settings(max_examples=50, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 50)] * 3),
    low=st.tuples(*[st.floats(-100, 100)] * 3),
    extent=st.tuples(*[st.floats(0.5, 200)] * 3),
    part=st.tuples(*[st.floats(0, 0.999)] * 3),
)
def test_a_centre_lies_in_its_voxel(size, low, extent, part):
    grid = Grid(size, (*low, *(start + length for start, length in zip(low, extent, strict=True))))
    index = np.array([[int(share * count) for share, count in zip(part, size, strict=True)]])
    assert np.array_equal(grid.index_of(grid.centres(index)), index)
    assert grid.inside(index).all()


@pytest.mark.parametrize(("size", "pc_range", "message"), [
    ((0, 1, 1), NUSCENES_RANGE, r"at least one voxel along X, Y and Z, got \[0, 1, 1\]"),
    ((1, 1, 1), (0.0, 0.0, 0.0, 1.0, 1.0, 0.0), "range of the grid: expected x, y, z from, then x, y, z to, each larger"),
    ((1, 1, 1), (float("nan"), 0.0, 0.0, 1.0, 1.0, 1.0), "range of the grid"),
])  # fmt: skip
def test_grids_that_cannot_be(size, pc_range, message):
    with pytest.raises(FrameError, match=message):
        Grid(size, pc_range)


def test_points_of_an_occupancy_keep_the_volumes_order():
    grid = Grid((2, 2, 2), (0.0, 0.0, 0.0, 2.0, 4.0, 8.0))
    labels = np.array([[[0, 3], [255, 0]], [[1, 0], [0, 2]]], np.uint8)
    points = Occupancy("a", labels, CLASS_NAMES, grid).points()
    assert points.dtype == np.float32
    assert points.tolist() == [[0.5, 1, 6, 3], [1.5, 1, 2, 1], [1.5, 3, 6, 2]]
