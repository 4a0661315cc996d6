"""Trained weights into a model: strict, reported, fingerprinted.

Loading is all or nothing: names, shapes and values are checked before the first tensor is copied. `weights_file.py` reads the file.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .errors import CheckpointError
from .weights_file import read_state as read_state
from .weights_file import shown

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTER = "num_batches_tracked"  # of a batch norm: counts training steps, has no part in the result
NAMED = 3  # tensors that an error line names of each kind


class Rename(NamedTuple):
    """One rule for names that differ between versions of the tools, not between networks."""

    pattern: re.Pattern[str]
    replacement: str
    reason: str


RENAMES = (
    Rename(re.compile(r"^(module\.)+"), "", "prefix of a data-parallel wrapper"),
    Rename(re.compile(r"\.conv2_offset\.(weight|bias)$"), r".conv2.conv_offset.\1", "name in mmcv's DCN before its version 2"),
)


class Guess(NamedTuple):
    """What a file is whose names match `has` and not `lacks`."""

    has: str
    lacks: str
    what: str


GUESSES = (  # the first that matches counts
    Guess(
        r"^((img_)?backbone|bbox_head)\.",
        r"^pts_bbox_head\.(transformer|occ)\.",
        "this is a backbone pretrain (FCOS3D, the `load_from` of the official config), not a trained SurroundOcc: give surroundocc.pth",
    ),
    Guess(r"^(layer1|conv1)\.", r"_head\.", "this is a plain ResNet, not a trained SurroundOcc: give surroundocc.pth"),
    Guess(r"^pts_bbox_head\.", r"^pts_bbox_head\.occ\.", "this is another network, such as BEVFormer or DETR3D: give surroundocc.pth"),
    Guess(r"^pts_bbox_head\.occ\.", r"^$", "this is a SurroundOcc of another config: give the one it was trained with"),
    Guess(r"", r"^$", "this is another network: give surroundocc.pth"),
)


SEMANTICS = {  # classes of the config and of the file, where only those tell two official networks apart
    (17, 1): "this checkpoint has no semantics: use surroundocc_nosemantic.py",
    (1, 17): "this checkpoint has semantics: use surroundocc.py",
}


class Difference(NamedTuple):
    """A tensor that does not fit: its name, and what the model and the file have of it ("" = nothing)."""

    name: str
    expected: str
    got: str


@dataclass(frozen=True)
class Report:
    """What became of every tensor of a weights file. `fits` where nothing is missing, unexpected or misshapen."""

    path: Path
    loaded: Mapping[str, int]  # part of the model → tensors that fit
    missing: tuple[Difference, ...] = ()
    unexpected: tuple[Difference, ...] = ()
    misshapen: tuple[Difference, ...] = ()
    renamed: Mapping[str, int] = field(default_factory=dict)  # reason → tensors
    converted: Mapping[str, int] = field(default_factory=dict)  # dtype in the file → tensors
    kept: tuple[str, ...] = ()  # batch norm counters that the file lacks

    @property
    def fits(self) -> bool:
        """Whether the file and the model have the same tensors."""
        return not (self.missing or self.unexpected or self.misshapen)

    def describe(self) -> list[str]:
        """Lines for the terminal: each part with its count, then everything that was not plain."""
        width = max(map(len, self.loaded), default=0)
        lines = [f"{self.path}: {sum(self.loaded.values())} tensors"]
        lines += [f"  {part:<{width}}  {count:>4}" for part, count in self.loaded.items()]
        lines += [f"  renamed {count}: {reason}" for reason, count in self.renamed.items()]
        lines += [f"  converted {count}: {dtype} to float32" for dtype, count in self.converted.items()]
        if self.kept:
            lines.append(f"  not in the file {len(self.kept)}: {COUNTER}, counts training steps and has no part in the result")
        for kind, differences in self._kinds():
            lines += [f"  {kind} {item.name} {_detail(item)}" for item in differences]
        return lines

    def summary(self) -> str:
        """The differences on one line: how many of each kind, and the first few by name."""
        counts = ", ".join(f"{len(differences)} {kind}" for kind, differences in self._kinds())
        examples = (f"{kind} {item.name} {_detail(item)}" for kind, differences in self._kinds() for item in differences[:NAMED])
        return f"{counts} ({'; '.join(examples)})"

    def _kinds(self) -> Iterator[tuple[str, tuple[Difference, ...]]]:
        yield from (("missing", self.missing), ("unexpected", self.unexpected), ("misshapen", self.misshapen))


def compare_state(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], Report]:
    """Puts the tensors of a file beside those of a model. Nothing is copied or changed.

    Args:
        model: the network.
        state: what `read_state` gave.
        path: named in the report.

    Returns:
        The state under the model's names, and the report.
    """
    wanted = model.state_dict()
    found, renamed = _rename(state)
    shared = [name for name in wanted if name in found]
    absent = [name for name in wanted if name not in found]
    bad = [name for name in shared if not _fits(wanted[name], found[name])]
    report = Report(
        path,
        loaded=Counter(_part(name) for name in shared if name not in bad),
        missing=tuple(Difference(name, _form(wanted[name]), "") for name in absent if not name.endswith(COUNTER)),
        unexpected=tuple(Difference(shown(name), "", _form(found[name])) for name in found if name not in wanted),
        misshapen=tuple(Difference(name, _form(wanted[name]), _form(found[name])) for name in bad),
        renamed=renamed,
        converted=Counter(
            _dtype(found[name]) for name in shared if wanted[name].is_floating_point() and found[name].dtype != wanted[name].dtype
        ),
        kept=tuple(name for name in absent if name.endswith(COUNTER)),
    )
    return found, report


def load_checkpoint(model: nn.Module, path: Path) -> Report:
    """Loads a trained checkpoint into a model in place, strictly: every tensor or none.

    Half and double precision become the model's float32. The only tensors that may be missing are batch norm's step counters.

    Args:
        model: `model.surroundocc.SurroundOcc`, on any device.
        path: see `read_state`.

    Returns:
        What became of every tensor.

    Raises:
        CheckpointError: what `read_state` raises; a tensor is missing, left over, of another shape, or holds NaN or infinity. The
            model is as it was.
    """
    found, report = compare_state(model, read_state(path), path)
    wanted = model.state_dict()
    if not report.fits:
        raise CheckpointError(f"{path} does not fit the config", got=report.summary(), fix=_guess(wanted, found))
    bad = {name: count for name in found if (count := int((~found[name].to(wanted[name].dtype).isfinite()).sum()))}
    if bad:
        name, count = next(iter(bad.items()))
        more = f", and in {len(bad) - 1} more" if len(bad) > 1 else ""
        got = f"NaN or infinity in {count} of {found[name].numel()}{more}"
        raise CheckpointError(f"{path}: {name}", expected="finite values", got=got, fix="the training went wrong or the file is damaged")
    with torch.no_grad():
        for name, value in found.items():
            wanted[name].copy_(value)
    return report


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of weights: names in sorted order, dtypes, shapes, raw little-endian values; without step counters.

    It does not depend on the file format or the order of the names.

    Args:
        state: a model's `state_dict()`.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith(COUNTER):
            continue
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{_dtype(tensor)}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _rename(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Applies `RENAMES`; a name that is already taken keeps the old one, so that it is reported as left over."""
    found: dict[str, Tensor] = {}
    applied: Counter[str] = Counter()
    for old, tensor in state.items():
        new, reasons = old, []
        for rule in RENAMES:
            new, count = rule.pattern.subn(rule.replacement, new)
            reasons += [rule.reason] * bool(count)
        if new != old and (new in state or new in found):
            new, reasons = old, []
        found[new] = tensor
        applied.update(reasons)
    return found, dict(applied)


