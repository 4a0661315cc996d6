"""Tensors from a weights file that nobody has to trust.

A weights file never runs code. torch's own restricted unpickler reads it, and the few other names that mmcv's checkpoints carry in
their `meta` become inert objects. torch itself checks no checksum; here every record of an archive is checked before it is read.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError

CHUNK = 2**22  # bytes read at a time for a checksum

# What people have in their hands instead: how the file begins, what it is, what to do
NOT_WEIGHTS = (
    (b"<", "a web page", "the download link is dead or wants a confirmation: fetch the file again in a browser"),
    (b"version https://git-lfs", "a git-lfs pointer", "fetch the file itself with `git lfs pull`"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
)

# Names in the `meta` of old checkpoints, such as a numpy score among mmcv's hook messages. Nothing of numpy is called for them
INERT_NAMES = (
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
)

# What damaged pickles and archives make torch raise: its unpickler runs the damaged program until something does not fit
DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)

AGAIN = "the file is damaged, cut off, or not written by torch.save: download it again"


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file, with the names and dtypes they have there; archives and safetensors stay mapped, not copied.

    Args:
        path: `.pth` or `.pt` in mmcv's form ({"state_dict": …, "meta": …}) or a bare state dict, or safetensors. The content
            decides, not the suffix; only a torch file must not be named `.safetensors`.

    Raises:
        CheckpointError: missing, damaged, wants to run code, or is something else.
    """
    kind = _kind(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "archive":
        _check_archive(path)
    content = _read_torch(path, mapped=kind == "archive")
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        got = f"a dict of {shown(*state)}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise CheckpointError(
            f"weights {path}", expected="a dict of tensors, or one under 'state_dict'", got=got, fix="give a trained checkpoint"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not _is_plain(value):
            got = "a sparse, quantised or empty one" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise CheckpointError(f"weights {path}: {shown(name)}", expected="a dense tensor", got=got, fix="save `model.state_dict()`")
    return {name: value.detach() for name, value in state.items()}


def shown(*names: object) -> str:
    """Names from a file, safe for a terminal and not endless."""
    few = ", ".join(ascii(name)[1:-1][:200] if isinstance(name, str) else type(name).__name__ for name in names[:4])
    return f"{few}, … ({len(names)})" if len(names) > 4 else few or "nothing"


class _Inert:
    """Stands for an object of `meta`: takes whatever the pickle gives it and does nothing."""

    def __new__(cls, *_: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def _kind(path: Path) -> str:
    """archive (torch 1.6 and later), pickle (before) or safetensors, by how the file begins."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"weights {path}", expected="a file", got=error.strerror or str(error), fix="check the path") from error
    for start, kind in ((b"PK\x03\x04", "archive"), (b"\x80", "pickle")):
        if head.startswith(start):
            if path.suffix == ".safetensors":  # torch.load goes by this suffix and would take another reader
                raise CheckpointError(f"weights {path}", expected="safetensors", got="a torch file", fix="rename it to .pth")
            return kind
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    start = head.lstrip(b"\xef\xbb\xbf\r\n\t ")
    unknown = (f"{size} bytes of something else", "give a .pth, .pt or .safetensors")
    got, fix = next(((what, fix) for begin, what, fix in NOT_WEIGHTS if start.startswith(begin)), unknown)
    if not size:
        got, fix = "an empty file", "download it again"
    raise CheckpointError(f"weights {path}", expected="a torch or safetensors file", got=got, fix=fix)


def _check_archive(path: Path) -> None:
    """Refuses an archive that is cut off, is not torch's, or has a record whose bytes are not those that were written."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            leaves = {record.filename.partition("/")[2] for record in records}
            if "data.pkl" not in leaves or "constants.pkl" in leaves:
                got = "TorchScript" if "constants.pkl" in leaves else f"a zip archive of {shown(*(record.filename for record in records))}"
                raise CheckpointError(f"weights {path}", expected="a torch checkpoint", got=got, fix="give the file with the state dict")
            for record in records:
                if record.compress_type != zipfile.ZIP_STORED:  # a mapped file would show the packed bytes as weights
                    raise CheckpointError(
                        f"weights {path}", expected="plain records", got="packed ones", fix="save it again with torch.save"
                    )
                if record.CRC:  # 0 where torch was told to write none
                    with archive.open(record) as file:
                        while file.read(CHUNK):
                            pass
    except DAMAGED as error:  # reading a record to its end compares the checksum
        raise CheckpointError(f"weights {path}", got=_one_line(error), fix=AGAIN) from error


def _read_torch(path: Path, *, mapped: bool) -> object:
    """The content of a torch file, by torch's restricted unpickler."""
    inert: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(_Inert, name) for name in INERT_NAMES]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(inert):
            warnings.simplefilter("ignore")  # about pickle protocols and old storage classes: nothing the user can mend
            content: object = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except DAMAGED as error:
        wanted = re.search(r"GLOBAL (.{1,200}?) (?:was not an allowed global|whose module)", str(error), re.DOTALL)
        if wanted:
            raise CheckpointError(
                f"weights {path}", expected="tensors and plain values", got=f"a pickle that calls {shown(wanted[1])}",
                fix="weights files never run code here: save `model.state_dict()` alone",
            ) from error  # fmt: skip
        raise CheckpointError(f"weights {path}", got=_one_line(error), fix=AGAIN) from error
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, *DAMAGED) as error:
        raise CheckpointError(f"weights {path}", got=_one_line(error), fix=AGAIN) from error
    return state


def _one_line(error: BaseException) -> str:
    """The last sentence of torch's errors is the reason; what stands before it is advice to switch the safety off."""
    text = str(error)
    for advice in ("WeightsUnpickler error:", "trusted source."):
        text = text.rpartition(advice)[2]
    text = text.partition("Check the documentation of torch.load")[0].strip()
    line = text.splitlines()[0] if text else ""
    return ascii(line)[1:-1][:200] or type(error).__name__
