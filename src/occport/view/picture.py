"""A picture of a frame that anyone can look at: cameras, the volume in perspective and from above, ground truth beside it, a legend.

One slide, 16 : 9. No display, no GPU, and the same scene gives the same bytes, whatever matplotlib's settings on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..staging import Staging
from ..voxels.classes import IGNORE, colours
from ..voxels.occupancy import Occupancy
from .above import from_above
from .canvas import ALARM, FAINT, INK, PALE, canvas, round_ticks
from .layout import HEADING, HEIGHT, ONE, TWO, WIDTH, Box, Layout, Views, camera_boxes
from .perspective import EGO, perspective
from .scene import Scene

if TYPE_CHECKING:
    from .canvas import Axes, Figure, Text

_DPI = 100
_UNKNOWN = "unknown, not drawn"
_SMALLEST = 0.6  # to which a text's size may shrink before it is cut


@dataclass(frozen=True, eq=False)
class _Volume:
    """One of a scene's volumes, with its heading and the number of voxels of each class that occurs."""

    heading: str
    occupancy: Occupancy
    counts: dict[str, int]


def write_picture(scene: Scene, path: Path) -> None:
    """Draws a scene into a PNG file of 2400 x 1350 pixels; it is there whole or not at all.

    Errors: UserError where matplotlib is not installed; ExportError for a place that cannot be written to, and for a full disk.
    """
    content = picture(scene)
    with Staging(path.parent) as stage:
        (stage.path / path.name).write_bytes(content)
        stage.commit()


def picture(scene: Scene) -> bytes:
    """The same as the bytes of a PNG file, without dates or versions in it. Errors: UserError where matplotlib is not installed."""
    with canvas(WIDTH, HEIGHT, _DPI) as sheet:
        _Page(sheet.figure).draw(scene)
        return sheet.png()


