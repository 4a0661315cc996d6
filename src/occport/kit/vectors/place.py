"""The place that vectors are written to: what has to go there afterwards, and how large it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ..cases.record import Index

README, QUERIES = "README.txt", "sampled_queries.npy"


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
