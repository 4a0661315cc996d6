"""Label the voxels of one frame, a folder of frames, or a dataset.

Of each frame are written NAME.npz (the volume), NAME.npy (points in metres with their classes) and NAME.ply (the same, coloured). A frame
that fails is reported and does not stop the others. Exit status: 0 all done, 1 some frames failed, 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .network_flags import add_network_arguments, choice_of, tell_network
from .scale_flags import add_scale_arguments, outcomes

if TYPE_CHECKING:
    from ..use.predict import ResultFolder
    from ..use.predictor import Predictor
    from ..use.work import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    what = parser.add_argument_group("frames")
    what.add_argument(
        "frames", nargs="?", metavar="FRAMES",
        help="frame.json, a folder of frames, infos.pkl, infos.pkl:INDEX or infos.pkl:FROM:TO (default: a frame of the synthetic city)",
    )  # fmt: skip
    what.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="folder of the results")
    what.add_argument("--resume", action="store_true", help="go on with an interrupted run: skip frames whose results are whole")
    add_network_arguments(parser)
    add_scale_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Predicts all frames; progress and failures go to stderr, a summary to stdout."""
    from ..frames.listing import list_frames
    from ..progress import Progress
    from ..use.predict import PredictPlan, ResultFolder, made_up
    from ..use.work import Task

    choice = choice_of(options)
    entries = (made_up(choice.seed),) if options.frames is None else list_frames(options.frames)
    progress = Progress(1 + options.resume + (choice.precision != "fp32"))
    with progress.stage("loading the network"):
        predictor = choice.open()
    if not predictor.trained:
        progress.note(UNTRAINED)
    with ResultFolder(options.output_dir, predictor, entries, resume=options.resume) as results:
        whole: frozenset[str] = frozenset()
        if options.resume:
            with progress.stage("looking which results are whole"):
                whole = results.whole()
        tasks = [Task(number, entry) for number, entry in enumerate(entries) if entry.name not in whole]
        agreement = tell_network(choice, predictor, [task.entry for task in tasks], progress)
        if agreement is not None:
            results.header["precision"] = agreement.to_json()
        here = options.workers == 1 and options.address is None
        plan = PredictPlan(choice, options.output_dir, predictor if here else None)
        tally = _Tally(predictor, len(entries), len(whole), agreement.describe() if agreement is not None else "")
        return _finished(results, tally, outcomes(options, plan, tasks) if tasks else iter(()), options)


UNTRAINED = "UNTRAINED: these weights are seeded, not trained. Give --checkpoint for a network that predicts anything."


class _Tally:
    """What has become of the frames so far."""

    def __init__(self, predictor: Predictor, total: int, whole: int, remark: str) -> None:
        self.remark = remark  # on the whole run
        self.trained, self.class_names = predictor.trained, ("empty", *predictor.class_names)
        self.total, self.whole, self.done = total, whole, 0
        self.failures: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.last: Outcome | None = None  # that was done
        self.notes: Counter[str] = Counter()  # by text without its numbers

    def take(self, outcome: Outcome) -> Iterator[str]:
        """Counts a frame; yields the lines to be said about it: its failure, and notes of a kind that no frame before had."""
        if outcome.error:
            self.failures[outcome.name] = outcome.error
            yield f"occport: frame {outcome.name}: {outcome.error}"
            return
        self.done += 1
        self.last = outcome
        for stage, seconds in outcome.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        for note in outcome.row["notes"]:
            kind = re.sub(r"\d+", "#", note)
            self.notes[kind] += 1
            if self.notes[kind] == 1:
                yield f"occport: note on frame {outcome.name}: {note}"

    @property
    def ready(self) -> int:
        return self.done + self.whole


def _finished(results: ResultFolder, tally: _Tally, stream: Iterator[Outcome], options: argparse.Namespace) -> int:
    """Takes the outcomes until the end, whichever comes; returns the exit status."""
    from ..progress import Bar

    folder = options.output_dir
    try:
        with Bar(tally.total - tally.whole) as bar:
            for outcome in stream:
                if "stop" in outcome.row:
                    _record(results, tally)
                    bar.note(f"occport: {outcome.error}; {_stands(tally, folder)}")
                    return 2
                for line in tally.take(outcome):
                    bar.note(line)
                bar.step(failed=bool(outcome.error))
    except UserError:
        _record(results, tally)
        raise
    except KeyboardInterrupt as stop:
        _record(results, tally)
        print(f"occport: interrupted; {_stands(tally, folder)}", file=sys.stderr)
        return int(getattr(stop, "exit_status", 130))
    finally:
        if isinstance(stream, Generator):
            stream.close()  # a pool of workers ends here, not when somebody collects the garbage
    if tally.ready:
        results.finish(tally.failures, tally.seconds, stopped=False)
        for line in _summary(tally, folder):
            print(line)
    return 0 if not tally.failures else 1 if tally.ready else 2


def _record(results: ResultFolder, tally: _Tally) -> None:
    """The record of a run that was stopped, if the disk still takes it; the one of the beginning does too."""
    with suppress(UserError):
        results.finish(tally.failures, tally.seconds, stopped=True)


def _stands(tally: _Tally, folder: Path) -> str:
    if not tally.ready:
        return "no frame was done"
    return f"{tally.ready} of {tally.total} frames are done and stay in {folder}; the same command with --resume goes on"


def _summary(tally: _Tally, folder: Path) -> Iterator[str]:
    from ..progress import speed_text

    if not tally.trained:
        yield UNTRAINED
    for kind, count in tally.notes.items():
        if count > 1:
            yield f"note on {count} frames: {kind}"
    if tally.remark:
        yield tally.remark
    if tally.total == 1 and tally.last is not None:
        yield from _classes(tally.class_names, tally.last.row["histogram"])
    if tally.done:
        speeds = {stage: tally.done / seconds for stage, seconds in tally.seconds.items() if seconds > 0}
        limit = f"; {min(speeds, key=speeds.__getitem__)} limits" if len(speeds) > 1 else ""
        yield "one worker: " + ", ".join(f"{stage} {speed_text(speed)}" for stage, speed in speeds.items()) + limit
    extra = [f"{tally.whole} were there already"] if tally.whole else []
    extra += [f"{len(tally.failures)} failed"] if tally.failures else []
    yield f"{folder}: {tally.ready} of {tally.total} frames" + (f" ({', '.join(extra)})" if extra else "")


def _classes(names: Sequence[str], histogram: Any) -> Iterator[str]:
    """A line for each class: its name and number of voxels."""
    counts = [f"{int(count):,}" for count in histogram]
    wide, long = max(map(len, names)), max(map(len, counts))
    for name, count in zip(names, counts, strict=True):
        yield f"{name:<{wide}}  {count:>{long}} voxels"
