"""Look at occupancy: a picture (.png), or an interactive recording (.rrd) for the Rerun viewer, in a window or a browser.

Shows the camera images, what `occport predict` wrote, and the ground truth where there is one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from ..frames.listing import Entry
    from ..view.reading import Meaning
    from ..view.scene import Scene

ENDINGS = (".png", ".rrd")
PORT = 9090  # as `view.serve.DEFAULT_PORT`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    what = parser.add_argument_group("what to show")
    what.add_argument("frames", metavar="FRAMES", help="frame.json, a folder of frames, infos.pkl, infos.pkl:INDEX or infos.pkl:FROM:TO")
    what.add_argument("--predictions", type=Path, metavar="DIR", help="what `occport predict` wrote; without it the ground truth alone")
    what.add_argument(
        "--ground-truth", type=Path, metavar="FILE|DIR", help="(n, 4) voxels of one frame, or a folder of NAME.npy (default: the dataset's)"
    )
    from_config = "takes grid, range and classes from here where files do not say them (default: the dataset's, else SurroundOcc's)"
    what.add_argument("--config", type=Path, help=from_config)
    where = parser.add_argument_group("where to")
    where.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help="NAME.png, NAME.rrd, or a folder: a NAME.png for each frame"
    )
    where.add_argument(
        "--serve", nargs="?", type=int, const=PORT, metavar="PORT", help=f"then show the .rrd in a browser, on localhost (default: {PORT})"
    )


def run(options: argparse.Namespace) -> int:
    """Writes the picture, the pictures, or the recording. Returns 1 where some frame of several has no picture."""
    from ..frames.listing import list_frames

    ending = _ending(options)
    for flag, path in (("--predictions", options.predictions), ("--ground-truth", options.ground_truth)):
        if path is not None and not path.exists():
            raise UserError(f"{flag} {path}", expected="a file or folder that exists", got="none")
    if options.predictions is not None and not options.predictions.is_dir():
        raise UserError(f"--predictions {options.predictions}", expected="a folder of NAME.npz", got="a file", fix="give its folder")
    entries = list_frames(options.frames)
    if ending == ".png" and len(entries) > 1:
        expected = f"a folder, or NAME.rrd, for {len(entries)} frames"
        fix = "give a folder, or one frame as infos.pkl:INDEX"
        raise UserError(f"output {options.output}", expected=expected, got="the name of one picture", fix=fix)
    _check_files(entries, options)
    meaning = _meaning(options, entries[0])
    if ending == ".rrd":
        return _recording(entries, options, meaning)
    if ending == ".png":
        from ..view.picture import write_picture

        write_picture(_scene(entries[0], options, meaning), options.output)
        print(options.output)
        return 0
    return _pictures(entries, options, meaning)


def _ending(options: argparse.Namespace) -> str:
    """What the output is: ".png", ".rrd", or nothing for a folder."""
    output: Path = options.output
    ending = "" if output.is_dir() else output.suffix.lower()
    if ending and ending not in ENDINGS:
        raise UserError(f"output {output}", expected="NAME.png, NAME.rrd, or a folder", got=f"the ending {ending}")
    if not ending and output.exists() and not output.is_dir():
        raise UserError(f"output {output}", expected="NAME.png, NAME.rrd, or a folder", got="a file without an ending")
    if options.serve is not None and ending != ".rrd":
        raise UserError("--serve", expected="an output NAME.rrd to show", got=str(output))
    return ending


def _check_files(entries: Sequence[Entry], options: argparse.Namespace) -> None:
    """Refuses at once what would fail later: predictions or named ground truth that are not there for every frame."""
    from ..view.reading import prediction_file, truth_file

    predictions, truth = options.predictions, options.ground_truth
    if truth is not None and truth.is_file() and len(entries) > 1:
        fix = "give a folder of NAME.npy, or one frame"
        raise UserError(f"--ground-truth {truth}", expected=f"a folder for {len(entries)} frames", got="one file", fix=fix)
    for flag, folder in (("--predictions", predictions), ("--ground-truth", truth)):
        if folder is None:
            continue
        files = [prediction_file(entry, folder) if folder is predictions else truth_file(entry, folder) for entry in entries]
        missing = [file.name for file in files if file is not None and not file.is_file()]
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            fix = "run `occport predict` for these frames" if folder is predictions else ""
            raise UserError(f"{flag} {folder}", expected="a file for every frame", got=f"no {missing[0]}{others}", fix=fix)


def _meaning(options: argparse.Namespace, first: Entry) -> Meaning | None:
    """The grid and the classes of what does not say them itself; None leaves them to the predictions."""
    from ..config import read_config
    from ..view.reading import Meaning, dataset_meaning
    from ..voxels.classes import OCCUPIED
    from ..voxels.grid import Grid

    if options.config is None:
        return dataset_meaning(first) if options.predictions is None else None
    found = read_config(options.config)
    return Meaning(Grid(found.occ_size, found.pc_range), found.class_names if found.use_semantic else OCCUPIED)


def _scene(entry: Entry, options: argparse.Namespace, meaning: Meaning | None) -> Scene:
    """A frame with all there is of it; says where the dataset names a ground truth that is not there."""
    from ..view.reading import read_scene

    scene = read_scene(entry, options.predictions, options.ground_truth, meaning)
    if scene.truth is None and entry.ground_truth is not None:
        print(f"occport: note: {entry.name} without its ground truth: no file {entry.ground_truth}", file=sys.stderr)
    return scene


def _pictures(entries: Sequence[Entry], options: argparse.Namespace, meaning: Meaning | None) -> int:
    """A picture for each frame. One that fails is reported and does not stop the others."""
    from ..view.picture import write_picture

    drawn = 0
    try:
        for entry in entries:
            try:
                scene = _scene(entry, options, meaning)
            except UserError as error:
                if len(entries) == 1:
                    raise
                print(f"occport: {error}", file=sys.stderr)
                continue
            path = options.output / f"{entry.name}.png"
            write_picture(scene, path)
            print(path, flush=True)
            drawn += 1
    except KeyboardInterrupt as stop:
        print(f"occport: interrupted; {drawn} of {len(entries)} pictures are in {options.output}", file=sys.stderr)
        return int(getattr(stop, "exit_status", 130))
    if not drawn:
        raise UserError(f"pictures of {options.frames}", expected="a frame that can be shown", got="none of those above")
    return int(drawn < len(entries))


def _recording(entries: Sequence[Entry], options: argparse.Namespace, meaning: Meaning | None) -> int:
    from ..view.recording import write_recording

    scenes: Iterator[Scene] = (_scene(entry, options, meaning) for entry in entries)
    for note in write_recording(scenes, options.output):
        print(f"occport: note: {note}", file=sys.stderr)
    print(options.output)
    if options.serve is not None:
        from ..view.serve import serve

        with serve(options.output, options.serve) as serving:
            print(f"{serving.address}  (Ctrl-C ends it)", flush=True)
            serving.wait()
    return 0
