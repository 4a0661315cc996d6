"""The synthetic city: the images show exactly the voxels of the ground truth, every class occurs, and the scene moves as it should."""

from __future__ import annotations

import numpy as np
import pytest

from occport.city.frame import city_frame, default_frame
from occport.city.layout import FRAMES, street
from occport.city.shapes import Shape
from occport.city.snapshot import LIDAR_HEIGHT, is_fine, snapshot
from occport.city.vehicles import car
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


def open_faces(solid: np.ndarray, axis: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Every voxel with nothing beside it on one side (n, 3), and the middle of that face (n, 3), in voxels."""
    beside = np.roll(np.pad(solid, 1), -side, axis)[1:-1, 1:-1, 1:-1]
    voxels = np.argwhere(solid & ~beside)
    middles = voxels + 0.5
    middles[:, axis] += side / 2
    return voxels, middles


def first_on_the_way(solid: np.ndarray, start: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """The first solid voxel of each way (n, 3) from `start`, in voxels: (n, 3), -1 for none. Looks at every piece between two planes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = [(np.arange(size + 1) - start[axis]) / ways[:, axis : axis + 1] for axis, size in enumerate(solid.shape)]
    finite = np.concatenate(crossings, axis=1)
    ends = np.sort(np.where(np.isfinite(finite), finite, 0).clip(0), axis=1)
    pieces = (ends[:, 1:] + ends[:, :-1]) / 2
    voxels = np.floor(start + pieces[..., None] * ways[:, None]).astype(int)  # (n, pieces, 3)
    inside = ((voxels >= 0) & (voxels < solid.shape)).all(axis=2)
    met = inside & solid[tuple(np.moveaxis(np.where(inside[..., None], voxels, 0), 2, 0))]
    first = voxels[np.arange(len(ways)), met.argmax(axis=1)]
    return np.where(met.any(axis=1)[:, None], first, -1)


def on_face(start: np.ndarray, ways: np.ndarray, voxels: np.ndarray, axis: int, side: int) -> np.ndarray:
    """(n,) bool: whether each way goes through that face of its voxel."""
    gone = (voxels[:, axis] + (side + 1) // 2 - start[axis]) / ways[:, axis]
    offset = np.delete(start + gone[:, None] * ways - voxels, axis, axis=1)
    return np.asarray(((offset > 0) & (offset < 1)).all(axis=1) & (gone > 0))


@pytest.mark.parametrize(("grid", "hw"), [(MICRO, HW), (MIDDLE, (225, 400))])
@pytest.mark.parametrize("number", (0, 23))
def test_a_voxel_in_sight_has_its_colour_where_it_projects_to(grid, hw, number):
    """All faces of all voxels whose middle projects into an image: its pixel has the voxel's colour.

    Where the ray through the pixel's middle meets another voxel first (the face is hidden, or smaller than a pixel) nothing is asked;
    of the faces whose own middle is in sight that may be no more than 40 %.
    """
    frame, scene = city_frame(5, number, 6, hw, grid)
    solid = scene.labels != 0
    in_sight = checked = 0
    for image, matrix in zip(frame.images, frame.lidar2img, strict=True):
        eye = (place_of(matrix) - grid.low) / grid.voxel_size
        for face in range(6):
            axis, side = face // 2, (-1, 1)[face % 2]
            voxels, middles = open_faces(solid, axis, side)
            column, row, depth = matrix[:3] @ np.vstack([(grid.low + middles * grid.voxel_size).T, np.ones(len(middles))])
            seen = (depth > 0.5) & ((eye[axis] - middles[:, axis]) * side > 0)
            seen &= (column >= 0) & (column < hw[1] * depth) & (row >= 0) & (row < hw[0] * depth)
            voxels, middles = voxels[seen], middles[seen]
            pixels = np.floor(np.stack([row, column])[:, seen] / depth[seen]).astype(int)
            rays = np.linalg.inv(matrix[:3, :3]) @ np.vstack([pixels[::-1] + 0.5, np.ones(len(voxels))])
            own = (first_on_the_way(solid, eye, rays.T / grid.voxel_size) == voxels).all(axis=1)
            in_sight += (first_on_the_way(solid, eye, middles - 1e-6 * side * np.eye(3)[axis] - eye) == voxels).all(axis=1).sum()
            entered = own & on_face(eye, rays.T / grid.voxel_size, voxels, axis, side)
            wanted = np.rint(scene.colours[tuple(voxels[entered].T)] * FACE_LIGHT[face])
            np.testing.assert_array_equal(image[tuple(pixels[:, entered])][:, ::-1], wanted)
            checked += entered.sum()
    assert checked > max(250, 0.6 * in_sight)


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


def test_coarse_grids_leave_out_details():
    """A lamp or a wheel of three metres would hide the street; cars keep their paint."""
    shapes = street(0, 0).shapes
    vehicles = {"car", "bus", "truck", "trailer", "bicycle", "motorcycle"}
    assert {shape.label for shape in shapes if shape.detail} == {"manmade", "pedestrian", *vehicles}
    lamps = {shape.colour for shape in shapes if shape.detail and shape.label == "manmade"}
    assert len(lamps) == 1 and is_fine(FULL) and is_fine(MIDDLE) and not is_fine(MICRO)
    (lamp,) = lamps
    for grid, shown in ((FULL, True), (MICRO, False)):
        scene = snapshot(0, 0, grid, NO_CAMERA)
        near = np.abs(scene.colours[scene.labels == CLASS_NAMES.index("manmade") + 1].astype(int) - lamp).max(axis=1) <= 8
        assert near.any() == shown
        assert (scene.colours[scene.labels == CLASS_NAMES.index("car") + 1].max(axis=1) > 130).any()


@pytest.mark.parametrize("heading", (-1, 1))
def test_a_car_is_lit_white_in_front_and_red_behind(heading):
    lights = [shape for shape in car(np.random.default_rng(0), 10.0, 20.0, heading, 0.5) if shape.middle[2] == 1.05]
    ahead = {shape.colour for shape in lights if (shape.middle[1] - 20) * heading > 0}
    behind = {shape.colour for shape in lights if (shape.middle[1] - 20) * heading < 0}
    assert len(lights) == 4 and {min(colour) > 200 for colour in ahead} == {True}
    assert all(red > 200 and green < 50 for red, green, _ in behind)
    assert all(shape.speed == 0.5 and shape.detail for shape in lights)
