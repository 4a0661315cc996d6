"""Predictions that stand in files, written by any runtime: a folder of NAME.npz beside a folder of ground truth, NAME.npy.

Whatever runs the network, if it writes `labels` or `probabilities` (X, Y, Z) it can be scored, and compared with what another one wrote.
The grid has the prediction's size; its range is the config's, else what the files say, else that of nuScenes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..config import Config
from ..errors import FrameError
from ..frames.frame import Frame
from ..frames.listing import Entry
from ..voxels.classes import CLASS_NAMES, OCCUPIED
from ..voxels.files import Prediction, read_prediction
from ..voxels.grid import NUSCENES_RANGE, Grid
from ..voxels.ground_truth import shown_size
from ..voxels.occupancy import POINT_THRESHOLD, Occupancy

if TYPE_CHECKING:
    from .predictor import Predictor

_ONLY_LABELS = "there are labels only, no probabilities: every label but that of empty counts as occupied"


@dataclass(frozen=True)
class Facts:
    """What is judged.

    Attributes:
        label: short, for the head of a column.
        described: one line.
        class_names: of labels 1, 2, …
        size: (X, Y, Z).
        trained: False for seeded weights.
    """

    label: str
    described: str
    class_names: tuple[str, ...]
    size: tuple[int, int, int]
    trained: bool = True


class Reading(Protocol):
    """A frame that is read when somebody first asks for it."""

    def __call__(self, predictor: Predictor, seed: int) -> Frame:
        """The frame, as this predictor's config has it."""
        ...


class Answers(Protocol):
    """Says what is in the voxels of a frame: a network, or a folder of files. `facts` tells about it."""

    facts: Facts

    def __call__(self, name: str, reading: Reading) -> tuple[Occupancy, tuple[str, ...]]:
        """The occupancy of the frame called `name`, and what must be known about it. Errors: FrameError."""
        ...


