"""The synthetic city: the images show exactly the voxels of the ground truth, every class occurs, and the scene moves as it should."""

from __future__ import annotations

import numpy as np
import pytest

from occport.city.frame import city_frame, default_frame
from occport.city.layout import FRAMES, street
from occport.city.shapes import Shape
from occport.city.snapshot import LIDAR_HEIGHT, snapshot
from occport.errors import FrameError
from occport.frames.frame import NUSCENES_CAMERAS
from occport.frames.pinhole import place_of
from occport.frames.rig import nuscenes_like_rig
from occport.voxels.classes import CLASS_NAMES
from occport.voxels.grid import Grid
from occport.voxels.raycast import FACE_LIGHT

MICRO, HW = Grid((32, 40, 8)), (126, 224)
MIDDLE = Grid((100, 100, 16))  # voxels of 1 x 1 x 0.5 m: small enough for shapes, large enough in the image
FULL = Grid((200, 200, 16))
NO_CAMERA = np.zeros((0, 3))


def first_on_the_way(solid: np.ndarray, grid: Grid, start: np.ndarray, end: np.ndarray) -> tuple[tuple[int, ...], int] | None:
    """The first solid voxel between two points, and the face through which the way enters it; by small steps, without ray casting."""
    steps = np.linspace(0, 1, 4000)
    index = grid.index_of(start + steps[:, None] * (end - start))
    inside = grid.inside(index)
    met = np.flatnonzero(inside & solid[tuple(np.where(inside[:, None], index, 0).T)])
    if not len(met) or met[0] == 0:
        return None
    moved = index[met[0]] - index[met[0] - 1]
    if np.abs(moved).sum() != 1:  # through an edge: two faces in one step
        return None
    axis = int(np.abs(moved).argmax())
    return tuple(int(i) for i in index[met[0]]), 2 * axis + (0 if moved[axis] > 0 else 1)


def open_faces(solid: np.ndarray, grid: Grid, random: np.random.Generator, count: int) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Some faces near the ego with nothing in front of them: the voxel, and the middle of the face in metres."""
    places = np.argwhere(solid)
    places = places[np.linalg.norm(grid.centres(places), axis=1) < 16]
    found = []
    for voxel in places[random.permutation(len(places))[:count]]:
        for axis in range(3):
            for side in (-1, 1):
                beside = voxel.copy()
                beside[axis] += side
                if grid.inside(beside[None])[0] and not solid[tuple(beside)]:
                    middle = grid.centres(voxel[None])[0]
                    middle[axis] += side * grid.voxel_size[axis] / 2
                    found.append((tuple(int(i) for i in voxel), middle))
    return found


@pytest.mark.parametrize("number", (0, 23))
def test_a_voxel_that_is_seen_has_its_colour_where_it_projects_to(number):
    frame, scene = city_frame(5, number, 6, (225, 400), MIDDLE)
    solid = scene.labels != 0
    random = np.random.default_rng(number)
    checked = 0
    for camera, matrix in enumerate(frame.lidar2img):
        origin = place_of(matrix)
        for voxel, middle in open_faces(solid, MIDDLE, random, 300):
            column, row, depth = (matrix @ [*middle, 1.0])[:3]
            if depth < 1 or not (0 <= column / depth < 400 and 0 <= row / depth < 225):
                continue
            pixel = int(row / depth), int(column / depth)
            # the way through the middle of that very pixel
            ray = np.linalg.inv(matrix[:3, :3]) @ [pixel[1] + 0.5, pixel[0] + 0.5, 1.0]
            met = first_on_the_way(solid, MIDDLE, origin, origin + ray * (depth + 1.5))
            if met is None or met[0] != voxel:
                continue  # hidden, or the pixel's middle is beside it
            wanted = np.rint(scene.colours[voxel] * FACE_LIGHT[met[1]])
            assert frame.images[camera][pixel][::-1].tolist() == wanted.tolist(), (camera, voxel, pixel)
            checked += 1
    assert checked > 50


def test_every_class_occurs_at_full_and_micro_size():
    for grid in (FULL, MICRO):
        seen = {label for number in (0, 10, 20) for label in np.unique(snapshot(0, number, grid, NO_CAMERA).labels)}
        assert {CLASS_NAMES[label - 1] for label in seen if label} == set(CLASS_NAMES)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_near_the_ego(seed):
    """Only the ground lies within 2.5 m of the ego's way, in every frame of a scene."""
    ground = [CLASS_NAMES.index(name) + 1 for name in ("driveable_surface", "other_flat", "sidewalk", "terrain")]
    centres = FULL.centres(np.argwhere(np.ones((*FULL.size[:2], 1), bool)))[:, :2].reshape(200, 200, 2)
    near = np.abs(centres).max(axis=2) < 2.0
    for number in range(0, FRAMES, 5):
        labels = snapshot(seed, number, FULL, NO_CAMERA).labels
        assert set(np.unique(labels[near])) <= {0, *ground}


