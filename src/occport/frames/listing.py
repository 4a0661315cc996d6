"""Which frames a user means: one, a folder of them, a dataset file, or a range of it. Nothing is read but names.

| text | frames |
|---|---|
| path/frame.json, or a folder that holds one | that one |
| a folder whose subfolders hold a frame.json each | those, by name |
| path/infos.pkl | all of a dataset file |
| path/infos.pkl:5 | frame 5, counted from 0 in the file's order |
| path/infos.pkl:10:20 | frames 10 to 19; either end may be left out |

A frame of a folder or a dataset whose names cannot be read is listed all the same, under the name of its place: what is wrong with it
is told when its turn comes, and does not stop the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import FrameError
from .frame_json import names_in_frame_json
from .infos import ground_truth_file, names_in_infos

_FORMS = "a frame.json, a folder of frames, infos.pkl, infos.pkl:INDEX or infos.pkl:FROM:TO"
_PICKLES = (".pkl", ".pickle")
_PART = re.compile(r"(?P<file>.+\.(?:pkl|pickle)):(?P<first>[0-9]{0,9})(?P<colon>:(?P<end>[0-9]{0,9}))?")
_UNFIT = re.compile(r'[/\\:*?"<>|]|[^ -\U0010ffff]|\x7f|^[.\- ]|[. ]$')
_MAX_NAME = 200  # bytes; file systems take 255, with the endings


@dataclass(frozen=True)
class Entry:
    """A frame that has not been read yet.

    Attributes:
        name: unique among the frames of one listing, and fit for a file name. As upstream names its results: the file name of `occ_path`
            without .npy; where there is none, the token; where there is none, the folder's name. Where frames of one listing share
            the file name of `occ_path`, as those of a folder may, all of them go by their tokens instead.
        spec: what `source.load_frame` takes: "path/frame.json" or "path/infos.pkl:INDEX".
        ground_truth: the file of (n, 4) voxels that the dataset names, found on disk or not; None where it names none.
    """

    name: str
    spec: str
    ground_truth: Path | None = None


@dataclass(frozen=True)
class _Named:
    """A frame's place with the names it could go by."""

    spec: str
    place: str
    token: str | None
    truth: str | None  # file name of its ground truth

    def name(self, by_truth: bool) -> str:
        stem = self.truth.removesuffix(".npy") if self.truth and by_truth else ""
        return _fit(stem or self.token or self.place)


def list_frames(spec: str) -> Sequence[Entry]:
    """The frames of one text of the table above.

    Errors: FrameError for a text of another form, a file that holds no frames, a range outside the file, and two frames of one name.
    """
    path = Path(spec)
    if not spec.strip():
        raise FrameError("frames", expected=_FORMS, got="an empty text")
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise FrameError(f"frames {spec!r}", expected=_FORMS, got=str(error)) from error
    if is_folder:
        return _of_folder(path)
    if exists:
        return _of_dataset(path, "", "", one=False) if path.suffix in _PICKLES else _of_file(path)
    part = _PART.fullmatch(spec)
    if part is not None:
        first, end = part["first"], part["end"] or ""
        if first or part["colon"]:
            return _of_dataset(Path(part["file"]), first, end, one=part["colon"] is None)
    colons = f"whole numbers from 0 after the colon, in {_FORMS}" if re.search(r"\.(pkl|pickle):", spec) else _FORMS
    raise FrameError(f"frames {spec!r}", expected=colons, got="no such file or folder" if colons == _FORMS else "something else")


def _of_file(path: Path) -> tuple[Entry, ...]:
    token, truth = names_in_frame_json(path)
    place = path.resolve().parent.name or "frame"
    return (Entry(_Named(str(path), place, token, truth.name if truth else None).name(by_truth=True), str(path), truth),)


def _of_folder(folder: Path) -> tuple[Entry, ...]:
    if (folder / "frame.json").is_file():
        return _of_file(folder / "frame.json")
    try:
        files = sorted(file for file in folder.glob("*/frame.json") if not file.parent.name.startswith("."))
        others = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    except OSError as error:
        raise FrameError(f"folder {folder}", expected="a folder that can be read", got=error.strerror or str(error)) from error
    if not files:
        raise FrameError(
            f"folder {folder}", expected="a frame.json in it, or in its folders", got="none",
            fix=f"give {folder / others[0]}" if others else f"give {_FORMS}",
        )  # fmt: skip
    named, truths = [], []
    for file in files:
        try:
            token, truth = names_in_frame_json(file)
        except FrameError:
            token, truth = None, None
        named.append(_Named(str(file), file.parent.name, token, truth.name if truth else None))
        truths.append(truth)
    return tuple(Entry(name, one.spec, truth) for name, one, truth in zip(_names(named, folder), named, truths, strict=True))


def _of_dataset(path: Path, first: str, end: str, *, one: bool) -> tuple[Entry, ...]:
    """Frames `first` to `end` - 1, written as in a range; `one`: frame `first` alone."""
    listed = names_in_infos(path)
    count = len(listed)
    start = int(first or 0)
    stop = start + 1 if one else int(end) if end else count
    if one and start >= count:
        raise FrameError(f"frame {start} of {path}", expected=f"0 to {count - 1}", got=str(start))
    if not start < stop <= count:
        raise FrameError(
            f"range of {path}", expected=f"FROM:TO with 0 <= FROM < TO <= {count}", got=f"{start}:{stop}",
            fix="frames count from 0, and TO is the first one that is left out",
        )  # fmt: skip
    named = [
        _Named(f"{path}:{index}", f"frame_{index:06d}", token, Path(truth).name if truth else None)
        for index, (token, truth) in enumerate(listed)
    ]
    names = _names(named, path)  # of the whole file, so that a frame has one name whatever the range
    return tuple(
        Entry(names[index], named[index].spec, ground_truth_file(truth, path) if truth else None)
        for index, (_, truth) in enumerate(listed[start:stop], start)
    )


def _names(named: Sequence[_Named], source: Path) -> list[str]:
    """A name for each frame. Errors: FrameError naming two frames that share one."""
    names = [one.name(by_truth=True) for one in named]
    if len(set(names)) < len(names):
        names = [one.name(by_truth=False) for one in named]
    seen: dict[str, str] = {}
    for name, one in zip(names, named, strict=True):
        if name in seen:
            raise FrameError(
                f"frames of {source}", expected="a name for each", got=f"{name!r} for {seen[name]} and for {one.spec}",
                fix="give each frame a token of its own",
            )  # fmt: skip
        seen[name] = one.spec
    return names


def _fit(name: str) -> str:
    """A name that a file can have, on any system."""
    return _UNFIT.sub("_", name).encode()[:_MAX_NAME].decode(errors="ignore")