class Source(Protocol):
    """Where answers come from. A frozen dataclass that can be pickled."""

    def open(self) -> Answers:
        """Loads what is needed. Errors: UserError."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """A folder of NAME.npz; made by `folder_source`."""

    folder: Path
    class_names: tuple[str, ...]
    grid: Grid
    semantic: bool

    def open(self) -> FolderAnswers:
        """Reads nothing yet."""
        return FolderAnswers(self)


class FolderAnswers:
    """Reads a NAME.npz for each frame; see `Answers`."""

    def __init__(self, source: FolderSource) -> None:
        self._source = source
        names = source.class_names if source.semantic else OCCUPIED
        self.facts = Facts(source.folder.name or str(source.folder), f"files of {source.folder}", names, source.grid.size)

    def __call__(self, name: str, reading: Reading) -> tuple[Occupancy, tuple[str, ...]]:
        """Errors: FrameError for a file that cannot be read, of another grid or other classes, and for labels that are no class."""
        source = self._source
        path = source.folder / f"{name}.npz"
        prediction = read_prediction(path)
        if prediction.size != source.grid.size:
            raise FrameError(f"{path}: grid", expected=f"{shown_size(source.grid.size)} as in the others", got=shown_size(prediction.size))
        if prediction.pc_range not in (None, source.grid.pc_range):
            raise FrameError(f"{path}: pc_range", expected=str(list(source.grid.pc_range)), got=str(list(prediction.pc_range or ())))
        _check_kind(prediction, path, source.semantic)
        grid = source.grid
        if not source.semantic:
            if prediction.probabilities is None:
                assert prediction.labels is not None
                return Occupancy(name, (prediction.labels > 0).astype(np.uint8), OCCUPIED, grid), (_ONLY_LABELS,)
            probabilities = prediction.probabilities.astype(np.float32)
            return Occupancy(name, (probabilities > POINT_THRESHOLD).astype(np.uint8), OCCUPIED, grid, probabilities), ()
        assert prediction.labels is not None
        if prediction.class_names not in (None, source.class_names):
            raise FrameError(f"{path}: class_names", expected=_few(source.class_names), got=_few(prediction.class_names or ()))
        top, most = int(prediction.labels.max()), len(source.class_names)
        if top > most:
            count = int((prediction.labels > most).sum())
            raise FrameError(
                f"{path}: labels", expected=f"0 to {most} ({classes_text(most)})", got=f"up to {top} ({count} voxels beyond)",
                fix="with other classes than SurroundOcc's give --config",
            )  # fmt: skip
        return Occupancy(name, prediction.labels, source.class_names, grid), ()


def folder_source(folder: Path, names: Iterable[str], semantic: bool, config: Config | None = None) -> FolderSource:
    """A folder of predictions, with the grid and classes that its files, the config, or nuScenes give.

    Args:
        folder: holds NAME.npz for each of `names`.
        names: the frames to come. The first file that can be read tells the size.
        semantic: whether classes are scored.
        config: gives range and classes.
    Errors: FrameError where no file can be read (that of the first), for another range than the config's, and where the files' kind is
        not what `semantic` says.
    """
    first, path = _first_readable(folder, names)
    _check_kind(first, path, semantic)
    pc_range = config.pc_range if config is not None else first.pc_range or NUSCENES_RANGE
    if first.pc_range not in (None, pc_range):
        raise FrameError(
            f"{path}: pc_range", expected=f"{list(pc_range)} as in the config", got=str(list(first.pc_range or ())),
            fix="give the config that it was made with",
        )  # fmt: skip
    classes = config.class_names if config is not None else first.class_names or CLASS_NAMES
    return FolderSource(folder, classes if semantic else OCCUPIED, Grid(first.size, pc_range), semantic)


def match_folders(predictions: Path, ground_truth: Path) -> list[Entry]:
    """The frames of two folders, by name: NAME.npz there, NAME.npy here; in the order of the names.

    Entry.spec is the prediction's path. Errors: FrameError for a folder that is none, or holds none, and for files without a partner.
    """
    there, here = files_of(predictions, ".npz", "predictions"), files_of(ground_truth, ".npy", "ground truth")
    for have, lack, kind, place in ((there, here, "ground truth", ground_truth), (here, there, "prediction", predictions)):
        alone = sorted(set(have) - set(lack))
        if alone:
            ending = ".npy" if have is there else ".npz"
            raise FrameError(
                f"{kind} of {len(alone)} of {len(have)} frames", expected=f"NAME{ending} for each in {place}",
                got="none for " + few(alone), fix="the names of both must be the same, up to the ending",
            )  # fmt: skip
    return [Entry(name, str(there[name]), here[name]) for name in sorted(there)]


def files_of(folder: Path, ending: str, what: str) -> dict[str, Path]:
    """The visible files of a folder that end so, by their names without it. Errors: FrameError where there is none."""
    try:
        paths = [path for path in folder.iterdir() if path.name.endswith(ending) and not path.name.startswith(".")]
    except OSError as error:
        raise FrameError(f"{what} {folder}", expected="a folder", got=error.strerror or str(error)) from error
    if not paths:
        raise FrameError(f"{what} {folder}", expected=f"at least one NAME{ending}", got="none")
    return {path.name.removesuffix(ending): path for path in paths}


def few(names: Sequence[str], most: int = 5) -> str:
    """a, b, c and 7 more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def classes_text(count: int) -> str:
    """1 class, 16 classes."""
    return f"{count} {'class' if count == 1 else 'classes'}"


def _few(names: Sequence[str]) -> str:
    return f"{classes_text(len(names))} ({few(names)})"


def _first_readable(folder: Path, names: Iterable[str]) -> tuple[Prediction, Path]:
    failure: FrameError | None = None
    for name in names:
        path = folder / f"{name}.npz"
        try:
            return read_prediction(path), path
        except FrameError as error:
            failure = failure or error
    raise failure or FrameError(f"predictions {folder}", expected="at least one frame", got="none")


def _check_kind(prediction: Prediction, path: Path, semantic: bool) -> None:
    if semantic and prediction.probabilities is not None:
        raise FrameError(
            str(path), expected="labels", got="probabilities, of a network without semantics",
            fix="add --no-semantic to score occupancy alone",
        )  # fmt: skip