class _Page:
    """A figure addressed in pixels from its top left corner."""

    def __init__(self, figure: Figure) -> None:
        self._figure = figure

    def draw(self, scene: Scene) -> None:
        """Everything."""
        volumes = _volumes(scene)
        assert volumes, "a scene holds a prediction or a ground truth"
        layout = TWO if len(volumes) == 2 else ONE
        self._title(scene, volumes, layout.title)
        self._cameras(scene, layout.cameras)
        for volume, views in zip(volumes, layout.volumes, strict=True):
            self._volume(volume, views)
        self._legend(volumes, layout)

    def _title(self, scene: Scene, volumes: list[_Volume], box: Box) -> None:
        """The frame's name, what is to be seen, and loudly whether it means anything."""
        grid = volumes[0].occupancy.grid
        size, edges = " x ".join(map(str, grid.size)), " x ".join(f"{edge:.4g}" for edge in grid.voxel_size)
        cameras = len(scene.frame.camera_names)
        what = {"prediction": "Predicted occupancy", "ground truth": "Ground-truth occupancy"}[volumes[0].heading]
        more = " beside the ground truth" if len(volumes) == 2 else ""
        name = volumes[0].occupancy.name
        token = "" if scene.frame.name == name else f"  ·  frame {scene.frame.name}"  # a result is called after its ground truth's file
        seen = f"{what}{more}  ·  {cameras} {'camera' if cameras == 1 else 'cameras'}  ·  {size} voxels of {edges} m{token}"
        room = box.width
        if scene.prediction is not None and not scene.trained:
            words = "UNTRAINED: the prediction means nothing"
            loud = self._text(box.left + box.width, box.top + 34, words, 30, "white", bold=True, right=True)
            loud.set_bbox({"facecolor": ALARM, "edgecolor": ALARM, "boxstyle": "round,pad=0.35"})
            room -= round(loud.get_window_extent().width) + 60
        self._text(box.left, box.top + 28, name, 42, bold=True, room=room)
        self._text(box.left, box.top + 74, seen, 25, FAINT, room=room)

    def _cameras(self, scene: Scene, area: Box) -> None:
        frame = scene.frame
        height, width = frame.images.shape[1:3]
        for name, image, box in zip(frame.camera_names, frame.images, camera_boxes(frame.camera_names, area, height, width), strict=True):
            axes = self._axes(box)
            axes.imshow(image[:, :, ::-1], aspect="auto", interpolation="hanning" if width > box.width else "nearest")
            label = self._text(box.left + 11, box.top + 20, name, 17, "white", room=box.width - 22)
            label.set_bbox({"facecolor": "black", "alpha": 0.55, "edgecolor": "none", "boxstyle": "square,pad=0.3"})

    def _volume(self, volume: _Volume, views: Views) -> None:
        near, above = views
        heading = volume.heading.capitalize()
        self._text(near.left, near.top - HEADING / 2, f"{heading}, looking forward", 25, bold=True)
        if above.left > near.left + near.width:  # beside it rather than below
            self._text(above.left, above.top - HEADING / 2, f"{heading}, from above", 25, bold=True)
        self._pixels(perspective(volume.occupancy, near.height, near.width), near)
        _draw_map(self._axes(above), volume.occupancy)

    def _legend(self, volumes: list[_Volume], layout: Layout) -> None:
        """Every class that occurs, with its colour and its number of voxels in each volume."""
        order = [name for volume in volumes for name in (*volume.occupancy.class_names, _UNKNOWN)]
        names = [name for name in dict.fromkeys(order) if any(name in volume.counts for volume in volumes)]
        box = layout.legend
        head = "Voxels of each class" if len(volumes) == 1 else "Voxels of each class: prediction over ground truth"
        self._text(box.left, box.top + 12, head if names else "No voxel is occupied", 25, bold=True)
        top, height = box.top + HEADING, box.height - HEADING
        columns = 1 if len(volumes) == 2 or len(names) <= 6 else 2
        rows = max(1, -(-len(names) // columns))
        row = min(height / rows, 76.0 if len(volumes) == 2 else 54.0)
        width = box.width / columns
        for number, name in enumerate(names):
            left, middle = box.left + number // rows * width, top + (number % rows + 0.5) * row
            colour = _colour(volumes, name)
            self._patch(Box(round(left), round(middle) - 13, 26, 26), colour)
            shown = name.replace("_", " ")
            counts = [volume.counts.get(name, 0) for volume in volumes]
            if len(volumes) == 1:
                self._text(left + 40, middle, shown, 22, room=width - 150)
                self._text(left + width - (0 if columns == 1 else 24), middle, f"{counts[0]:,}", 22, FAINT, right=True)
            else:
                self._text(left + 40, middle, shown, 22, room=270)
                most = max(max(volume.counts.values(), default=1) for volume in volumes)
                self._bars(counts, most, colour, Box(round(left) + 320, round(middle - row / 2), round(width) - 430, round(row)))

    def _bars(self, counts: list[int], most: int, colour: tuple[float, float, float], box: Box) -> None:
        """A bar for each volume, the lower ones paler."""
        thick = min(22, box.height // 2 - 4)
        for number, count in enumerate(counts):
            middle = round(box.top + box.height / 2 + (number - 0.5) * (thick + 2))
            length = round(box.width * count / most)
            if count:
                self._patch(Box(box.left, middle - thick // 2, max(1, length), thick), colour, 0.45 if number else 1.0)
            self._text(box.left + length + 8, middle, f"{count:,}", 17, FAINT)

    def _axes(self, box: Box) -> Axes:
        """An empty drawing area."""
        bottom = HEIGHT - box.top - box.height
        return self._figure.add_axes(
            (box.left / WIDTH, bottom / HEIGHT, box.width / WIDTH, box.height / HEIGHT), frameon=False, xticks=[], yticks=[]
        )

    def _pixels(self, image: NDArray[np.uint8], box: Box) -> None:
        """An image of the very size of its box, pixel by pixel."""
        self._figure.figimage(image, box.left, HEIGHT - box.top - box.height, origin="upper")

    def _patch(self, box: Box, colour: tuple[float, float, float], strength: float = 1.0) -> None:
        axes = self._axes(box)
        axes.set_frame_on(True)
        axes.set_facecolor((*colour, strength))
        for spine in axes.spines.values():
            spine.set_color("#00000055")
            spine.set_linewidth(0.8)

    def _text(
        self, left: float, middle: float, words: str, size: float, colour: str = INK, *, bold: bool = False, right: bool = False,
        room: float = WIDTH,
    ) -> Text:  # fmt: skip
        """Words of a size in pixels around the line `middle`; smaller, and at last cut, where they need more than `room`."""
        text = self._figure.text(
            left / WIDTH, 1 - middle / HEIGHT, words, fontsize=size * 72 / _DPI, color=colour, weight="bold" if bold else "normal",
            va="center_baseline", ha="right" if right else "left",
        )  # fmt: skip
        taken = text.get_window_extent().width
        if taken > room:
            text.set_fontsize(size * 72 / _DPI * max(_SMALLEST, 0.98 * room / taken))  # hinting does not scale quite evenly
            most = int(len(words) * room / (taken * _SMALLEST))
            while len(words) > 1 and text.get_window_extent().width > room:
                words = words[: min(most, len(words) - 1)]
                text.set_text(words + "…")
        return text


def _volumes(scene: Scene) -> list[_Volume]:
    found = [("prediction", scene.prediction), ("ground truth", scene.truth)]
    return [_Volume(heading, occupancy, _counts(occupancy)) for heading, occupancy in found if occupancy is not None]


def _counts(occupancy: Occupancy) -> dict[str, int]:
    """Voxels of each class that occurs, in the order of the labels."""
    histogram = np.bincount(occupancy.labels.reshape(-1), minlength=256)
    named = [(name, int(histogram[label])) for label, name in enumerate(occupancy.class_names, 1)]
    return {name: count for name, count in [*named, (_UNKNOWN, int(histogram[IGNORE]))] if count}


def _colour(volumes: list[_Volume], name: str) -> tuple[float, float, float]:
    """R, G, B from 0 to 1."""
    for volume in volumes:
        if name in volume.occupancy.class_names:
            red, green, blue = colours(volume.occupancy.class_names)[volume.occupancy.class_names.index(name) + 1] / 255
            return float(red), float(green), float(blue)
    return 1.0, 1.0, 1.0


def _draw_map(axes: Axes, occupancy: Occupancy) -> None:
    """From above, x to the right and y (forward) up, in metres; the car where it is, pointing forward."""
    x_low, y_low, _, x_high, y_high, _ = occupancy.grid.pc_range
    axes.set_frame_on(True)
    axes.set_facecolor(PALE)
    axes.imshow(from_above(occupancy), extent=(x_low, x_high, y_low, y_high), aspect="equal", interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_color("#c3c9d1")
    round_ticks(axes, 6)
    axes.tick_params(labelsize=17 * 72 / _DPI, colors=FAINT, length=4)
    axes.set_xlabel("x to the right, metres", fontsize=18 * 72 / _DPI, color=FAINT, labelpad=3)
    axes.set_ylabel("y forward, metres", fontsize=18 * 72 / _DPI, color=FAINT, labelpad=0)
    (left, back, _), (right, front, _), _ = EGO[0]
    nose = front - 0.4 * (front - back)
    axes.fill([left, right, right, 0, left], [back, back, nose, front, nose], facecolor=INK, edgecolor="white", linewidth=1.0)
    axes.set_xlim(x_low, x_high)
    axes.set_ylim(y_low, y_high)
