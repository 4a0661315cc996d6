"""Evaluating frame by frame: ask one or two sources (a network, a folder of files), hold their answers against ground truth and each other.

    Source.open() → Answers ──▶ Occupancy ──▶ row of counts ──▶ Evaluation (totals) ──▶ Report
    ground truth ───────────────────────────────┘

Rows are small and sums do not depend on their order: a dataset of any size takes the memory of one frame, in one process or in many.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError, UserError
from ..frames.frame import Frame
from ..frames.listing import Entry
from ..voxels.classes import EMPTY, IGNORE, OCCUPIED
from ..voxels.ground_truth import read_ground_truth, shown_size
from ..voxels.occupancy import Occupancy
from ..voxels.semantic import semantic_counts
from .metrics.agreement import AgreementTotal, FrameAgreement, agreement
from .metrics.reconstruction import occupied, reconstruction
from .metrics.report import Report, frames_text
from .metrics.totals import Names, ReconstructionTotal, SemanticTotal, Total
from .predict import read_frame
from .scoring import Answers, Facts, Reading, Source, classes_text, few
from .work import Outcome, Task

if TYPE_CHECKING:
    from .choice import Choice
    from .predictor import Predictor


@dataclass(frozen=True)
class NetworkSource:
    """A network that predicts each frame."""

    choice: Choice
    semantic: bool

    def open(self) -> NetworkAnswers:
        """Loads it. Errors: those of `Choice.open`, and UserError for a network without semantics where classes are scored."""
        predictor = self.choice.open()
        if self.semantic and predictor.class_names == OCCUPIED:
            raise UserError(
                "the network", expected="classes", got=f"one without semantics ({predictor.described})",
                fix="add --no-semantic to score occupancy alone",
            )  # fmt: skip
        label = "PyTorch" if self.choice.model is None else self.choice.model.name
        return NetworkAnswers(predictor, self.choice.seed, label, self.semantic)


class NetworkAnswers:
    """Predicts; see `Answers`. `predictor` is the network."""

    def __init__(self, predictor: Predictor, seed: int, label: str, semantic: bool) -> None:
        self.predictor, self._seed = predictor, seed
        self._only_labels = not semantic and predictor.class_names != OCCUPIED
        names = predictor.class_names if semantic else OCCUPIED
        self.facts = Facts(label, predictor.described, names, predictor.grid.size, predictor.trained)

    def __call__(self, name: str, reading: Reading) -> tuple[Occupancy, tuple[str, ...]]:
        """Errors: FrameError, as the readers and the predictor refuse frames."""
        occupancy = self.predictor.predict(reading(self.predictor, self._seed))
        extra = ("a network with semantics: every class counts as occupied",) if self._only_labels else ()
        return replace(occupancy, name=name), (*occupancy.notes, *extra)


@dataclass(frozen=True)
class EvaluatePlan:
    """Scores frames. Rows hold `scores` and `against` (see `Total.add`), `compared` (see `FrameAgreement`) and `notes`.

    Attributes:
        source: what is judged.
        against: what it is compared with, if anything.
        semantic: classes, or occupancy alone.
        opened: the answers of both, where this process has them already. They do not travel to other processes.
    """

    source: Source
    against: Source | None
    semantic: bool
    opened: tuple[Answers, Answers | None] | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        return EvaluatePlan, (self.source, self.against, self.semantic)

    def open(self) -> tuple[Answers, Answers | None]:
        """Both sides. Errors: UserError where one cannot be opened, or where they do not speak of the same grid and classes."""
        first = self.source.open()
        second = self.against.open() if self.against is not None else None
        if second is not None:
            here, there = first.facts, second.facts
            for what, mine, other in (("grid", here.size, there.size), ("classes", here.class_names, there.class_names)):
                if mine != other:
                    raise UserError(f"--against, {what}", expected=f"{mine} as of {here.described}", got=f"{other} of {there.described}")
        return first, second

    def start(self) -> Evaluator:
        """Loads both sides. Errors: as `open`."""
        first, second = self.opened or self.open()
        return Evaluator(first, second, self.semantic)


class _Once:
    """Reads a frame when the first network asks for it, and remembers it for the second."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._frame: Frame | None = None
        self.seconds = 0.0

    def __call__(self, predictor: Predictor, seed: int) -> Frame:
        if self._frame is None:
            begin = time.perf_counter()
            self._frame = read_frame(self._entry, predictor, seed)
            self.seconds = time.perf_counter() - begin
        return self._frame


