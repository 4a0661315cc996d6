"""The folder of parts: what is in which file, and what may stand there before.

`parts.json` tells the parts in the order in which they run, with their ports; `index.json` is the index of a golden folder, whose tensors
are those of the parts' test data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import ModelFileError
from ..dumps.index import NAME

PARTS, MODEL, TOLERANCE, DATA = "parts.json", "model.onnx", "data.json", "test_data_set_0"
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """A part on disk, as an ONNX backend test.

    Attributes:
        name: of the part: "level_0".
        stage: of the network; "" for a part by its ends.
        folder: with the model, its test data and their tolerance.
        nodes: how many of the network it has.
        size, sha256: of the model's bytes.
        inputs, outputs: names of tensors, in the order of the ports; input_0.pb is the first input, and so on.
    """

    name: str
    stage: str
    folder: str
    nodes: int
    size: int
    sha256: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Parts:
    """A folder of parts.

    Attributes:
        model, model_sha256: file name and hash of the whole.
        dialect, opset: of its custom nodes, and of ONNX's own domain.
        functions: the parts hold bodies of their custom nodes.
        source: where the inputs are from, in words.
        same_bits: the parts one after another give the whole's very bits; False: with every operator run by itself only.
        parts: in the order in which they run.
        arrays: files NAME.npy.
    """

    model: str
    model_sha256: str
    dialect: str
    opset: int
    functions: bool
    source: str
    same_bits: bool
    parts: tuple[Record, ...]
    arrays: tuple[str, ...]


def folder_of(name: str) -> str:
    """Of a part; ONNX's test runner takes no other names."""
    return f"test_{name}"


def parts_text(parts: Parts) -> str:
    """The content of `parts.json`."""
    return json.dumps({"format_version": FORMAT, **asdict(parts)}, indent=1, ensure_ascii=False) + "\n"


def read_parts(folder: Path) -> Parts:
    """Reads a folder's `parts.json`.

    Errors: ModelFileError where there is none, or one that `occport split` did not write.
    """
    path, fix = folder / PARTS, "make one with `occport split MODEL.onnx -o FOLDER`"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table.pop("format_version") != FORMAT:
            raise ValueError("another format_version")
        lists = ("inputs", "outputs")
        records = [Record(**{**one, **{name: tuple(one[name]) for name in lists}}) for one in table["parts"]]
        return Parts(**{**table, "parts": tuple(records), "arrays": tuple(table["arrays"])})
    except OSError as error:
        raise ModelFileError(f"parts {path}", expected="a folder of parts", got=error.strerror or str(error), fix=fix) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"parts {path}", expected="what this occport writes", got=got, fix=fix) from error


def drop_earlier(folder: Path, parts: Parts, written: Sequence[Path]) -> None:
    """Removes the files of earlier parts that have not been written anew, and folders that are empty then; nothing of the user's."""
    for path in set(_files(folder, parts)) - set(written):
        if path.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)
    for record in parts.parts:
        for place in (folder / record.folder / DATA, folder / record.folder):
            with suppress(OSError):  # not empty, or gone
                place.rmdir()


def _files(folder: Path, parts: Parts) -> Iterator[Path]:
    yield from (folder / name for name in (PARTS, NAME, *parts.arrays))
    for record in parts.parts:
        place = folder / record.folder
        yield from (place / name for name in (MODEL, f"{MODEL}.data", TOLERANCE))
        yield from (place / DATA / f"input_{i}.pb" for i in range(len(record.inputs)))
        yield from (place / DATA / f"output_{i}.pb" for i in range(len(record.outputs)))
