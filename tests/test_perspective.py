"""The two views of a volume: where things appear, in which colours, and how light falls."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from occport.view.above import LOWEST, from_above, shade
from occport.view.light import Light
from occport.view.perspective import EGO, FACES, PAPER, SAMPLES, perspective
from occport.view.viewpoint import from_behind
from occport.voxels.classes import CLASS_NAMES, EMPTY, IGNORE, SURROUNDOCC, colours
from occport.voxels.grid import Grid
from occport.voxels.occupancy import Occupancy

GRID = Grid((10, 10, 4))  # voxels of 10 x 10 x 2 metres
CAR = CLASS_NAMES.index("car") + 1
HEIGHT, WIDTH = 120, 240


def occupancy(labels: np.ndarray, grid: Grid = GRID) -> Occupancy:
    return Occupancy("made up", labels.astype(np.uint8), CLASS_NAMES, grid)


def one(place: tuple[int, int, int], label: int = CAR) -> Occupancy:
    labels = np.zeros(GRID.size, np.uint8)
    labels[place] = label
    return occupancy(labels)


def pixel(grid: Grid, point: list[float], height: int = HEIGHT, width: int = WIDTH) -> tuple[int, int]:
    """Row and column of a point in metres, by the projection of the very samples."""
    column, row, depth, _ = from_behind(grid, height * SAMPLES, width * SAMPLES) @ [*point, 1.0]
    assert depth > 0
    return int(row / depth / SAMPLES), int(column / depth / SAMPLES)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.floats(0.5, 200)] * 3), st.tuples(*[st.floats(-100, 100)] * 3), st.integers(20, 2000), st.integers(20, 2000)
)  # fmt: skip
def test_the_camera_sees_the_whole_grid_as_large_as_it_can(extent, low, height, width):
    high = [start + size for start, size in zip(low, extent, strict=True)]
    grid = Grid((2, 3, 4), (*low, *high))
    lidar2img = from_behind(grid, height, width)
    corners = np.array([(x, y, z, 1.0) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    column, row, depth, _ = lidar2img @ corners.T
    assert (depth > 0).all()
    column, row = column / depth, row / depth
    assert column.min() >= 0 and column.max() <= width and row.min() >= 0 and row.max() <= height
    assert max((column.max() - column.min()) / width, (row.max() - row.min()) / height) > 0.95


def test_forward_is_up_and_right_is_right():
    middle, ahead, right = (pixel(GRID, point) for point in ([0, 0, -1], [0, 30, -1], [30, 0, -1]))
    assert ahead[0] < middle[0] - 10 and abs(ahead[1] - middle[1]) <= 1
    assert right[1] > middle[1] + 10 and abs(right[0] - middle[0]) <= 1


def test_faces_have_the_classes_colour_times_their_light():
    height, width = 300, 900
    picture = perspective(one((9, 0, 1)), height, width)  # x 40 to 50, y -50 to -40, z -3 to -1
    car = np.array(SURROUNDOCC["car"])
    np.testing.assert_array_equal(picture[pixel(GRID, [45, -45, -1], height, width)], car)  # the top
    np.testing.assert_allclose(picture[pixel(GRID, [45, -50, -2], height, width)], car * FACES[2], atol=1)  # the back, before the camera
    np.testing.assert_allclose(picture[pixel(GRID, [40, -45, -2], height, width)], car * FACES[0], atol=1)  # the left


def test_what_is_nearer_hides_what_is_behind():
    labels = np.zeros(GRID.size)
    labels[5, 4, :], labels[5, 5, 0] = CAR, 1  # a tower before a low barrier
    picture = perspective(occupancy(labels), HEIGHT, WIDTH)
    red, blue = picture[..., 0], picture[..., 2]
    assert ((blue > 80) & (red < 20)).any() and not ((red > 80) & (blue < 60)).any()


def test_unknown_is_not_drawn():
    nothing = perspective(occupancy(np.zeros(GRID.size)), HEIGHT, WIDTH)
    np.testing.assert_array_equal(perspective(one((7, 2, 1), IGNORE), HEIGHT, WIDTH), nothing)
    assert (nothing[0, 0] == PAPER).all()
    spread = nothing.max(axis=2).astype(int) - nothing.min(axis=2)
    assert spread.max() < 30  # floor, lines and car are greys
    (x0, y0, _), (x1, y1, z1), _ = EGO[0]
    dark = nothing.max(axis=2) < 130
    assert dark[pixel(GRID, [(x0 + x1) / 2, y0 * 0.9 + y1 * 0.1, z1])] and 0 < dark.sum() < 200


def test_no_band_shows(monkeypatch):
    """Rays are cast in bands of rows; where they meet nothing may be seen, whatever their height."""
    rng = np.random.default_rng(0)
    volume = occupancy(rng.integers(0, 17, GRID.size) * (rng.random(GRID.size) < 0.3))
    whole = perspective(volume, 37, 64)
    monkeypatch.setattr("occport.view.perspective._BAND", 64 * SAMPLES * SAMPLES * 5)
    np.testing.assert_array_equal(perspective(volume, 37, 64), whole)


@pytest.fixture
def plain() -> np.ndarray:
    """(9, 9, 5) with a ground in layer 0."""
    solid = np.zeros((9, 9, 5), bool)
    solid[:, :, 0] = True
    return solid


def on_ground(solid: np.ndarray, x: int, y: int) -> float:
    place = np.array([[x + 0.5, y + 0.5, 1.0]])
    return float(Light(solid).on_faces(place, np.array([2]), np.array([1.0]))[0])


def test_an_open_plane_has_all_the_light(plain):
    assert on_ground(plain, 4, 4) == 1.0 and on_ground(plain, 0, 8) == 1.0


def test_shadows_fall_to_the_right_and_back(plain):
    plain[4, 4, 3] = True
    assert on_ground(plain, 6, 2) == pytest.approx(0.74)  # two layers below: two to the right and two back
    for lit in ((2, 6), (2, 2), (6, 6), (8, 0)):
        assert on_ground(plain, *lit) == 1.0, lit


def test_shadows_do_not_come_in_at_the_other_side(plain):
    plain[8, 0, 1:] = True
    assert on_ground(plain, 0, 8) == 1.0 and on_ground(plain, 1, 7) == 1.0


def test_a_corner_is_darker_than_the_open(plain):
    plain[:3, :, :] = True
    assert on_ground(plain, 3, 4) < on_ground(plain, 4, 4) < on_ground(plain, 8, 4) == 1.0


def test_sides_in_the_open_have_all_the_light():
    solid = np.zeros((7, 7, 7), bool)
    solid[3, 3, 3] = True
    places = np.array([[3.0, 3.5, 3.5], [4.0, 3.5, 3.5], [3.5, 3.0, 3.5], [3.5, 4.0, 3.5], [3.5, 3.5, 4.0]])
    axes, outward = np.array([0, 0, 1, 1, 2]), np.array([-1.0, 1, -1, 1, 1])
    np.testing.assert_array_equal(Light(solid).on_faces(places, axes, outward), 1.0)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2, 0.9]))
def test_from_above_is_the_topmost_voxel_of_every_column(size, seed, share):
    rng = np.random.default_rng(seed)
    labels = rng.choice([EMPTY, 1, 4, 16, IGNORE], size, p=[1 - share, share / 4, share / 4, share / 4, share / 4]).astype(np.uint8)
    image = from_above(occupancy(labels, Grid(size)))
    assert image.shape == (size[1], size[0], 4) and image.dtype == np.uint8
    table = colours(CLASS_NAMES)
    for x in range(size[0]):
        for y in range(size[1]):
            expected = [0, 0, 0, 0]
            for layer in range(size[2]):
                label = labels[x, y, layer]
                if label not in (EMPTY, IGNORE):
                    bright = LOWEST + (1 - LOWEST) * (layer + 1) / size[2]
                    expected = [*np.rint(table[label] * bright).astype(int), 255]
            assert image[size[1] - 1 - y, x].tolist() == expected


def test_the_top_layer_from_above_is_the_tables_colour():
    labels = np.zeros((16, 1, 3))
    labels[:, 0, 2] = range(1, 17)
    image = from_above(occupancy(labels, Grid((16, 1, 3))))
    assert [tuple(colour) for colour in image[0, :, :3].tolist()] == list(SURROUNDOCC.values())
    np.testing.assert_allclose(shade(np.array([0, 2]), 3), [0.6 + 0.4 / 3, 1.0])
