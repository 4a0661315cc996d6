"""Golden tensors and theirs, tensor by tensor in our layout."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..dumps.formats import load, sha256_of_array
from ..dumps.index import Entry, read_index
from .hints import Hint
from .layout import Fitted, fitted
from .theirs import RAW, Source, Theirs


class Both:
    """Both sides, tensor by tensor, in our layout. Errors of single tensors are told, not raised."""

    def __init__(self, golden: Path, theirs: Path, hints: Mapping[str, Hint]) -> None:
        self.index = read_index(golden)
        self._folder, self._theirs, self._hints = golden, Theirs(theirs), hints
        self.used: set[str] = set()
        self._whole: set[str] = set()  # golden tensors whose numbers are those of the index
        known = {entry.name for entry in self.index.tensors}
        for name in hints:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                fix = f"did you mean {near[0]!r}?" if near else "index.json of the golden folder lists them"
                raise UserError(f"tensor {name!r} of --map or --scale", expected="a golden tensor", got="an unknown name", fix=fix)

    def golden(self, name: str) -> np.ndarray:
        """Our tensor: float32, int64 or bool. Errors: UserError for a damaged golden folder."""
        entry = self.index.entry(name)
        assert entry is not None, name
        array = load(self._folder, self.index, entry)
        if name not in self._whole:
            if sha256_of_array(array) != entry.sha256:
                fix = "make the golden tensors anew"
                raise UserError(f"golden tensor {name}", expected="the numbers that its hash is of", got="others", fix=fix)
            self._whole.add(name)
        if array.dtype == bool:
            return array
        return array.astype(np.float32 if "float" in entry.dtype else np.int64, copy=False)

    def read(self, entry: Entry, golden: np.ndarray) -> tuple[Fitted | None, str]:
        """Theirs, or None and why not."""
        try:
            source = self._source(entry.name)
            if source is None:
                free = [name for name in self._theirs.sources if self.index.entry(name) is None]
                near = difflib.get_close_matches(entry.name, free, n=1, cutoff=0.8)
                return None, f"no dump of this name{f'; did they call it {near[0]!r}? tell it with --map' if near else ''}"
            self.used.add(source.name)
            array = self._theirs.read(source)
            return fitted(array, entry, golden, self._hints.get(entry.name, Hint()), source.kind in RAW), ""
        except (ValueError, OSError, EOFError, KeyError, UserError) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            return None, reason

    def _source(self, name: str) -> Source | None:
        hint = self._hints.get(name)
        if hint is not None and hint.theirs:
            source = self._theirs.named(hint.theirs)
            if source is None:
                raise ValueError(f"the map calls it {hint.theirs!r}, and there is no such tensor or file")
            return source
        return self._theirs.find(name)

    @property
    def left(self) -> list[str]:
        """Their tensors that belong to none of ours."""
        return sorted(set(self._theirs.sources) - self.used)
