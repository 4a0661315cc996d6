"""Somebody else's tensors: files of many formats in a folder, or all in one file; found by the names of ours, read one at a time."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from onnx import numpy_helper

from ...errors import UserError
from ...graph.names import identifier
from ..dumps.formats import load, read_npy
from ..dumps.index import NAME, Index, read_index
from ..dumps.polygraphy import spans_of, values_at

RAW = (".bin", ".raw", ".dat")
_ONE_EACH = (".npy", ".pb", *RAW)
_NUMBER = re.compile(r"^\d+[_\-.]")


@dataclass(frozen=True)
class Source:
    """Where one of their tensors is.

    Attributes:
        name: as they call it.
        path: the file.
        kind: its suffix, or "index" for a tensor of a folder that has our index.
    """

    name: str
    path: Path
    kind: str


class Theirs:
    """Their tensors by name.

    Args:
        place: a folder with .npy, .npz, .pb, .bin, .raw, .dat or Polygraphy's .json files, or a single .npz or .json.

    Errors: UserError where there is no such place, or nothing in it.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._index: Index | None = None
        self.doubled: dict[str, list[str]] = {}  # name → files, where several have it
        self.sources = self._found()
        self._by_identifier: dict[str, list[Source]] = {}
        for source in self.sources.values():
            for key in {_key(source.name), _key(_NUMBER.sub("", source.name))}:
                self._by_identifier.setdefault(key, []).append(source)

    def _found(self) -> dict[str, Source]:
        expected = "a folder of tensors (.npy, .npz, .pb, .bin, .raw, .dat, Polygraphy's .json), or one .npz or .json"
        if not self.place.exists():
            raise UserError(f"dumps {self.place}", expected=expected, got="no such file or folder", fix="check the path")
        if self.place.is_dir() and (self.place / NAME).is_file():
            self._index = read_index(self.place)
            return {entry.name: Source(entry.name, self.place / entry.file, "index") for entry in self._index.tensors}
        found: dict[str, Source] = {}
        for path in sorted(self.place.iterdir()) if self.place.is_dir() else [self.place]:
            for source in _sources(path):
                if source.name in found:
                    self.doubled.setdefault(source.name, [found[source.name].path.name]).append(path.name)
                found[path.name if source.name in found else source.name] = source
        if not found:
            raise UserError(f"dumps {self.place}", expected=expected, got="no such files in it", fix="check the path")
        return found

    def find(self, name: str) -> Source | None:
        """The source of one of our tensors by its name; characters that file names cannot have, and a number in front, do not count.

        Errors: ValueError where several could be meant.
        """
        if name in self.doubled:
            raise ValueError(f"{' and '.join(self.doubled[name])} could both be it; say which with --map")
        if name in self.sources:
            return self.sources[name]
        found = self._by_identifier.get(_key(name), [])
        if len(found) > 1:
            raise ValueError(f"{' and '.join(sorted(source.path.name for source in found))} could both be it; say which with --map")
        return found[0] if found else None

    def named(self, name: str) -> Source | None:
        """The source that a map file means: their own name, or a file in the folder."""
        if name in self.sources and name not in self.doubled:
            return self.sources[name]
        path = self.place / name if self.place.is_dir() else self.place.parent / name
        return next((source for source in self.sources.values() if source.path == path), None)

    def read(self, source: Source) -> np.ndarray:
        """The array as it is in the file; bare numbers (.bin) as bytes.

        Errors: ValueError or OSError for a file that is damaged; UserError for one of a golden folder.
        """
        if source.kind == "index":
            assert self._index is not None
            entry = self._index.entry(source.name)
            assert entry is not None
            return load(self.place, self._index, entry)
        if source.kind == ".npy":
            return read_npy(source.path)
        if source.kind == ".npz":
            try:
                with np.load(source.path, allow_pickle=False) as archive:
                    return np.asarray(archive[source.name])
            except (zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"damaged in {source.path.name} ({error}); write it again") from error
        if source.kind == ".json":
            return values_at(source.path, spans_of(source.path)[source.name])
        if source.kind == ".pb":
            return _protobuf(source.path)
        return np.fromfile(source.path, np.uint8)


def _sources(path: Path) -> list[Source]:
    """The tensors of one file. UserError for an archive that cannot be opened."""
    kind = path.suffix.lower()
    if kind in _ONE_EACH:
        return [Source(path.name[: -len(kind)], path, kind)]
    try:
        if kind == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return [Source(name, path, kind) for name in archive.files]
        if kind == ".json":
            return [Source(name, path, kind) for name in spans_of(path)]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        got = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise UserError(f"dumps {path}", expected="an archive of arrays", got=got, fix="write it again, or take it away") from error
    return []


def _protobuf(path: Path) -> np.ndarray:
    try:
        return np.asarray(numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())))
    except (DecodeError, TypeError) as error:
        raise ValueError(f"no ONNX tensor ({error})") from error


def _key(name: str) -> str:
    """A name as file systems and other tools may have left it."""
    return identifier(name).strip("_").lower()


