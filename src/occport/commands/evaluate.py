"""Score a network, or what any runtime wrote, against ground truth; or hold two of them against each other.

IoU, mIoU and the IoU of each class; with --no-semantic Acc, Comp, CD (metres), Prec, Recall and F-score, as upstream computes them. A frame
that fails is reported and does not stop the others. Exit status: 0 all scored, 1 some frames failed, 2 nothing could be scored.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..output_files import try_files, write_file
from .network_flags import add_network_arguments, choice_of, tell_network
from .scale_flags import add_scale_arguments, outcomes

if TYPE_CHECKING:
    from ..config import Config
    from ..export.agreement import PrecisionAgreement
    from ..frames.listing import Entry
    from ..progress import Progress
    from ..use.choice import Choice
    from ..use.evaluate import Evaluation
    from ..use.scoring import Answers, FolderSource, Source
    from ..use.work import Outcome

_NETWORK_ONLY = ("model", "checkpoint", "provider", "precision", "device", "threads")  # flags that say nothing about files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    what = parser.add_argument_group("what is scored")
    what.add_argument(
        "frames", nargs="?", metavar="FRAMES",
        help="frame.json, a folder of frames, infos.pkl, infos.pkl:INDEX or infos.pkl:FROM:TO (may be absent with --predictions; with "
        "--against alone a frame of the synthetic city is the default)",
    )  # fmt: skip
    what.add_argument(
        "--predictions", type=Path, metavar="DIR",
        help="score files instead of a network: NAME.npz with `labels` or `probabilities` (X, Y, Z), of any runtime",
    )  # fmt: skip
    what.add_argument(
        "--ground-truth", type=Path, metavar="DIR|FILE.npy",
        help="folder of NAME.npy (n, 4): voxel indices x, y, z and class; or one file for one frame (default: what the dataset names)",
    )  # fmt: skip
    what.add_argument("--no-semantic", action="store_true", help="score occupancy alone, by distances between occupied voxels")
    what.add_argument(
        "--against", metavar="torch|FILE.onnx|DIR",
        help="compare with the PyTorch network, another exported file, or another folder of predictions: label agreement, and the "
        "difference of every metric",
    )  # fmt: skip
    what.add_argument(
        "--against-provider", metavar="NAME", help="execution provider of --against FILE.onnx (default: as of --model without --provider)"
    )
    what.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    what.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    add_network_arguments(parser)
    add_scale_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Scores all frames; progress and failures go to stderr, the tables to stdout."""
    from ..progress import Progress
    from ..use.evaluate import EvaluatePlan, Evaluation
    from ..use.work import Task

    _check_targets(options)
    entries = _entries(options)
    source, against = _sources(options, entries)
    plan, progress = EvaluatePlan(source, against, not options.no_semantic), Progress(1 + (options.precision not in (None, "fp32")))
    with progress.stage("opening what is scored"):
        opened = plan.open()
    first, second = opened
    precision = _tell_networks(((source, first), (against, second)), entries, progress)
    remarks = [agreement.describe() for agreement in precision]
    evaluation = Evaluation(first.facts, second.facts if second is not None else None, plan.semantic, remarks)
    if options.workers == 1 and options.address is None:
        plan = replace(plan, opened=opened)
    del opened, first, second  # with several workers, each has its own
    tasks = [Task(number, entry) for number, entry in enumerate(entries)]
    _take(evaluation, outcomes(options, plan, tasks), len(tasks))
    if not evaluation.done:
        return UserError.exit_status
    report = evaluation.report()
    if options.json is not None:
        table = {**report.to_json(), **({"precision": [agreement.to_json() for agreement in precision]} if precision else {})}
        write_file("--json", options.json, json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if options.markdown is not None:
        write_file("--markdown", options.markdown, report.markdown())
    print(report.text(), end="")
    return int(evaluation.failed.count > 0)


def _tell_networks(
    sides: Sequence[tuple[Source | None, Answers | None]], entries: Sequence[Entry], progress: Progress
) -> list[PrecisionAgreement]:
    """What `tell_network` has to say of the networks among the sides. Both are never in PyTorch, so that nothing is said twice."""
    from ..use.evaluate import NetworkAnswers, NetworkSource

    found = []
    for source, answers in sides:
        if isinstance(source, NetworkSource) and isinstance(answers, NetworkAnswers):
            found.append(tell_network(source.choice, answers.predictor, entries, progress))
    return [agreement for agreement in found if agreement is not None]


def _take(evaluation: Evaluation, stream: Iterator[Outcome], total: int) -> None:
    """All outcomes, with a bar; failures are said as they come."""
    from ..progress import Bar

    try:
        with Bar(total) as bar:
            for outcome in stream:
                if outcome.error:
                    bar.note(f"occport: frame {outcome.name}: {outcome.error}")
                evaluation.take(outcome)
                bar.step(failed=bool(outcome.error))
    finally:
        if isinstance(stream, Generator):
            stream.close()  # a pool of workers ends here, not when somebody collects the garbage


def _entries(options: argparse.Namespace) -> list[Entry]:
    """The frames, each with its ground truth."""
    from ..errors import FrameError
    from ..frames.listing import list_frames
    from ..use.evaluate import with_ground_truth
    from ..use.predict import made_up
    from ..use.scoring import few, files_of, match_folders

    predictions, truth = options.predictions, options.ground_truth
    if options.frames is None and predictions is None:
        if options.against is None or truth is not None:
            raise UserError("evaluate", expected="FRAMES or --predictions DIR", got="neither")
        return [made_up(options.seed or 0)]
    if options.frames is None:
        if truth is not None and not truth.is_file():
            return match_folders(predictions, truth)
        entries = [_file_entry(name) for name in sorted(files_of(predictions, ".npz", "predictions"))]
        if truth is None and options.against is None:
            raise UserError("--predictions", expected="--ground-truth DIR, or --against DIR, with it", got="neither")
        return with_ground_truth(entries, truth, needed=False)
    entries = with_ground_truth(list_frames(options.frames), truth, needed=options.against is None)
    if predictions is not None:
        there = files_of(predictions, ".npz", "predictions")
        alone = [entry.name for entry in entries if entry.name not in there]
        if alone:
            what = f"prediction of {len(alone)} of {len(entries)} frames"
            raise FrameError(what, expected=f"NAME.npz for each in {predictions}", got=f"none for {few(alone)}")
    return entries


def _file_entry(name: str) -> Entry:
    """A frame of which there is only what somebody predicted."""
    from ..frames.listing import Entry

    return Entry(name, name)


def _sources(options: argparse.Namespace, entries: list[Entry]) -> tuple[Source, Source | None]:
    """What is scored, and what it is compared with."""
    from ..use.evaluate import NetworkSource

    semantic, against = not options.no_semantic, options.against
    is_folder = against is not None and Path(against).is_dir()
    if options.against_provider is not None and (against is None or is_folder or against == "torch"):
        raise UserError("--against-provider", expected="--against FILE.onnx with it", got=str(against or "no --against"))
    if against is not None and not is_folder and options.predictions is not None and options.frames is None:
        raise UserError(f"--against {against}", expected="FRAMES for the network to look at", got="none", fix="or compare with a folder")
    choice = choice_of(options) if options.predictions is None or against == "torch" else None
    if choice is None:
        _refuse_network_flags(options, runs_one=against is not None and not is_folder)
    if options.predictions is not None:
        source: Source = _folder(options.predictions, options, entries)
    else:
        assert choice is not None
        source = NetworkSource(choice, semantic)
    if against is None or is_folder:
        return source, _folder(Path(against), options, entries) if is_folder else None
    return source, NetworkSource(_other(against, options, choice), semantic)


def _other(against: str, options: argparse.Namespace, choice: Choice | None) -> Choice:
    """The network to compare with."""
    from ..use.choice import Choice

    if against == "torch":
        assert choice is not None
        if choice.model is not None:
            return choice.torch_of()
        if options.predictions is None:
            raise UserError("--against torch", expected="--model FILE.onnx or --predictions DIR with it", got="the same network twice")
        return choice
    path = Path(against)
    if not path.is_file():
        expected = "torch, an exported FILE.onnx, or a folder of predictions"
        raise UserError(f"--against {against}", expected=expected, got="no such file or folder")
    return Choice(model=path, provider=options.against_provider, threads=options.threads)


def _folder(folder: Path, options: argparse.Namespace, entries: list[Entry]) -> FolderSource:
    from ..use.scoring import folder_source

    return folder_source(folder, (entry.name for entry in entries), not options.no_semantic, _config(options))


def _config(options: argparse.Namespace) -> Config | None:
    """The config that says what is in the files, where one is given."""
    from ..config import read_config_with_options

    if options.config is None:
        return None
    config = read_config_with_options(options.config, options.cfg_options or [])
    if not config.use_semantic and not options.no_semantic:
        raise UserError(f"--config {options.config}", expected="classes", got="a network without semantics", fix="add --no-semantic")
    return config


def _refuse_network_flags(options: argparse.Namespace, *, runs_one: bool) -> None:
    """Flags that nothing would heed where files are scored. runs_one: whether they are compared with a network all the same."""
    for name in _NETWORK_ONLY:
        if getattr(options, name) is not None and not (runs_one and name == "threads"):
            raise UserError(f"--{name}", expected="a network to run", got="--predictions, which are files", fix="leave one of them out")


def _check_targets(options: argparse.Namespace) -> None:
    """Refuses places that cannot be written to before the work, not after it."""
    try_files([("--json", options.json), ("--markdown", options.markdown)])
