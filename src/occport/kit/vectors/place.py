"""The place that vectors are written to: what may stand there before, and what has to go afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import ExportError, ModelFileError
from ..cases.record import Index, read_index

README, QUERIES = "README.txt", "sampled_queries.npy"


def earlier(folder: Path) -> Index | None:
    """The index of vectors that stand in the folder already; None for a new or an empty one.

    Raises:
        ExportError: it is a file, or holds something else.
    """
    expected, fix = "a new or empty folder, or one of earlier vectors", "choose another with -o"
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"folder {folder}", expected=expected, got="a file", fix=fix)
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    try:
        return read_index(folder)
    except ModelFileError as error:
        raise ExportError(f"folder {folder}", expected=expected, got="one with other files in it", fix=fix) from error


def drop_earlier(folder: Path, index: Index, written: Sequence[Path]) -> None:
    """Removes the files of earlier vectors that have not been written anew, and folders that are empty then; nothing of the user's."""
    for path in set(_files(folder, index)) - set(written):
        path.unlink(missing_ok=True)
    for record in index.records:
        place = folder / record.name
        for part in (place / "test_data_set_0", place / "npy", place / "raw", place):
            with suppress(OSError):  # not empty, or gone
                part.rmdir()


def _files(folder: Path, index: Index) -> Iterator[Path]:
    for record in index.records:
        place = folder / record.name
        yield from (place / name for name in ("case.json", "model.onnx", QUERIES))
        fed = sum(port.graph_input for port in record.inputs)
        yield from (place / "test_data_set_0" / name for name in (*(f"input_{i}.pb" for i in range(fed)), "output_0.pb"))
        for name in (*(port.name for port in record.inputs), "output", "golden"):
            yield from (place / "npy" / f"{name}.npy", place / "raw" / f"{name}.bin")


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
