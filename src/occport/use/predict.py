"""Predicting frame by frame: what is done with one, and the folder in which the results stand.

    DIR/NAME.npz, NAME.npy, NAME.ply     of each frame (`voxels/files.py`); the .npz comes last, so that a frame that has it is whole
    DIR/predictions.json                 which network, classes and grid; when the run has ended, also its frames, failures and times

A folder holds results of one network only, and one run at a time writes into it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import resolved
from ..errors import ExportError
from ..frames.frame import NUSCENES_CAMERAS, Frame, described_value
from ..frames.listing import Entry
from ..frames.source import load_frame
from ..staging import Staging
from ..voxels.files import is_whole
from .work import Outcome, Task

if TYPE_CHECKING:
    from .choice import Choice
    from .predictor import Predictor

RECORD = "predictions.json"
STAGES = ("reading", "inference", "writing")
ENDINGS = (".npz", ".npy", ".ply")
_FORM = "occport predictions 1"
_DECIDES = ("network", "class_names", "grid")  # what may not differ within a folder
_LOOKS = np.array([0.0, -55.0, 55.0, 180.0, 110.0, -110.0])  # of NUSCENES_CAMERAS: degrees left of forward
_CLEAR = 30.0  # degrees


def made_up(seed: int) -> Entry:
    """Stands for the synthetic frame; its `spec` is empty."""
    return Entry(f"synthetic_{seed}" if seed else "synthetic", "")


@dataclass(frozen=True)
class PredictPlan:
    """Predicts frames and writes the results into a folder. Rows hold `occupied` (voxels), `histogram` and `notes`.

    Attributes:
        choice: of the network; its seed is the made-up frame's too.
        folder: where to write; it exists.
        opened: the predictor, where this process has it already. It does not travel to other processes.
    """

    choice: Choice
    folder: Path
    opened: Predictor | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        return PredictPlan, (self.choice, self.folder)

    def start(self) -> PredictWorker:
        """Loads the network. Errors: those of `Choice.open`."""
        return PredictWorker(self.opened or self.choice.open(), self.folder, self.choice.seed)


class PredictWorker:
    """Does one frame after the other, as `PredictPlan` says."""

    def __init__(self, predictor: Predictor, folder: Path, seed: int) -> None:
        self._predictor, self._folder, self._seed = predictor, folder, seed

    def __call__(self, task: Task) -> Outcome:
        """Reads, predicts, writes. A disk that does not take the result ends the run: the outcome's row then has `stop`.

        Errors: FrameError, as the readers and the predictor refuse frames.
        """
        predictor, name = self._predictor, task.entry.name
        times = [time.perf_counter()]
        frame = read_frame(task.entry, predictor, self._seed)
        times.append(time.perf_counter())
        occupancy = replace(predictor.predict(frame), name=name)
        times.append(time.perf_counter())
        try:
            occupancy.save(self._folder)
        except ExportError as error:
            if not isinstance(error.__cause__, OSError) or isinstance(error.__cause__, IsADirectoryError):
                raise  # the frame's fault, not the disk's
            return Outcome(task.number, name, error=str(error), row={"stop": True})
        times.append(time.perf_counter())
        histogram = np.bincount(occupancy.labels.reshape(-1), minlength=len(occupancy.class_names) + 1)
        seconds = dict(zip(STAGES, np.diff(times).tolist(), strict=True))
        notes = tuple(note for note in (*occupancy.notes, order_note(frame)) if note)
        row = {"occupied": int(histogram[1:].sum()), "histogram": histogram, "notes": notes}
        return Outcome(task.number, name, seconds=seconds, row=row)


def read_frame(entry: Entry, predictor: Predictor, seed: int) -> Frame:
    """The frame of an entry, made up where it has no spec. Errors: FrameError as `source.load_frame`."""
    config = predictor.config
    if not entry.spec:
        from ..city.frame import default_frame

        return default_frame(config.num_cameras, config.image.size, predictor.grid, seed)
    return load_frame(entry.spec, num_cameras=config.num_cameras)


def order_note(frame: Frame) -> str:
    """What seems wrong with the order of six cameras, or with the axes of their calibration, going by where they look; "" if nothing.

    The trained network knows its cameras by their place, whatever their names: front, front right, front left, back, back left, back
    right. A rig that is merely a different one gives no note.
    """
    names = frame.camera_names
    if len(names) != len(_LOOKS):
        return ""
    axis = frame.lidar2img[:, 2]  # (N, 4): the depth's row points along the view
    yaw = np.degrees(np.arctan2(-axis[:, 0], axis[:, 1]))
    off = _around(yaw[:, None] - _LOOKS)  # (camera, place)
    own = off.diagonal()
    if np.abs(own).max() <= _CLEAR:
        return ""
    turn = float(np.degrees(np.angle(np.exp(1j * np.radians(own)).mean())))
    if abs(turn) > _CLEAR and np.abs(_around(own - turn)).max() < _CLEAR:
        return (
            f"all cameras look {abs(turn):.0f} degrees {'left' if turn > 0 else 'right'} of where those of the trained network do: "
            "is the LiDAR frame of the calibration x right, y forward, z up?"
        )
    cost = np.abs(off)
    best = min(permutations(range(len(names))), key=lambda order: float(cost[list(order), range(len(names))].sum()))
    if cost.trace() - cost[list(best), range(len(names))].sum() <= _CLEAR:
        return ""
    fix = "check which calibration is whose" if set(names) == set(NUSCENES_CAMERAS) else "rename them so, or put them into that order"
    return (
        f"the cameras come as {', '.join(names)}, but the network was trained with {', '.join(NUSCENES_CAMERAS)}: going by where they look "
        f"that would be {', '.join(names[camera] for camera in best)}; {fix}"
    )


def _around(degrees: np.ndarray) -> np.ndarray:
    """Differences of angles, into -180..180."""
    return (degrees + 180) % 360 - 180


class ResultFolder:
    """A folder of predictions, for a `with` block. Entering makes the folder and writes its record; leaving takes both away if empty.

    Args:
        folder: where the results stand or shall stand.
        predictor: the network whose results they are.
        entries: the frames to come.
        resume: keep whole results of an earlier run, and remove what a killed one left behind.
    Attributes:
        header: what the record says beside the run's end; plain values may be added.
    Errors: ExportError for a folder that cannot be written to, holds another network's results or files that no run of this wrote,
        or into which another run is writing.
    """

    def __init__(self, folder: Path, predictor: Predictor, entries: Sequence[Entry], *, resume: bool) -> None:
        self._folder, self._entries, self._resume = folder, entries, resume
        self._size = predictor.grid.size
        self.header: dict[str, Any] = {
            "form": _FORM,
            "network": dict(predictor.identity),
            "described": predictor.described,
            "trained": predictor.trained,
            "class_names": list(predictor.class_names),
            "grid": {"size": list(predictor.grid.size), "pc_range": list(predictor.grid.pc_range)},
            "config": resolved(predictor.config),
        }
        self._made: list[Path] = []  # folders, innermost first
        self._lock = -1

    def __enter__(self) -> ResultFolder:
        before = self._read_record()
        self._check_targets(before)
        probe = self._folder
        while not probe.exists():
            self._made.append(probe)
            probe = probe.parent
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self._folder)
        except OSError as error:
            what, got = f"output folder {self._folder}", error.strerror or str(error)
            raise ExportError(what, expected="a folder that can be written to", got=got, fix="choose another folder") from error
        try:
            if self._resume:
                self._sweep()
            self._write({"state": "running"})
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # nothing hangs on a record that stays
            if self._made and not any(self._folder.glob("*.npz")):
                (self._folder / RECORD).unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()
        if self._lock >= 0:
            os.close(self._lock)

    def whole(self) -> frozenset[str]:
        """Names of the frames whose results are there and whole; never the made-up frame's, which no file stands for."""
        entries = self._entries if self._resume else ()
        return frozenset(entry.name for entry in entries if entry.spec and self._is_whole(entry.name))

    def finish(self, failures: Mapping[str, str], seconds: Mapping[str, float], *, stopped: bool) -> None:
        """Writes what became of the run: frames that are there, failures (name → line), seconds by stage. Errors: ExportError (disk)."""
        frames = sorted(path.stem for path in self._folder.glob("*.npz") if not path.name.startswith("."))
        state = "stopped" if stopped else "finished"
        self._write({"state": state, "frames": frames, "failures": dict(failures), "seconds": dict(seconds)})

    def _is_whole(self, name: str) -> bool:
        paths = [self._folder / f"{name}{ending}" for ending in ENDINGS]
        return all(path.is_file() for path in paths) and is_whole(paths[0], self._size)

    def _write(self, end: Mapping[str, Any]) -> None:
        with Staging(self._folder) as stage:
            (stage.path / RECORD).write_text(json.dumps({**self.header, **end}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            stage.commit()

    def _read_record(self) -> dict[str, Any] | None:
        path = self._folder / RECORD
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            content = {"form": str(error)}
        form = content.get("form") if isinstance(content, dict) else content
        if form != _FORM:
            expected = f"the record of `occport predict`, form {_FORM!r}"
            raise ExportError(str(path), expected=expected, got=described_value(form), fix="choose another folder")
        return dict(content)

    def _check_targets(self, before: Mapping[str, Any] | None) -> None:
        """Another network's results are not mixed with ours, and files of another origin are not overwritten."""
        if before is not None:
            apart = [difference for key in _DECIDES for difference in _differences(key, before.get(key), self.header[key])]
            what, got = f"output folder {self._folder}", f"those of another ({'; '.join(apart)})"
            if apart:
                raise ExportError(what, expected="results of the same network, or none", got=got, fix="choose another folder")
        there = {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()
        for entry in self._entries:
            truth = entry.ground_truth and entry.ground_truth.resolve()
            for name in (f"{entry.name}{ending}" for ending in ENDINGS if f"{entry.name}{ending}" in there):
                is_truth = (self._folder / name).resolve() == truth
                if before is None or is_truth:
                    expected = f"a new file, or one of a run that {RECORD} tells of"
                    got = "the ground truth" if is_truth else "another one"
                    raise ExportError(f"output file {self._folder / name}", expected=expected, got=got, fix="choose another folder")

    def _sweep(self) -> None:
        """Removes what a killed run left behind: hidden files and folders of our own naming."""
        for path in self._folder.glob(".occport-*"):
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):  # what cannot be removed disturbs nobody
                path.unlink(missing_ok=True)


def _differences(key: str, there: object, here: object) -> Iterable[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for inner in sorted({*there, *here}, key=str):
            yield from _differences(f"{key}.{inner}", there.get(inner), here.get(inner))
    elif there != here:
        yield f"{key} is {described_value(there)} there, {described_value(here)} here"


def _locked(folder: Path) -> int:
    """A lock on a folder, held until the descriptor is closed or the process ends, however it does; -1 where there are no locks.

    Errors: ExportError where another process has it.
    """
    try:
        import fcntl  # not on every system
    except ImportError:
        return -1
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return -1  # a network file system without them
        raise ExportError(
            f"output folder {folder}", expected="no other run that writes into it", got="one that is still going",
            fix="wait for its end, or choose another folder",
        ) from error  # fmt: skip
    return descriptor