def _guess(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What the file is, if not what the model wants, and what to do."""
    name = "pts_bbox_head.occ.0.weight"
    if name in wanted and name in found:
        classes = (*wanted[name].shape[:1], *found[name].shape[:1])
        if classes in SEMANTICS:
            return SEMANTICS[classes]
    matches = (
        guess.what
        for guess in GUESSES
        if any(re.search(guess.has, name) for name in found) and not any(re.search(guess.lacks, name) for name in found)
    )
    return next(matches)


def _part(name: str) -> str:
    """The part of the model that a tensor belongs to, as the report lists them."""
    words = name.split(".")
    if words[0] != "pts_bbox_head":
        return words[0]
    return ".".join(words[:3] if words[1] == "transformer" else words[:2])


def _fits(wanted: Tensor, found: Tensor) -> bool:
    number = found.dtype in FLOATS if wanted.is_floating_point() else not (found.is_floating_point() or found.is_complex())
    return wanted.shape == found.shape and number


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _form(tensor: Tensor) -> str:
    """The shape, and the dtype where it is none that weights have."""
    return f"{tuple(tensor.shape)}" if tensor.dtype in FLOATS else f"{tuple(tensor.shape)} {_dtype(tensor)}"


def _detail(item: Difference) -> str:
    return f"expected {item.expected} got {item.got}" if item.expected and item.got else item.expected or item.got
