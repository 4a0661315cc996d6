"""An interactive recording for the Rerun viewer, in one .rrd file. The only file that imports rerun.

    time line "frame" ─┬─ prediction/CLASS, truth/CLASS   the surface of one class, so that each can be switched off
                       ├─ cameras/NAME, …/image           where a camera is; its lens and image
                       ├─ counts/prediction/CLASS, …      voxels of each class: the legend
                       └─ frame                           its name and where it comes from
    always             ── rig/…                           the LiDAR's axes, the grid's bounds, a car's body

A class is a mesh of its exposed faces and not a list of boxes. Measured with the viewer in a headless browser that renders on two CPU
cores, 200 x 200 x 16 voxels of which 208,940 are occupied: as meshes 7.3 MB, drawn again in 3 to 6 s; as boxes 1.0 MB and 9 to 33 s,
since most boxes lie inside where nobody sees them. Also a mesh has a colour at each corner, and so shapes that can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..frames.pinhole import pinhole_of, place_of
from ..staging import Staging
from ..voxels.classes import EMPTY, IGNORE, colours
from ..voxels.grid import Grid
from ..voxels.occupancy import Occupancy
from .faces import exposed_faces
from .perspective import EGO
from .scene import Scene

if TYPE_CHECKING:
    import rerun as rr
    import rerun.blueprint as rrb

TIME_LINE = "frame"
JPEG_QUALITY = 85
MAX_FACES = 1_000_000  # of a volume, 90 MB in a viewer; with more, only faces that nothing covers are kept
_FLUSH_SECONDS = 120.0  # for what is still being encoded at the end
_PLANE = 3.0  # metres from a camera to its image in the 3D view
_BACKGROUND = (34, 38, 44)
_EYE, _TARGET = (-11.0, -38.0, 28.0), (0.0, 3.0, -4.0)
# Front left, front, front right over back left, back, back right.
_PLACES = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
_TITLES = {"prediction": "Prediction", "truth": "Ground truth"}


def rerun_module() -> ModuleType:
    """The package rerun. Errors: UserError with the command that installs it."""
    try:
        import rerun
        import rerun.blueprint
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rerun":
            raise
        raise UserError("the interactive view", expected="the package rerun-sdk", got="none", fix="pip install 'occport[view]'") from error
    return rerun


def write_recording(scenes: Iterable[Scene], path: Path) -> list[str]:
    """Writes frames, one after another on the time line "frame", and how a viewer arranges them.

    Args:
        scenes: taken one at a time; what is kept is their part of the file, some 3 MB for a frame of nuScenes' size.
        path: the .rrd file; it is there whole or not at all.
    Returns:
        What is not shown as it is, a line each: a camera that is no pinhole, a volume with too many faces.
    Errors: UserError without the package rerun or without scenes; ExportError where the file cannot be written.
    """
    rerun_module()
    with Staging(path.parent) as stage:
        recorder = _Recorder(path.stem)
        for scene in scenes:
            recorder.add(scene)
        if not recorder.num_frames:
            raise UserError(f"recording {path}", expected="at least one frame", got="none")
        (stage.path / path.name).write_bytes(recorder.content())
        stage.commit()
    return recorder.notes


class _Recorder:
    """Scenes on their way into the bytes of a file, a few megabytes each; a viewer holds them in memory too.

    Rerun can write a file by itself; on a full disk its writer says so on stderr and then waits for ever.

    Args:
        name: shown as the recording's.
    """

    def __init__(self, name: str) -> None:
        self._rr: Any = rerun_module()
        self._stream: rr.RecordingStream = self._rr.RecordingStream("occport", recording_id=uuid4())
        if not self._rr.is_enabled(self._stream):
            raise UserError("environment variable RERUN", expected="nothing, or on", got="off", fix="a recording would be empty")
        self._content: rr.BinaryStream = self._stream.binary_stream()
        self._stream.send_recording_name(name)
        self._shown: set[str] = set()  # entities with something at the frame before
        self._now: set[str] = set()
        self._lidar2img: dict[str, bytes] = {}
        self._points: set[str] = set()  # cameras that are no pinholes
        self._layout: _Layout | None = None
        self.num_frames = 0
        self.notes: list[str] = []

    def add(self, scene: Scene) -> None:
        """The next frame."""
        volumes = {kind: volume for kind, volume in (("prediction", scene.prediction), ("truth", scene.truth)) if volume is not None}
        if not self.num_frames:
            self._rig(next(iter(volumes.values())).grid)
        cameras = zip(scene.frame.camera_names, scene.frame.lidar2img, strict=True)
        self._points.update(name for name, matrix in cameras if pinhole_of(matrix) is None)
        self._arrange(scene)  # before what it arranges, or a viewer begins with a layout of its own
        self._stream.set_time(TIME_LINE, sequence=self.num_frames)
        self._now = set()
        frame = scene.frame
        for kind, volume in volumes.items():
            self._volume(kind, volume)
        for name, image, lidar2img in zip(frame.camera_names, frame.images, frame.lidar2img, strict=True):
            self._camera(name, image, lidar2img)
        self._log("frame", self._rr.TextDocument(_about(scene), media_type="text/markdown"))
        for gone in sorted(self._shown - self._now):  # else a viewer goes on showing the frame before
            self._stream.log(gone, self._rr.Clear(recursive=False), strict=True)
        self._shown = self._now
        self.num_frames += 1

    def content(self) -> bytes:
        """The file. To be called once."""
        content = self._content.read(flush=True, flush_timeout_sec=_FLUSH_SECONDS)
        assert content, "rerun has encoded nothing"
        return content

    def _log(self, entity: str, *what: rr.AsComponents) -> None:
        first, *others = what
        self._stream.log(entity, first, *others, strict=True)
        self._now.add(entity)

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _rig(self, grid: Grid) -> None:
        """What never changes."""
        rr, log = self._rr, self._stream.log
        low, high = grid.low, np.array(grid.pc_range[3:])
        log("/", rr.ViewCoordinates.RFU, static=True, strict=True)  # right-handed: x right, y forward, z up
        bounds = rr.Boxes3D(mins=[low], sizes=[high - low], colors=[(150, 150, 150)], radii=[0.04], fill_mode="majorwireframe")
        log("rig/grid", bounds, static=True, strict=True)
        begin, end, _ = (np.array(column) for column in zip(*EGO, strict=True))
        car = rr.Boxes3D(mins=begin, sizes=end - begin, colors=[(120, 128, 138), (200, 206, 214)], fill_mode="solid")
        log("rig/car", car, static=True, strict=True)
        axes = rr.Arrows3D(vectors=2 * np.eye(3), colors=[(255, 80, 80), (80, 220, 80), (90, 120, 255)], radii=0.06)
        log("rig/lidar", axes, static=True, strict=True)

    def _volume(self, kind: str, volume: Occupancy) -> None:
        rr, table = self._rr, colours(volume.class_names)
        present = [int(label) for label in np.unique(volume.labels) if label not in (EMPTY, IGNORE)]
        surfaces = {label: exposed_faces(volume.labels, label, volume.grid) for label in present}
        faces = sum(surface.num_faces for surface in surfaces.values())
        if faces > MAX_FACES:
            surfaces = {label: exposed_faces(volume.labels, label, volume.grid, covered=False) for label in present}
            self._note(
                f"{kind} of {volume.name}: {faces} faces, more than {MAX_FACES}; those between two classes are left out, "
                "so that hiding a class shows holes"
            )
        for label, surface in surfaces.items():
            name = self._rr.escape_entity_path_part(_class_name(volume, label))
            shaded = np.rint(surface.shades[:, None] * table[label]).astype(np.uint8)
            mesh = rr.Mesh3D(
                vertex_positions=surface.vertices, triangle_indices=surface.triangles, vertex_colors=shaded, face_rendering="Front",
            )  # fmt: skip
            self._log(f"{kind}/{name}", mesh)
            count = int(np.count_nonzero(volume.labels == label))
            self._log(f"counts/{kind}/{name}", rr.BarChart([count], abscissa=[label], color=table[label]))

    def _camera(self, name: str, image: NDArray[np.uint8], lidar2img: NDArray[np.float64]) -> None:
        """A camera's image, and its lens and place where they are not those of the frame before."""
        rr, entity = self._rr, f"cameras/{self._rr.escape_entity_path_part(name)}"
        self._log(f"{entity}/image", rr.Image(image, color_model="BGR").compress(jpeg_quality=JPEG_QUALITY))
        self._now.add(entity)
        if self._lidar2img.get(name) == lidar2img.tobytes() and entity in self._shown:
            return
        self._lidar2img[name] = lidar2img.tobytes()
        camera = pinhole_of(lidar2img)
        if camera is None:
            self._note(f"{name}: its lidar2img is mirrored or skewed, no plain pinhole camera; shown as a point")
            self._log(entity, rr.Points3D([place_of(lidar2img)], radii=[0.3], labels=[name]))
            return
        self._log(entity, rr.Transform3D(translation=camera.place, mat3x3=camera.rotation))
        lens = rr.Pinhole(
            image_from_camera=camera.intrinsic, width=image.shape[1], height=image.shape[0], camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=_PLANE,
        )  # fmt: skip
        self._log(f"{entity}/image", lens)

    def _arrange(self, scene: Scene) -> None:
        """Sends the viewer's layout: with the first frame, and again when a later one shows something else."""
        before = self._layout or _Layout()
        volumes = (scene.prediction, scene.truth)
        kinds = tuple(kind for kind, volume in zip(_TITLES, volumes, strict=True) if volume is not None or kind in before.kinds)
        new = tuple(name for name in scene.frame.camera_names if name not in before.cameras)
        layout = _Layout(kinds, before.cameras + new, frozenset(self._points), before.trained and scene.trained)
        if layout != self._layout:
            self._layout = layout
            self._stream.send_blueprint(_blueprint(self._rr, layout))


