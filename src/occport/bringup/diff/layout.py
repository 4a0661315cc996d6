"""Their array in our layout: other dtypes, channels last or in blocks, padded channels, bare or flat numbers, other axes of one.

What is not told is found by trying: every way to read their array that has room for ours is tried on the numbers, and taken where it
fits clearly better than all others; if none does, nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np

from ..dumps.index import Entry
from .hints import Hint
from .readings import Reading, readings

_BLOCKS = (4, 8, 16, 32, 64)
_SAMPLE = 2**18  # numbers that a way of reading is judged by
_CLEAR = 0.05  # of the correlation, that the best is ahead of the second
_ALIKE = 0.3  # that it must have at least
_QUANTISED = ("int8", "uint8", "int16", "uint16", "int32")
_HUGE = 1e30  # squares stay finite
_CHANNELS = ("C", "O")
_FLAT = "flat numbers"
_UNLIKE = "like ours in no reading that was tried: are dtype, byte order and layout right, and is it whole?"


class Fitted(NamedTuple):
    """Their tensor in our shape.

    Attributes:
        array: float32, or int64 for tensors of whole numbers, or bool.
        dtype: that they stored.
        note: how it was read, where that was not plain.
    """

    array: np.ndarray
    dtype: str
    note: str


class _Way(NamedTuple):
    """One way to read an array: steps that turn theirs into ours, told in words."""

    words: str
    shape: tuple[int, ...]  # that theirs is given first
    order: tuple[int, ...]  # that its axes get, then
    ours: tuple[int, ...]  # shape that is cut out at last
    merged: int = -1  # axis of blocks that is merged with the next one before that


def fitted(theirs: np.ndarray, entry: Entry, golden: np.ndarray, hint: Hint, raw: bool) -> Fitted:
    """Their array in our layout and dtype.

    Args:
        theirs: as it is stored; bytes where `raw`.
        entry: of our tensor.
        golden: our tensor, which decides where several ways fit.
        hint: what the user tells.
        raw: theirs are bytes of an unknown dtype.

    Errors: ValueError with one line of what is wrong, and what to tell.
    """
    way, array, words = _best(readings(theirs, entry, hint, raw), entry, golden, hint, bare=raw or theirs.ndim == 1 < len(entry.shape))
    stored, notes = array.dtype.name, [words] * bool(words)
    if way.words and not (raw and way.words == _FLAT):
        notes.append(f"read as {way.words}")
    got = _read(array, way)
    if _dropped(array, way):
        notes.append("what is padded is not zero")
    return Fitted(_numbers(got, stored, entry, golden, hint, notes), stored, "; ".join(notes))


def _best(found: list[Reading], entry: Entry, golden: np.ndarray, hint: Hint, *, bare: bool) -> tuple[_Way, np.ndarray, str]:
    """The way and the numbers that are most like ours, and how they were taken, in words.

    Args:
        bare: only numbers are there, no shape: where nothing is like ours, that may be the reading's fault.
    """
    fits: list[tuple[float, int, _Way, np.ndarray, str]] = []
    failed: list[ValueError] = []
    for number, (words, array) in enumerate(found):
        try:
            if hint.shape and math.prod(hint.shape) != array.size:
                raise ValueError(f"the map tells shape {list(hint.shape)}, but there are {array.size:,} numbers")
            shaped = array.reshape(hint.shape) if hint.shape else array
            way = _chosen(shaped, entry, golden, hint)
            alike = _likeness(_read(shaped, way), golden) if bare or len(found) > 1 else 1.0
            fits.append((alike, -number, way, shaped, words))
        except ValueError as error:
            failed.append(error)
    if not fits:
        raise failed[0]
    alike, _, way, array, words = max(fits, key=lambda fit: fit[:2])
    if bare and alike < _ALIKE and not hint.dtype and golden.size and np.ptp(golden) > 0:
        plain = [fit for fit in fits if fit[3].size == golden.size]
        if not plain:
            raise ValueError(f"{array.size:,} numbers, where ours are {golden.size:,}; tell shape and layout with --map")
        way, array, words = max(plain, key=lambda fit: fit[1])[2:]
        words = f"{words}{'; ' if words else ''}{_UNLIKE}"
    return way, array, words


def _chosen(array: np.ndarray, entry: Entry, golden: np.ndarray, hint: Hint) -> _Way:
    ways = list(_ways(array.shape, entry, hint))
    if not ways:
        fix = "tell shape and layout with --map" if array.ndim == 1 else "expected that, or channels last, padded or in blocks"
        raise ValueError(f"shape {list(array.shape)}, where ours is {list(entry.shape)}; {fix}")
    if len(ways) == 1 or ways[0].words == "":
        return ways[0]
    scores = sorted(((_likeness(_read(array, way), golden), -i) for i, way in enumerate(ways)), reverse=True)
    if ways[0].words == _FLAT and (scores[0][0] < _ALIKE or _likeness(_read(array, ways[0]), golden) + _CLEAR > scores[0][0]):
        return ways[0]
    first, second = (ways[-scores[i][1]] for i in (0, 1))
    unclear = scores[0][0] - scores[1][0] < _CLEAR or scores[0][0] < _ALIKE
    if scores[0][0] < _ALIKE and scores[0][0] - scores[1][0] < _CLEAR:
        ways_tried = f"{first.words}, {second.words}{', ...' if len(ways) > 2 else ''}"
        raise ValueError(f"shape {list(array.shape)} is like ours in no way ({ways_tried}); tell shape and layout with --map")
    if unclear and not np.array_equal(_read(array, first), _read(array, second), equal_nan=True):
        raise ValueError(f"it could be {first.words} as well as {second.words}; tell which with --map (layout, shape)")
    return ways[-scores[0][1]]


def _ways(shape: tuple[int, ...], entry: Entry, hint: Hint) -> Iterator[_Way]:
    """Every way to read an array of this shape as ours; the plain one first, and then alone."""
    ours = entry.shape
    channel = _channel_axis(entry)
    last = _channels_last(len(ours), channel)
    if hint.layout == "channels_last":
        turned = tuple(ours[i] for i in last)
        if math.prod(shape) == math.prod(ours):
            yield _Way("channels last", turned, _inverse(last), ours)
        elif len(shape) == len(ours):
            yield from _padded(shape, ours, last)
        return
    squeezed = tuple(size for size in ours if size != 1)
    if shape == ours or tuple(size for size in shape if size != 1) == squeezed:
        yield _Way("", ours, tuple(range(len(ours))), ours)
        return
    if hint.layout == "same" or math.prod(ours) == 0:
        return
    seen = set()
    for order in _orders(len(ours), last):
        moved = tuple(i for i in order if ours[i] != 1)  # axes of one can stand anywhere
        turned = tuple(ours[i] for i in order)
        plain = tuple(ours[i] for i in moved)
        flat = len(shape) == 1 and math.prod(shape) == math.prod(ours) and order in (last, tuple(range(len(ours))))
        if moved not in seen and (tuple(size for size in shape if size != 1) == plain or flat):
            seen.add(moved)
            words = "channels last" if order == last else f"axes {list(order)}" if order != tuple(range(len(ours))) else _FLAT
            yield _Way(words, turned, _inverse(order), ours)
        elif len(shape) == len(ours):
            yield from _padded(shape, ours, order)
        elif len(shape) == 1 and channel is not None and order in (last, tuple(range(len(ours)))):
            yield from _padded_flat(shape[0], ours, order, order.index(channel))
    yield from _blocked(shape, ours, channel)
    yield from _reshaped(shape, ours)


def _orders(rank: int, last: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of axes: as it is, channels last, then all others for few axes."""
    yield tuple(range(rank))
    if last != tuple(range(rank)):
        yield last
    if rank <= 4:
        yield from (order for order in permutations(range(rank)) if order not in (last, tuple(range(rank))))


