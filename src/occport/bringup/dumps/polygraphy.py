"""Polygraphy's JSON of results (`--save-outputs`, `--load-outputs`): {"lst": [[runner, [iteration]]]}, each array an .npy in base64.

A file of a network's tensors has gigabytes, so that it is written piece by piece, and read by looking for the places of the arrays.
"""

from __future__ import annotations

import base64
import io
import json
import mmap
import re
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO

import ml_dtypes
import numpy as np

ALL = "polygraphy"
FILE = "golden.json"
_RUNNER = "occport"
_ARRAY = re.compile(rb'("(?:[^"\\]|\\.)*")\s*:\s*\{\s*"values"\s*:\s*\{\s*"array"\s*:\s*"([^"]*)"')
_BARE = re.compile(rb'("(?:[^"\\]|\\.)*")\s*:\s*\{\s*"array"\s*:\s*"([^"]*)"')
Span = tuple[int, int]


class PolygraphyWriter:
    """For a `with` block: arrays one after the other into one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._first = True

    def __enter__(self) -> PolygraphyWriter:
        self._file = self._path.open("w", encoding="ascii")
        self._file.write(f'{{"lst": [[{json.dumps(_RUNNER)}, [{{"outputs": {{')
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        assert self._file is not None
        with self._file as file:
            if kind is None:
                end = f'"runtime": 0.0, "runner_name": {json.dumps(_RUNNER)}, "polygraphy_class": "IterationResult"'
                file.write(f'}}, {end}}}]]], "polygraphy_class": "RunResults"}}\n')

    def add(self, name: str, array: np.ndarray) -> None:
        """Appends one array under its tensor's name; bfloat16 as float32, since Polygraphy reads nothing else with NumPy."""
        assert self._file is not None
        content = io.BytesIO()
        np.save(content, array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array, allow_pickle=False)
        self._file.write(f'{"" if self._first else ", "}{json.dumps(name)}: {{"values": {{"array": "')
        self._first = False
        step = 3 * 2**20  # a multiple of 3: pieces of base64 can be joined
        view = content.getbuffer()
        for begin in range(0, len(view), step):
            self._file.write(base64.b64encode(view[begin : begin + step]).decode("ascii"))
        self._file.write('", "polygraphy_class": "ndarray"}, "polygraphy_class": "LazyArray"}')


@lru_cache(maxsize=4)
def spans_of(path: Path) -> dict[str, Span]:
    """Tensor name → where the base64 of its array stands in the file; of the first runner and iteration that has it.

    Inputs saved by Polygraphy (`--save-inputs`), a list of name → array, are read too.

    Errors: OSError; ValueError for a file that holds no arrays.
    """
    found: dict[str, Span] = {}
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ValueError("an empty file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for pattern in (_ARRAY, _BARE):
                for match in pattern.finditer(data):
                    name = str(json.loads(match[1]))
                    if name != "values":
                        found.setdefault(name, match.span(2))
    if not found:
        raise ValueError("no JSON of Polygraphy: it holds no arrays")
    return found


def values_at(path: Path, span: Span) -> np.ndarray:
    """The array at a place of `spans_of`. Errors: OSError; ValueError for damaged content."""
    with path.open("rb") as file:
        file.seek(span[0])
        content = base64.b64decode(file.read(span[1] - span[0]), validate=True)
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("an npz archive, where a single array is expected")
    return array
