"""Rays through voxels: against a loop that goes from plane to plane, one ray at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.errors import FrameError
from occport.voxels import raycast
from occport.voxels.grid import Grid
from occport.voxels.raycast import MISS, Caster

UNIT = Grid((4, 3, 5), (0.0, 0.0, 0.0, 4.0, 3.0, 5.0))
NEAR_AN_EDGE = 1e-9  # two planes at the same distance, relative: which one comes first is a matter of rounding


class Met(NamedTuple):
    """What one ray met; `doubtful` where it came too near an edge to say."""

    voxel: int
    face: int
    distance: float
    doubtful: bool


def walk(solid: np.ndarray, grid: Grid, origin: np.ndarray, direction: np.ndarray) -> Met:
    """The traversal of Amanatides and Woo, in metres. The direction is not all zeros, and the origin lies on no plane."""
    low, edge = grid.low, grid.voxel_size
    high = np.array(grid.pc_range[3:])
    moving = [axis for axis in range(3) if direction[axis] != 0]
    if any(not low[axis] <= origin[axis] < high[axis] for axis in range(3) if axis not in moving):
        return Met(MISS, MISS, math.inf, False)
    crossings = {
        axis: sorted(((low[axis] - origin[axis]) / direction[axis], (high[axis] - origin[axis]) / direction[axis])) for axis in moving
    }
    enter = max(crossings[axis][0] for axis in moving)
    leave = min(crossings[axis][1] for axis in moving)
    doubtful = abs(enter - leave) < NEAR_AN_EDGE * max(1.0, abs(leave))
    if enter >= leave or leave <= 0:
        return Met(MISS, MISS, math.inf, doubtful)
    distance = max(enter, 0.0)
    index = [int(np.clip(math.floor((origin[a] + distance * direction[a] - low[a]) / edge[a]), 0, solid.shape[a] - 1)) for a in range(3)]
    if enter > 0:
        axis = max(moving, key=lambda a: crossings[a][0])
        index[axis] = 0 if direction[axis] > 0 else solid.shape[axis] - 1
        doubtful |= any(abs(crossings[a][0] - enter) < NEAR_AN_EDGE * enter for a in moving if a != axis)
    else:
        axis = int(np.argmax(np.abs(direction / edge)))
    while not solid[tuple(index)]:
        planes = {a: low[a] + (index[a] + (direction[a] > 0)) * edge[a] for a in moving}
        at = sorted(((planes[a] - origin[a]) / direction[a], a) for a in moving)
        doubtful |= len(at) > 1 and at[1][0] - at[0][0] < NEAR_AN_EDGE * max(1.0, at[0][0])
        distance, axis = at[0]
        index[axis] += 1 if direction[axis] > 0 else -1
        if not 0 <= index[axis] < solid.shape[axis]:
            return Met(MISS, MISS, math.inf, doubtful)
    return Met(int(np.ravel_multi_index(index, solid.shape)), 2 * axis + int(direction[axis] < 0), distance, doubtful)


def compare(solid: np.ndarray, grid: Grid, origin: np.ndarray, directions: np.ndarray) -> int:
    """Asserts that every ray meets what the loop says; returns how many were not doubtful."""
    hits = Caster(solid, grid).cast(origin, directions)
    assert (hits.voxel.dtype, hits.face.dtype, hits.distance.dtype) == (np.int64, np.int8, np.float32)
    sure = 0
    for number, direction in enumerate(directions):
        met = walk(solid, grid, origin, direction)
        if met.doubtful:
            continue
        sure += 1
        assert (hits.voxel[number], hits.face[number]) == (met.voxel, met.face), (origin, direction, met)
        np.testing.assert_allclose(hits.distance[number], met.distance, rtol=1e-6, atol=1e-6)
    return sure


def some_directions(dice: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3), of lengths from 1/30 to 30; a third have zeros in them."""
    directions = dice.normal(size=(count, 3)) * np.exp(dice.uniform(-3, 3, (count, 1)))
    directions[: count // 3] *= dice.integers(0, 2, (count // 3, 3))
    return directions[np.any(directions != 0, axis=1)]


@settings(max_examples=120, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    edges=st.tuples(*[st.floats(0.1, 3.0)] * 3),
    low=st.tuples(*[st.floats(-60, 60)] * 3),
    share=st.sampled_from([0.0, 0.01, 0.1, 0.4, 1.0]),
    out=st.sampled_from([0.3, 0.5, 1.5, 6.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_grid_as_one_ray_at_a_time(size, edges, low, share, out, seed):
    """From inside and outside (`out`: half the widths from the middle), towards anywhere, also along the axes."""
    dice = np.random.default_rng(seed)
    grid = Grid(size, (*low, *(at + edge * count for at, edge, count in zip(low, edges, size, strict=True))))
    solid = dice.random(size) < share
    extent = grid.voxel_size * size
    origin = grid.low + extent * (0.5 + dice.uniform(-out, out, 3))
    towards = grid.low + extent * dice.random((12, 3)) - origin  # so that rays from outside hit too
    compare(solid, grid, origin, np.concatenate([some_directions(dice, 12), towards]))


@pytest.mark.parametrize("share", [0.0005, 0.01])
def test_long_leaps_as_one_voxel_at_a_time(share):
    """A street: much empty space above a floor, where rays leap far."""
    dice = np.random.default_rng(7)
    grid = Grid((90, 70, 16), (-22.0, -30.0, -5.0, 23.0, 40.0, 3.0))
    solid = dice.random(grid.size) < share
    solid[:, :, 6] = True
    solid[44:46, 29:31, 5:8] = False  # a hole in the floor: rays come out below
    origin = np.array([0.21, 0.13, -1.03])
    assert compare(solid, grid, origin, some_directions(dice, 600)) > 500
    assert compare(solid, grid, np.array([-80.3, 12.2, 9.1]), -np.array([-80.3, 12.2, 9.1]) + dice.uniform(-20, 20, (200, 3))) > 190


def only(*voxels: tuple[int, int, int], grid: Grid = UNIT) -> Caster:
    solid = np.zeros(grid.size, bool)
    for voxel in voxels:
        solid[voxel] = True
    return Caster(solid, grid)


def flat(x: int, y: int, z: int) -> int:
    return (x * 3 + y) * 5 + z


@pytest.mark.parametrize(("origin", "direction", "voxel", "face", "distance"), [
    ((0.5, 1.5, 2.5), (1, 0, 0), (2, 1, 2), 0, 1.5),
    ((3.5, 1.5, 2.5), (-1, 0, 0), (2, 1, 2), 1, 0.5),
    ((2.5, -7.0, 2.5), (0, 2, 0), (2, 1, 2), 2, 4.0),  # from outside; the direction's length is the unit
    ((2.5, 2.5, 2.5), (0, -0.25, 0), (2, 1, 2), 3, 2.0),
    ((2.5, 1.5, -1.0), (0, 0, 1), (2, 1, 2), 4, 3.0),
    ((2.5, 1.5, 5.0), (0, 0, -1), (2, 1, 2), 5, 2.0),  # from the grid's own side
    ((2.5, 1.5, 2.5), (-3, 1, 1), (2, 1, 2), 1, 0.0),  # starts inside: the face of the largest component
    ((2.0, 1.5, 2.5), (1, 0, 0), (2, 1, 2), 0, 0.0),  # starts on the voxel's side and goes in
    ((2.0, 1.5, 2.5), (0, 1, 0), (2, 1, 2), 2, 0.0),  # along the side: a plane belongs to the voxel above it
    ((3.0, 1.5, 2.5), (0, 1, 0), None, MISS, math.inf),
    ((3.0, 1.5, 2.5), (1, 0, 0), None, MISS, math.inf),  # starts on the side and goes away
    ((2.0, 1.5, 2.5), (-1, 0, 0), None, MISS, math.inf),
    ((0.5, 1.5, 2.5), (-1, 0, 0), None, MISS, math.inf),  # away
    ((5.0, 1.5, 2.5), (1, 0, 0), None, MISS, math.inf),  # outside, and away
    ((0.5, 3.0, 2.5), (1, 0, 0), None, MISS, math.inf),  # along the grid's upper side: outside
    ((0.5, 1.0, 2.5), (1, 0, 0), (2, 1, 2), 0, 1.5),  # along a plane: in the voxels above it
    ((0.5, 2.0, 2.5), (1, 0, 0), None, MISS, math.inf),
    ((-1.0, 9.0, 2.5), (1, 0, 0), None, MISS, math.inf),  # parallel, beside the grid
    ((2.5, 1.5, 2.5), (0, 0, 0), None, MISS, math.inf),
    ((0.5, 1.5, 2.5), (math.nan, 0, 0), None, MISS, math.inf),
    ((0.5, 1.5, 2.5), (math.inf, 0, 0), None, MISS, math.inf),
    ((0.5, 1.5, 2.5), (1, 5e-324, -5e-324), (2, 1, 2), 0, 1.5),  # numbers so small that they have no inverse
    ((0.5, 1.5, 2.5), (1, 0.0, -0.0), (2, 1, 2), 0, 1.5),
])  # fmt: skip
def test_one_voxel(origin, direction, voxel, face, distance):
    hits = only((2, 1, 2)).cast(np.array(origin), np.array([direction], float))
    assert (hits.voxel[0], hits.face[0], hits.distance[0]) == (MISS if voxel is None else flat(*voxel), face, distance)


@pytest.mark.parametrize(("origin", "direction", "voxel", "face", "distance"), [
    ((-2.0, 1.5, 0.5), (4, 0, 1), (0, 1, 1), 0, 0.5),  # at (0, 1.5, 1): on a plane, and rising
    ((5.0, 1.5, 2.2), (-2, 0, -1), (3, 1, 1), 1, 0.5),
    ((0.5, 1.5, 5.0), (3, 0, -1), (0, 1, 4), 5, 0.0),  # from the grid's own side: entered there, not started inside
    ((0.0, 1.5, 2.5), (1, 3, 0), (0, 1, 2), 0, 0.0),
    ((-1.0, 0.0, 2.5), (1, 0, 0), (0, 0, 2), 0, 1.0),  # along the grid's lower side: inside
    ((0.5, 0.0, 0.0), (1, 0, 0), (0, 0, 0), 0, 0.0),
    ((-1.0, 2.0, 0.5), (1, 1, 0), None, MISS, math.inf),  # touches an edge of the grid
    ((4.0, 1.5, 2.5), (1, 0, 0), None, MISS, math.inf),
])  # fmt: skip
def test_a_grid_full_of_solid_voxels(origin, direction, voxel, face, distance):
    hits = Caster(np.ones(UNIT.size, bool), UNIT).cast(np.array(origin), np.array([direction], float))
    assert (hits.voxel[0], hits.face[0], hits.distance[0]) == (MISS if voxel is None else flat(*voxel), face, distance)


def test_no_ray_slips_through_an_edge_between_two_solid_voxels():
    """Exactly diagonal rays, in all directions of the plane, past two voxels that share only an edge."""
    for first, second, origin, way in [
        ((1, 0, 0), (0, 1, 0), (0.5, 0.5, 0.5), (1, 1, 0)),
        ((1, 2, 0), (2, 1, 0), (2.5, 2.5, 0.5), (-1, -1, 0)),
        ((1, 0, 0), (2, 1, 0), (2.5, 0.5, 0.5), (-1, 1, 0)),
        ((0, 1, 0), (0, 0, 1), (0.5, 0.5, 0.5), (0, 1, 1)),
    ]:
        hits = only(first, second).cast(np.array(origin), np.array([way], float))
        assert hits.voxel[0] in (flat(*first), flat(*second)) and hits.distance[0] == 0.5


def test_nothing_leaves_a_closed_room():
    """Rays exactly at edges and corners of the walls' voxels."""
    size = (12, 10, 8)
    solid = np.ones(size, bool)
    solid[1:-1, 1:-1, 1:-1] = False
    grid = Grid(size, (0.0, 0.0, 0.0, 12.0, 10.0, 8.0))
    corners = np.stack(np.meshgrid(*(np.arange(1, count) for count in size), indexing="ij"), axis=-1).reshape(-1, 3)
    for origin in ((6.0, 5.0, 4.0), (6.5, 5.5, 4.5), (2.0, 3.0, 1.5)):
        ways = corners - np.array(origin)
        ways = ways[np.any(ways != 0, axis=1)]
        hits = Caster(solid, grid).cast(np.array(origin), ways)
        assert (hits.voxel >= 0).all() and np.isfinite(hits.distance).all()


def test_rays_leave_the_grid_whatever_the_rounding():
    """Through corners of the outermost voxels, where a plane between voxels and the grid's own side are met at once."""
    grid, dice = Grid((200, 200, 16)), np.random.default_rng(2)
    solid = dice.random(grid.size) < 0.02
    solid[[0, -1]] = solid[:, [0, -1]] = solid[:, :, [0, -1]] = False
    caster, origin = Caster(solid, grid), np.array([0.13, 0.21, -1.27])
    for axis in range(3):
        corners = grid.low + grid.voxel_size * dice.integers(0, grid.size, (20_000, 3))
        corners[:, axis] = grid.pc_range[3 + axis]
        hits = caster.cast(origin, corners - origin)
        met = hits.voxel >= 0
        assert solid.reshape(-1)[hits.voxel[met]].all() and hits.distance[met].max() < 0.9999  # 1 is the grid's side


def test_many_rays_are_the_same_as_few(monkeypatch):
    """Whatever the pieces that rays are cut into, and in whatever type directions come."""
    dice = np.random.default_rng(1)
    caster = Caster(dice.random((20, 15, 9)) < 0.05, Grid((20, 15, 9), (-10.0, -10.0, -2.0, 10.0, 10.0, 4.0)))
    origin, directions = np.array([0.1, 0.2, 0.3]), some_directions(dice, 1000).astype(np.float32)
    whole = caster.cast(origin, directions)
    assert (whole.voxel >= 0).sum() > 300
    monkeypatch.setattr(raycast, "_CHUNK", 7)
    for pieces in (caster.cast(origin, directions), caster.cast(origin.astype(np.float64), directions.astype(np.float64))):
        for one, other in zip(whole, pieces, strict=True):
            assert np.array_equal(one, other)


def test_no_rays_and_no_voxels():
    assert all(len(each) == 0 for each in only((0, 0, 0)).cast(np.zeros(3), np.zeros((0, 3))))
    dice = np.random.default_rng(0)
    assert (only().cast(np.array([1.5, 1.5, 1.5]), dice.normal(size=(50, 3))).voxel == MISS).all()


def test_a_far_origin_meets_the_right_voxel():
    hits = only((2, 1, 2)).cast(np.array([-1e6, 1.5, 2.5]), np.array([[1.0, 0.0, 0.0]]))
    assert (hits.voxel[0], hits.face[0], hits.distance[0]) == (flat(2, 1, 2), 0, np.float32(1e6 + 2))


def test_origins_beyond_the_precision_of_numbers_do_no_harm():
    """Where rounding is worth many voxels, a ray still enters at the side and ends."""
    dice = np.random.default_rng(5)
    grid = Grid((60, 60, 60), (0.0, 0.0, 0.0, 60.0, 60.0, 60.0))
    level = dice.uniform(0.1, 1, (200, 1)) * [1.0, 0.0, 0.0]
    hits = Caster(np.ones(grid.size, bool), grid).cast(np.array([-1e16, 1.5, 2.5]), level)
    assert (hits.voxel == 62).all() and (hits.face == 0).all()
    for far in (1e15, 1e16, 1e17, 1e30):
        origin = -far * np.array([1.0, 0.7, 0.4])
        hits = only((30, 30, 30), grid=grid).cast(origin, dice.uniform(0.5, 1, (500, 1)) * -origin / far)
        assert np.isin(hits.voxel, [MISS, (30 * 60 + 30) * 60 + 30]).all()
    assert (only((2, 1, 2)).cast(np.array([0.0, 0.0, np.nan]), dice.normal(size=(9, 3))).voxel == MISS).all()


def test_a_volume_of_another_size_is_refused():
    with pytest.raises(FrameError, match=r"^volume to look at: expected shape \(4, 3, 5\), got \(4, 3, 4\)$"):
        Caster(np.zeros((4, 3, 4), bool), UNIT)