def test_the_ground_is_where_the_wheels_are():
    labels = snapshot(1, 0, FULL, NO_CAMERA).labels
    below = FULL.index_of(np.array([[0.1, 0.1, -LIDAR_HEIGHT]]))[0]
    assert labels[tuple(below)] == CLASS_NAMES.index("driveable_surface") + 1
    assert (labels[:, :, : below[2]] == 0).all(), "one layer, nothing below"
    assert (labels[:, :, below[2]] != 0).all(), "the ground has no holes"


def test_frames_of_a_scene_move_on_and_the_next_scene_is_another_street():
    ego_speed = 1.0
    building = CLASS_NAMES.index("manmade") + 1
    first, later = (snapshot(2, number, FULL, NO_CAMERA).labels == building for number in (0, 10))
    shift = int(10 * ego_speed / 0.5)
    moved = np.zeros_like(first)
    moved[:, :-shift] = first[:, shift:]
    overlap = (moved & later).sum() / min(moved.sum(), later.sum())
    still = (first & later).sum() / min(first.sum(), later.sum())
    assert overlap > still + 0.1
    assert street(2, 0) != street(2, 1) and street(2, 0) != street(3, 0) and street(2, 0) == street(2, 0)


def test_thin_shapes_do_not_vanish():
    pole = Shape("cylinder", "manmade", (0.0, 0.0, 1.0), (0.05, 0.05, 1.0), (1, 2, 3))
    points = np.array([[0.2, 0.2, 1.0], [0.3, 0.0, 1.0], [0.0, 0.0, 2.1]])
    assert pole.covers(points, np.array([0, 0, 1.0]), np.full(3, 0.3)).tolist() == [True, True, False]
    labels = snapshot(0, 0, MICRO, NO_CAMERA).labels
    assert (labels == CLASS_NAMES.index("pedestrian") + 1).any() and (labels == CLASS_NAMES.index("traffic_cone") + 1).any()


def test_shapes_turn():
    bar = Shape("box", "car", (0, 0, 0), (0.5, 2.0, 0.5), (0, 0, 0), yaw=90)
    ball = Shape("ellipsoid", "vegetation", (0, 0, 0), (1, 2, 3), (0, 0, 0))
    points = np.array([[1.9, 0, 0], [0, 1.9, 0], [0, 0, 2.9], [0.9, 1.9, 0]])
    assert bar.covers(points, np.zeros(3), np.zeros(3)).tolist() == [True, False, False, False]
    assert ball.covers(points, np.zeros(3), np.zeros(3)).tolist() == [False, True, True, False]


def test_a_voxel_with_a_camera_in_it_is_empty():
    grid = Grid((4, 4, 2))  # so coarse that the ground reaches the cameras
    rig = nuscenes_like_rig(6, *HW)[1]
    places = np.stack([place_of(matrix) for matrix in rig])
    labels = snapshot(0, 0, grid, places).labels
    assert (labels[tuple(grid.index_of(places).T)] == 0).all()
    assert (labels != 0).any()


def test_the_default_frame():
    frame = default_frame(6, HW, MICRO, 0)
    assert frame.name == "synthetic" and frame.camera_names == NUSCENES_CAMERAS
    assert frame.described == "synthetic: frame 0 of a made-up city (seed 0), 6 cameras of a nuScenes-like rig"
    assert frame.images.shape == (6, *HW, 3) and frame.images.dtype == np.uint8 and not frame.images.flags.writeable
    np.testing.assert_array_equal(frame.lidar2img, nuscenes_like_rig(6, *HW)[1])
    assert all(not np.array_equal(frame.images[a], frame.images[b]) for a in range(6) for b in range(a))
    assert not np.array_equal(frame.images, default_frame(6, HW, MICRO, 1).images)
    assert default_frame(6, HW, MICRO, 0).images is frame.images, "kept for the next call"
    assert default_frame(3, (40, 60), MICRO, 0).images.shape == (3, 40, 60, 3)
    with pytest.raises(FrameError, match="cameras of the synthetic frame: expected 1 to 8, got 9"):
        default_frame(9, HW, MICRO, 0)


@pytest.mark.parametrize("grid", (Grid((1, 1, 1)), Grid((3, 2, 1), (0, 0, 0, 1, 1, 1)), Grid((8, 8, 4), (-5, -5, -9, 5, 5, -8))))
def test_any_grid_gives_images(grid):
    assert default_frame(2, (20, 30), grid, 0).images.shape == (2, 20, 30, 3)
