"""Works out the sections of a dossier and writes the page and the JSON file, both or neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import ExportError, FrameError
from ...export.network_file import NetworkFile, feeds_of, read_network
from ...kit.cases.record import read_index
from ...progress import Progress
from ...staging import Staging
from ..cost.chip import load_chip
from .about import about
from .costs import costs
from .operators import operators
from .page import page_text
from .precision import LEFT_OUT, Feeds, check_feeds, hazards, precision
from .prediction import prediction
from .section import Section, Told, section
from .verification import verification

FORMAT = "occport dossier 1"
STAGES = 7  # the sections, and writing
_USUAL = "fp16"  # of hazards
_DTYPES = {"": "", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        model: the file.
        folder: where the page and the JSON file go.
        dialect: name or file; None: that of the manifest.
        frame: another frame than the export's.
        inputs: a folder with NAME.npy for each input, of a file without a manifest: for hazards.
        chip: a TOML file or the name of an example; None: no times.
        precision: "fp16" or "bf16" for times and hazards; "": times as in the file, hazards of fp16.
        vectors: a folder of `occport vectors`.
        run: False leaves out what runs the network: hazards and pictures.
    """

    model: Path
    folder: Path
    dialect: str | None = None
    frame: str | None = None
    inputs: Path | None = None
    chip: str | None = None
    precision: str = ""
    vectors: Path | None = None
    run: bool = True


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: the page and the JSON file.
        untold: section, or "hazards" → why it tells nothing.
        verdict: as in the section "verification"; "" where that tells nothing.
    """

    files: tuple[Path, ...]
    untold: dict[str, str]
    verdict: str


def write_dossier(request: Request, progress: Progress) -> Written:
    """Makes a dossier.

    What the user names (chip, frame, inputs, vectors) must be usable; what is found missing otherwise is told in its section.

    Raises:
        UserError: the file, its dialect, or something that the user names cannot be used; the folder cannot be written to.
    """
    _refuse_idle(request)
    chip = load_chip(request.chip) if request.chip is not None else None
    if request.vectors is not None:
        read_index(request.vectors)
    file = read_network(request.model, request.dialect, standard=True)
    with Staging(request.folder) as stage:  # told before the work that there is no place for it
        feeds = _named_feeds(file, request)
        find = (lambda: hazards(file, lambda: feeds or feeds_of(file, None, None), request.precision or _USUAL)) if request.run else None
        tellers: dict[str, Callable[[], Told]] = {
            "about": lambda: about(file),
            "verification": lambda: verification(file),
            "cost": lambda: costs(file, chip, _DTYPES[request.precision]),
            "precision": lambda: precision(file, find),
            "operators": lambda: operators(file, request.vectors),
        }
        if request.run:
            tellers["prediction"] = lambda: prediction(file, request.frame)
        named = (FrameError,) if request.frame is not None else ()
        sections = []
        for key, tell in tellers.items():
            with progress.stage(key):
                sections.append(section(key, tell, named))
        if not request.run:
            sections.append(Section("prediction", None, LEFT_OUT))
        with progress.stage("writing"):
            table = dossier_json(sections)
            stem = f"{file.path.stem}.dossier"
            (stage.path / f"{stem}.html").write_text(page_text(sections), encoding="utf-8")
            (stage.path / f"{stem}.json").write_text(
                json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
            )
            files = stage.commit()
    checked = next(one.content for one in sections if one.key == "verification")
    return Written(tuple(files), table["untold"], checked["verdict"] if checked is not None else "")


def _refuse_idle(request: Request) -> None:
    named = [flag for flag, value in (("--frame", request.frame), ("--inputs", request.inputs)) if value is not None]
    if named and not request.run:
        raise ExportError("--no-run", expected=f"no {named[0]} with it", got="both: nothing would read it", fix="leave one out")


def _named_feeds(file: NetworkFile, request: Request) -> Feeds | None:
    """The inputs that the user names; None where none are named. Errors: FrameError and ModelFileError where they cannot be used."""
    if request.frame is None and request.inputs is None:
        return None
    feeds = feeds_of(file, request.frame, request.inputs)
    check_feeds(file, feeds[0])
    return feeds


def dossier_json(sections: list[Section]) -> dict[str, Any]:
    """The JSON file: each section's content, or null and the reason; that of hazards stands there, too."""
    told = next((one.content for one in sections if one.key == "precision" and one.content is not None), {})
    hazards_reason = {"hazards": told["hazards_reason"]} if told.get("hazards_reason") else {}
    return {
        "format": FORMAT,
        "occport": __version__,
        **{one.key: one.content for one in sections},
        "untold": {one.key: one.reason for one in sections if one.content is None} | hazards_reason,
    }