def _padded(shape: tuple[int, ...], ours: tuple[int, ...], order: tuple[int, ...]) -> Iterator[_Way]:
    """One axis of theirs is longer: rounded up to a multiple of something."""
    turned = tuple(ours[i] for i in order)
    longer = [i for i, (there, here) in enumerate(zip(shape, turned, strict=True)) if there != here]
    if len(longer) == 1 and shape[longer[0]] in {-(-turned[longer[0]] // block) * block for block in _BLOCKS}:
        place = "channels last, " if order != tuple(range(len(order))) else ""
        words = f"{place}padded {turned[longer[0]]} → {shape[longer[0]]}"
        yield _Way(words, shape, _inverse(order), ours)


def _padded_flat(count: int, ours: tuple[int, ...], order: tuple[int, ...], channel: int) -> Iterator[_Way]:
    """Flat numbers whose channels are rounded up to a multiple of something."""
    turned = [ours[i] for i in order]
    for size in sorted({-(-turned[channel] // block) * block for block in _BLOCKS} - {turned[channel]}):
        shape = (*turned[:channel], size, *turned[channel + 1 :])
        if math.prod(shape) == count:
            place = "channels last, " if order != tuple(range(len(order))) else ""
            yield _Way(f"{place}padded {turned[channel]} → {size}", shape, _inverse(order), ours)


def _blocked(shape: tuple[int, ...], ours: tuple[int, ...], channel: int | None) -> Iterator[_Way]:
    """(N, C/b, ..., b), as vector units like it; of flat numbers every b that fits."""
    if channel is None or len(shape) not in (1, len(ours) + 1):
        return
    rank = len(ours)
    for block in _BLOCKS:
        blocked = (*ours[:channel], -(-ours[channel] // block), *ours[channel + 1 :], block)
        if shape == blocked or (shape == (math.prod(blocked),) and ours[channel] > 1):
            order = (*range(channel + 1), rank, *range(channel + 1, rank))
            yield _Way(f"channels in blocks of {block}", blocked, order, ours, channel)


def _reshaped(shape: tuple[int, ...], ours: tuple[int, ...]) -> Iterator[_Way]:
    """Axes that have been merged or split, with the numbers in the same order."""
    if len(shape) > 1 and math.prod(shape) == math.prod(ours):
        yield _Way(f"the numbers of {list(shape)} in order", ours, tuple(range(len(ours))), ours)


def _read(array: np.ndarray, way: _Way) -> np.ndarray:
    turned = array.reshape(way.shape).transpose(way.order)
    if way.merged >= 0:
        turned = turned.reshape(*turned.shape[: way.merged], -1, *turned.shape[way.merged + 2 :])
    return turned[tuple(slice(size) for size in way.ours)]


def _dropped(array: np.ndarray, way: _Way) -> bool:
    """Whether numbers that are left out as padding are anything but 0."""
    kept = _read(array, way)
    return kept.size < array.size and int(np.count_nonzero(array)) > int(np.count_nonzero(kept))


def _numbers(got: np.ndarray, stored: str, entry: Entry, golden: np.ndarray, hint: Hint, notes: list[str]) -> np.ndarray:
    """In the dtype that is compared: quantised numbers scaled, floats as float32, whole numbers as int64."""
    floating = "float" in entry.dtype
    if not math.isnan(hint.scale):
        return ((got.astype(np.float64) - hint.zero) * hint.scale).astype(np.float32)
    if not floating:
        if entry.dtype == "bool":
            return np.asarray(got != 0)
        return (got if np.issubdtype(got.dtype, np.integer) else np.rint(got.astype(np.float64))).astype(np.int64, copy=False)
    if stored in _QUANTISED:
        scale, zero, likeness = _scale_of(got, golden)
        if likeness < 0.9:
            raise ValueError(f"{stored}, quantised; tell its scale with --scale {entry.name}=SCALE,ZERO")
        notes.append(f"{stored} with scale {scale:.6g} and zero {zero:.6g}, fitted; an error of the scale itself does not show")
        return ((got.astype(np.float64) - zero) * scale).astype(np.float32)
    return got.astype(np.float32, copy=False)


def _scale_of(got: np.ndarray, golden: np.ndarray) -> tuple[float, float, float]:
    """The straight line that turns stored numbers into ours, and how well it does."""
    x, y = (_sample(array).astype(np.float64) for array in (got, golden))
    spread = float(((x - x.mean()) ** 2).sum())
    scale = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread else 0.0
    if scale == 0:
        return 0.0, 0.0, 0.0
    return scale, float(np.rint(x.mean() - y.mean() / scale)), _likeness(got, golden)


def _likeness(got: np.ndarray, golden: np.ndarray) -> float:
    """Correlation of a sample of numbers, those that are finite; 0 for constants."""
    with np.errstate(invalid="ignore"):
        x, y = (_sample(array).astype(np.float64) for array in (got, golden))
    if x.shape != y.shape:
        return 0.0
    finite = np.isfinite(x) & np.isfinite(y) & (np.abs(x) < _HUGE)
    if not finite.any():
        return 0.0
    x, y = (array[finite] - array[finite].mean() for array in (x, y))
    norm = math.sqrt(float((x * x).sum())) * math.sqrt(float((y * y).sum()))
    return float((x * y).sum()) / norm if norm else 0.0


def _sample(array: np.ndarray) -> np.ndarray:
    """Every so manieth number: an odd step, so that no axis is sampled at one place only."""
    step = max(array.size // _SAMPLE, 1) | 1
    return array.reshape(-1)[::step] if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(-1)[::step]


def _channel_axis(entry: Entry) -> int | None:
    for letter in _CHANNELS:
        if letter in entry.axes:
            return entry.axes.index(letter)
    return 1 if len(entry.shape) in (4, 5) and not entry.axes else None


def _channels_last(rank: int, channel: int | None) -> tuple[int, ...]:
    if channel is None:
        return tuple(range(rank))
    return (*(i for i in range(rank) if i != channel), channel)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(i) for i in range(len(order)))
