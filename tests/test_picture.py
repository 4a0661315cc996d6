"""The picture as a whole: its layout, what stands where, and that it is always the same bytes."""

from __future__ import annotations

import errno
import sys
import warnings
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from occport.errors import ExportError, UserError
from occport.frames.frame import NUSCENES_CAMERAS, Frame
from occport.frames.images import read_image
from occport.frames.rig import nuscenes_like_rig
from occport.view.above import from_above
from occport.view.layout import HEIGHT, ONE, TWO, WIDTH, Box, camera_boxes
from occport.view.perspective import perspective
from occport.view.picture import picture, write_picture
from occport.view.scene import Scene
from occport.voxels.classes import CLASS_NAMES, IGNORE, OCCUPIED, SURROUNDOCC
from occport.voxels.grid import Grid
from occport.voxels.occupancy import Occupancy

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

GRID = Grid((10, 10, 4))
ALARM = (179, 38, 30)


def frame(num_cameras: int = 6) -> Frame:
    """Each camera's image is of one grey level: 100, 110, …, tinted so that swapped channels show."""
    names, lidar2img = nuscenes_like_rig(num_cameras, 18, 32)
    images = np.empty((num_cameras, 18, 32, 3), np.uint8)
    for camera in range(num_cameras):
        images[camera] = 100 + 10 * camera, 50, 20  # B, G, R
    return Frame("token", names, images, lidar2img, "made up")


def volume(name: str = "first", **voxels: tuple[int, int, int]) -> Occupancy:
    """A voxel for each class that is named."""
    labels = np.zeros(GRID.size, np.uint8)
    for known, place in voxels.items():
        labels[place] = CLASS_NAMES.index(known) + 1
    return Occupancy(name, labels, CLASS_NAMES, GRID)


def drawn(scene: Scene, folder: Path) -> np.ndarray:
    """(H, W, 3) uint8, R, G, B."""
    (folder / "x.png").write_bytes(picture(scene))
    return read_image(folder / "x.png")[:, :, ::-1]


def within(image: np.ndarray, box: Box) -> np.ndarray:
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def pixels_of(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(axis=2).sum())


@pytest.fixture
def quick(monkeypatch):
    """No rays where the perspective does not matter."""
    monkeypatch.setattr("occport.view.picture.perspective", lambda occupancy, height, width: np.full((height, width, 3), 230, np.uint8))