@dataclass(frozen=True)
class _Layout:
    """What there is to arrange: kinds of volumes, cameras, and which of these are only points."""

    kinds: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    points: frozenset[str] = frozenset()
    trained: bool = True


def _blueprint(rr: Any, layout: _Layout) -> rrb.Blueprint:
    """The volumes side by side with a legend; the images below, in their places around the car."""
    layouts = rr.blueprint
    part = rr.escape_entity_path_part
    in_space = ["/rig/**"]
    for name in layout.cameras:
        in_space.append(f"/cameras/{part(name)}" if name in layout.points else f"/cameras/{part(name)}/**")
    eye = layouts.EyeControls3D(position=_EYE, look_target=_TARGET, eye_up=(0.0, 0.0, 1.0))
    plain = layouts.LineGrid3D(visible=False)
    spaces, legends = [], []
    for kind in layout.kinds:
        title = _TITLES[kind] + (" (UNTRAINED weights)" if kind == "prediction" and not layout.trained else "")
        contents = [f"/{kind}/**", *in_space]
        space = layouts.Spatial3DView(
            origin=f"/{kind}", contents=contents, name=title, eye_controls=eye, line_grid=plain, background=_BACKGROUND,
        )  # fmt: skip
        spaces.append(space)
        legends.append(layouts.BarChartView(origin=f"/counts/{kind}", name=_TITLES[kind], plot_legend="LeftTop"))
    names = [name for name in _PLACES if name in layout.cameras] + [name for name in layout.cameras if name not in _PLACES]
    images = [layouts.Spatial2DView(origin=f"/cameras/{part(name)}/image", name=name) for name in names]
    columns = 3 if len(images) in (3, 5, 6) else 4
    legend = layouts.Tabs(*legends, layouts.TextDocumentView(origin="/frame", name="Frame"), name="Voxels of each class")
    below = layouts.Horizontal(layouts.Grid(*images, grid_columns=columns, name="Cameras"), legend, column_shares=[3, 1], name="Seen")
    blueprint: rrb.Blueprint = layouts.Blueprint(
        layouts.Vertical(layouts.Horizontal(*spaces, name="Volumes"), below, row_shares=[3, 2]),
        layouts.BlueprintPanel(state="expanded"), layouts.SelectionPanel(state="collapsed"),
        layouts.TimePanel(state="collapsed", timeline=TIME_LINE, play_state="paused"),  # else it opens at the end
    )  # fmt: skip
    return blueprint


def _class_name(volume: Occupancy, label: int) -> str:
    return volume.class_names[label - 1] if label <= len(volume.class_names) else f"class {label}"


def _about(scene: Scene) -> str:
    """Markdown."""
    lines = [f"**{scene.frame.name}**", scene.frame.described]
    if scene.prediction is not None and not scene.trained:
        lines.append("The prediction was made with **untrained weights**.")
    return "\n\n".join(lines)