class Evaluator:
    """Does one frame after the other; see `EvaluatePlan`."""

    def __init__(self, first: Answers, second: Answers | None, semantic: bool) -> None:
        self._first, self._second, self._semantic = first, second, semantic

    def __call__(self, task: Task) -> Outcome:
        """Errors: FrameError for a frame, a prediction or a ground truth that cannot be used."""
        entry, once = task.entry, _Once(task.entry)
        times = [time.perf_counter()]
        mine, notes = self._first(entry.name, once)
        times.append(time.perf_counter())
        other: Occupancy | None = None
        if self._second is not None:
            other, more = self._second(entry.name, once)
            notes += tuple(f"{self._second.facts.label} (against): {note}" for note in more)
            if other.grid.size != mine.grid.size:
                raise FrameError("grid of --against", expected=shown_size(mine.grid.size), got=shown_size(other.grid.size))
        times.append(time.perf_counter())
        row: dict[str, Any] = {"notes": notes}
        if entry.ground_truth is not None:
            truth = read_ground_truth(entry.ground_truth, mine.grid, self._semantic)
            row["scores"] = self._score(mine, truth, entry.ground_truth)
            if other is not None:
                row["against"] = self._score(other, truth, entry.ground_truth)
        if other is not None:
            num_rows = len(self._first.facts.class_names) + 1
            compared = agreement(self._volume(mine), self._volume(other), num_rows)
            row["compared"] = (compared.equal, compared.voxels, compared.counts)
        times.append(time.perf_counter())
        asking, comparing, scoring = np.diff(times).tolist()
        seconds = {"reading": once.seconds, "inference": asking - once.seconds, "against": comparing, "scoring": scoring}
        return Outcome(task.number, entry.name, seconds=seconds, row=row)

    def _volume(self, occupancy: Occupancy) -> NDArray[np.uint8]:
        return occupancy.labels if self._semantic else occupied(occupancy).astype(np.uint8)

    def _score(self, occupancy: Occupancy, truth: NDArray[np.uint8], path: Path) -> NDArray[Any] | None:
        """What `Total.add` takes."""
        if not self._semantic:
            return reconstruction(occupied(occupancy), truth != EMPTY, occupancy.grid)
        most = len(self._first.facts.class_names)
        top = int(truth[truth != IGNORE].max(initial=0))
        if top > most:
            raise FrameError(f"{path}: classes of the ground truth", expected=f"0 to {most} ({classes_text(most)})", got=f"up to {top}")
        return semantic_counts(occupancy.labels, truth, most + 1)


class Evaluation:
    """Takes the outcomes of all frames, in any order, and reports on them. `remarks` are the report's too, before its own."""

    def __init__(self, first: Facts, second: Facts | None, semantic: bool, remarks: Sequence[str] = ()) -> None:
        self._sides = (first, second)
        self._remarks = tuple(remarks)
        self._semantic = semantic
        self._totals: tuple[Total, Total] = (self._total(), self._total())
        self._compared = AgreementTotal(first.class_names)
        self._notes: Counter[str] = Counter()
        self.failed = Names()
        self.done = 0

    def _total(self) -> Total:
        return SemanticTotal(self._sides[0].class_names) if self._semantic else ReconstructionTotal()

    def take(self, outcome: Outcome) -> None:
        """One frame more, failed or not."""
        if outcome.error:
            self.failed.add(outcome.name)
            return
        self.done += 1
        row: Mapping[str, Any] = outcome.row
        for key, total in zip(("scores", "against"), self._totals, strict=True):
            if key in row:
                total.add(outcome.name, row[key])
        if "compared" in row:
            self._compared.add(outcome.name, FrameAgreement(*row["compared"]))
        self._notes.update({re.sub(r"\d+", "#", note) for note in row["notes"]})  # by text without its numbers

    def report(self) -> Report:
        """What is known after the frames so far; at least one of them must have been done."""
        first, second = self._sides
        scores, others = (total.scores() for total in self._totals)
        remarks = [*self._remarks, *(f"on {frames_text(count)}: {note}" for note, count in sorted(self._notes.items()))]
        untrained = [side.described for side in self._sides if side is not None and not side.trained]
        remarks += [f"UNTRAINED: {described}; the scores say nothing about a trained network" for described in untrained]
        if self.failed.count:
            remarks.append(f"{self.failed.count} of {frames_text(self.done + self.failed.count)} failed and are not counted: {self.failed}")
        if second is not None and scores.frames < self.done:
            without = self.done - scores.frames
            verbs = ("has", "is") if without == 1 else ("have", "are")
            remarks.append(f"of {frames_text(self.done)} {without} {verbs[0]} no ground truth and {verbs[1]} only compared")
        return Report(
            (first.label, second.label if second is not None else ""), (first.described, second.described if second is not None else ""),
            scores, others if second is not None else None, self._compared.result(), self.done, tuple(remarks), self.failed,
        )  # fmt: skip


def with_ground_truth(entries: Sequence[Entry], ground_truth: Path | None, needed: bool) -> list[Entry]:
    """The entries with the ground truth that the user names.

    Args:
        entries: frames, with the ground truth that their dataset names.
        ground_truth: a file (for one frame), or a folder with NAME.npy of every frame; None leaves the dataset's.
        needed: False where frames can be compared without.
    Errors: FrameError for a file for several frames, and where a frame has none (named).
    """
    if ground_truth is not None and ground_truth.is_dir():
        found = [replace(entry, ground_truth=ground_truth / f"{entry.name}.npy") for entry in entries]
        alone = [entry.name for entry in found if entry.ground_truth is None or not entry.ground_truth.is_file()]
        where = f"NAME.npy for each in {ground_truth}"
    elif ground_truth is not None:
        if len(entries) != 1 or not ground_truth.is_file():
            got = f"a file for {len(entries)} frames" if ground_truth.is_file() else "no such file or folder"
            raise FrameError(f"--ground-truth {ground_truth}", expected="a folder with NAME.npy, or a file for one frame", got=got)
        found, alone, where = [replace(entries[0], ground_truth=ground_truth)], [], ""
    else:
        found, where = list(entries), "occ_path of each in the dataset"
        alone = [entry.name for entry in found if entry.ground_truth is None] if needed else []
    if alone:
        fix = "give --ground-truth with a folder of NAME.npy (n, 4), or compare without it by --against"
        raise FrameError(f"ground truth of {len(alone)} of {len(found)} frames", expected=where, got=f"none for {few(alone)}", fix=fix)
    return found