def test_perspective_map_and_legend(tmp_path, monkeypatch):
    monkeypatch.setattr("occport.view.perspective.SAMPLES", 1)
    occupancy = volume(car=(7, 2, 3), manmade=(1, 8, 0))
    image = drawn(Scene(frame(), occupancy, None), tmp_path)
    assert image.shape == (HEIGHT, WIDTH, 3)
    near, above = ONE.volumes[0]
    np.testing.assert_array_equal(within(image, near), perspective(occupancy, near.height, near.width))
    cell = above.width // 10
    seen = from_above(occupancy)
    for row, column in ((7, 7), (1, 1)):  # y counts from below
        middle = image[above.top + row * cell + cell // 2, above.left + column * cell + cell // 2]
        np.testing.assert_array_equal(middle, seen[row, column, :3])
    assert tuple(seen[7, 7, :3]) == SURROUNDOCC["car"]  # at the very top there is no shading
    legend = within(image, ONE.legend)
    assert pixels_of(legend, SURROUNDOCC["car"]) > 300 and pixels_of(legend, SURROUNDOCC["manmade"]) > 300
    assert pixels_of(legend, SURROUNDOCC["bus"]) == 0


@pytest.mark.usefixtures("quick")
def test_ground_truth_beside_the_prediction(tmp_path):
    scene = Scene(frame(), volume(car=(0, 0, 3)), volume(car=(9, 9, 3), bus=(5, 5, 3)))
    image = drawn(scene, tmp_path)
    left, right = (within(image, views.above) for views in TWO.volumes)
    assert pixels_of(left, SURROUNDOCC["bus"]) == 0 < pixels_of(right, SURROUNDOCC["bus"])
    assert pixels_of(left[-40:, :40], SURROUNDOCC["car"]) > 1000 < pixels_of(right[:40, -40:], SURROUNDOCC["car"])
    assert pixels_of(within(image, TWO.legend), SURROUNDOCC["bus"]) > 300


@pytest.mark.usefixtures("quick")
def test_cameras_stand_in_their_places(tmp_path):
    given_frame = frame()
    image = drawn(Scene(given_frame, None, volume(car=(0, 0, 0))), tmp_path)
    boxes = dict(zip(given_frame.camera_names, camera_boxes(given_frame.camera_names, ONE.cameras, 18, 32), strict=True))
    for camera, name in enumerate(given_frame.camera_names):
        box = boxes[name]
        assert tuple(image[box.top + box.height // 2, box.left + box.width // 2]) == (20, 50, 100 + 10 * camera)
    for front, back in (("CAM_FRONT_LEFT", "CAM_BACK_LEFT"), ("CAM_FRONT", "CAM_BACK"), ("CAM_FRONT_RIGHT", "CAM_BACK_RIGHT")):
        assert boxes[front].left == boxes[back].left and boxes[front].top < boxes[back].top
    assert boxes["CAM_FRONT_LEFT"].left < boxes["CAM_FRONT"].left < boxes["CAM_FRONT_RIGHT"].left


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 3000), st.integers(1, 3000), st.booleans())
def test_camera_boxes_fit_and_do_not_overlap(count, height, width, one):
    area = ONE.cameras if one else TWO.cameras
    names = NUSCENES_CAMERAS if count == 6 else tuple(f"CAM_{number}" for number in range(count))
    boxes = camera_boxes(names, area, height, width)
    covered = np.zeros((HEIGHT, WIDTH), np.uint8)
    for box in boxes:
        within(covered, box)[:] += 1
        assert area.left <= box.left and box.left + box.width <= area.left + area.width
        assert area.top <= box.top and box.top + box.height <= area.top + area.height
        assert box.width <= 2 or box.height <= 2 or abs(box.width / box.height / (width / height) - 1) < 0.5
    assert covered.max() == 1


def test_nothing_of_a_layout_overlaps():
    for layout in (ONE, TWO):
        covered = np.zeros((HEIGHT, WIDTH), np.uint8)
        for box in (layout.title, layout.cameras, layout.legend, *(view for views in layout.volumes for view in views)):
            assert box.left >= 0 and box.left + box.width <= WIDTH and box.top >= 0 and box.top + box.height <= HEIGHT
            within(covered, box)[:] += 1
        assert covered.max() == 1


@pytest.mark.usefixtures("quick")
def test_untrained_is_said_loudly(tmp_path):
    occupancy = volume(car=(0, 0, 0))
    counts = {
        trained: pixels_of(within(drawn(Scene(frame(), occupancy, None, trained), tmp_path), ONE.title), ALARM) for trained in (True, False)
    }
    assert counts[True] == 0 and counts[False] > 5000
    alone = drawn(Scene(frame(), None, occupancy, trained=False), tmp_path)  # the ground truth is nobody's weights
    assert pixels_of(within(alone, ONE.title), ALARM) == 0


@pytest.mark.usefixtures("quick")
def test_the_same_bytes_whatever_the_settings():
    import matplotlib

    scene = Scene(frame(), volume(car=(0, 0, 0)), volume(bus=(1, 2, 3)))
    first = picture(scene)
    theirs = {"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 50, "font.family": "monospace", "text.usetex": True}
    with matplotlib.rc_context(theirs):
        assert picture(scene) == first
        assert matplotlib.rcParams["font.size"] == 30
    assert b"Software" not in first and b"tIME" not in first and b"matplotlib" not in first.lower()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["costs $5 and $\\frac", "画面_前", "n015-2018-07-24-11-22-45+0800__LIDAR_TOP__" * 6, "a_b^{c}%"])
def test_any_name_can_be_drawn(tmp_path, name):
    cameras = Frame("token", (name,), np.zeros((1, 4, 4, 3), np.uint8), nuscenes_like_rig(1, 4, 4)[1], "made up")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = drawn(Scene(cameras, volume(name, car=(0, 0, 0)), None, trained=False), tmp_path)
    margin = image[:, : ONE.title.left - 2]
    assert (margin == 255).all() and (image[:, WIDTH - 12 :] == 255).all()
    between = image[ONE.title.top : 100, ONE.title.left + 1560 : ONE.title.left + 1580]
    assert (between == 255).all()  # the name ends before the warning begins


@pytest.mark.usefixtures("quick")
def test_empty_unknown_and_other_classes(tmp_path):
    empty = Occupancy("empty", np.zeros(GRID.size, np.uint8), CLASS_NAMES, GRID)
    assert not (drawn(Scene(frame(), empty, empty), tmp_path)[:, :, 0] == 255).all()
    unknown = Occupancy("unknown", np.full(GRID.size, IGNORE, np.uint8), CLASS_NAMES, GRID)
    image = drawn(Scene(frame(1), unknown, None), tmp_path)
    assert pixels_of(within(image, ONE.volumes[0].above), (243, 245, 248)) > 200_000  # nothing on the map
    plain = Occupancy("plain", np.ones(GRID.size, np.uint8), OCCUPIED, GRID)
    assert pixels_of(within(drawn(Scene(frame(8), plain, plain), tmp_path), TWO.legend), (90, 130, 200)) > 300


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"^drawing a picture: expected matplotlib, got not installed; pip install 'occport\[view\]'$"):
        picture(Scene(frame(), volume(), None))


@pytest.mark.usefixtures("quick")
def test_a_picture_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    scene = Scene(frame(), volume(car=(0, 0, 0)), None)
    write_picture(scene, tmp_path / "new/one.png")
    before = (tmp_path / "new/one.png").read_bytes()

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError, match="No space left on device; nothing was changed there"):
        write_picture(Scene(frame(), volume(), None), tmp_path / "new/one.png")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.png"]
    assert (tmp_path / "new/one.png").read_bytes() == before
