"""Putting a scene together: the frame, what a network predicted of it, and its ground truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FrameError
from ..frames.listing import Entry
from ..frames.safe_pickle import plain, read_pickle
from ..frames.source import read_frame
from ..voxels.classes import CLASS_NAMES, IGNORE, OCCUPIED
from ..voxels.files import Prediction, read_prediction
from ..voxels.grid import NUSCENES_RANGE, Grid
from ..voxels.ground_truth import read_ground_truth, shown_size
from ..voxels.occupancy import POINT_THRESHOLD, Occupancy
from .scene import Scene

RECORD = "predictions.json"  # what `occport predict` writes beside its results


@dataclass(frozen=True)
class Meaning:
    """What a ground truth's numbers mean, which its file does not say.

    Attributes:
        grid: of the voxel indices.
        class_names: of labels 1, 2, …; ("occupied",) without semantics.
    """

    grid: Grid
    class_names: tuple[str, ...]


SURROUNDOCC = Meaning(Grid((200, 200, 16)), CLASS_NAMES)


def dataset_meaning(entry: Entry) -> Meaning:
    """What a dataset file says of its ground truth, as the synthetic city's does ('metadata': 'occ_size', 'point_cloud_range').

    SurroundOcc's own where the file says nothing, or the frame is of no dataset file. Errors: FrameError for a file that cannot be read.
    """
    path = Path(entry.spec.rpartition(":")[0])
    if path.suffix not in (".pkl", ".pickle"):
        return SURROUNDOCC
    content = read_pickle(path)
    found = content.get("metadata") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        return SURROUNDOCC
    size, place = (_numbers(found.get(key), count) for key, count in (("occ_size", 3), ("point_cloud_range", 6)))
    if size is None or place is None or min(size) < 1:
        return SURROUNDOCC
    (x, y, z), (x0, y0, z0, x1, y1, z1) = map(int, size), place
    return Meaning(Grid((x, y, z), (x0, y0, z0, x1, y1, z1)), CLASS_NAMES)


def _numbers(value: object, count: int) -> list[float] | None:
    found = plain(value)
    if not isinstance(found, list) or len(found) != count or not all(isinstance(item, int | float) for item in found):
        return None
    return [float(item) for item in found]


def prediction_file(entry: Entry, predictions: Path) -> Path:
    """Where the prediction of a frame is looked for."""
    return predictions / f"{entry.name}.npz"


def truth_file(entry: Entry, given: Path | None) -> Path | None:
    """Where the ground truth of a frame is looked for: `given`, or NAME.npy in it; else where the dataset says, if it is there."""
    if given is None:
        return entry.ground_truth if entry.ground_truth is not None and entry.ground_truth.is_file() else None
    return given / f"{entry.name}.npy" if given.is_dir() else given


def read_scene(entry: Entry, predictions: Path | None, ground_truth: Path | None, meaning: Meaning | None = None) -> Scene:
    """Reads what there is of a frame.

    Args:
        entry: of the frame.
        predictions: folder with NAME.npz; None for the ground truth alone.
        ground_truth: a file of (n, 4) voxels, or a folder with NAME.npy; None takes the one that the dataset names, if it is there.
        meaning: of the ground truth where there is no prediction, by default SurroundOcc's; a prediction must have its size.
    Errors: FrameError for a frame, prediction or ground truth that cannot be read or is of another grid, and where there is neither.
    """
    prediction = None if predictions is None else _occupancy(read_prediction(prediction_file(entry, predictions)), meaning)
    place = truth_file(entry, ground_truth)
    if prediction is None and place is None:
        what, got = f"frame {entry.name}", "neither predictions nor ground truth"
        raise FrameError(what, expected="something to show", got=got, fix="give --predictions or --ground-truth")
    truth = None
    if place is not None:
        known = (meaning or SURROUNDOCC) if prediction is None else Meaning(prediction.grid, prediction.class_names)
        labels = read_ground_truth(place, known.grid, semantic=known.class_names != OCCUPIED)
        _check_labels(labels, known.class_names, str(place))
        truth = Occupancy(entry.name, labels, known.class_names, known.grid)
    return Scene(read_frame(entry.spec), prediction, truth, predictions is None or _trained(predictions))


def _occupancy(found: Prediction, meaning: Meaning | None) -> Occupancy:
    """A prediction file's volume; what the file does not say is taken from `meaning`, and is SurroundOcc's in the end."""
    known = meaning or SURROUNDOCC
    if meaning is not None and found.size != meaning.grid.size:
        raise FrameError(
            f"prediction {found.name}.npz", expected=f"{shown_size(meaning.grid.size)} voxels, as the config says",
            got=shown_size(found.size), fix="give the config that it was made with, or none",
        )  # fmt: skip
    labels = found.labels
    if labels is None:
        assert found.probabilities is not None
        labels = (found.probabilities > POINT_THRESHOLD).astype(np.uint8)
    names = found.class_names or (known.class_names if found.probabilities is None else OCCUPIED)
    _check_labels(labels, names, f"prediction {found.name}.npz")
    return Occupancy(found.name, labels, names, Grid(found.size, found.pc_range or (meaning.grid.pc_range if meaning else NUSCENES_RANGE)))


def _check_labels(labels: np.ndarray, names: tuple[str, ...], what: str) -> None:
    highest = int(labels[labels != IGNORE].max(initial=0))
    if highest > len(names):
        fix = "give the --config whose class_names they are"
        raise FrameError(f"labels of {what}", expected=f"0 to {len(names)}, or {IGNORE} for unknown", got=str(highest), fix=fix)


def _trained(predictions: Path) -> bool:
    """False only where the predictions say so themselves."""
    record = predictions / RECORD
    if not record.is_file():
        return True
    try:
        table = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FrameError(str(record), expected="JSON, as `occport predict` writes it", got=f"something else ({error})") from error
    return not (isinstance(table, dict) and table.get("trained") is False)
