"""Edge cases: small calls of both operators that tell known bugs apart, and right kernels from wrong ones, in every dtype.

All numbers have at most eight significant bits, so that float32, float16 and bfloat16 hold them exactly: a kernel in any of these
is given the very numbers that the golden values are made of. Maps are small, so that a position keeps its fraction in bfloat16.
(The exceptions are told in `what`.) Letters as in `case.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..cases.case import Case, level_starts

SEED = 20240607


def edge_cases(operator: str, wide: bool = False) -> tuple[Case, ...]:
    """The edge cases of "msda" or "dcn". For "msda", `wide`: reference points, offsets and logits, for nodes that have them inside."""
    return _attention_cases(wide) if operator == "msda" else _deform_conv_cases()


class _Draw:
    """Random numbers of few bits; each case has a stream of its own, so that cases do not depend on each other."""

    def __init__(self, name: str) -> None:
        self._random = np.random.default_rng([SEED, *name.encode()])

    def normal(self, *shape: int) -> np.ndarray:
        """Multiples of 1/32 within ±3.96."""
        return (np.clip(np.round(self._random.normal(size=shape) * 32), -127, 127) / 32).astype(np.float32)

    def share(self, *shape: int) -> np.ndarray:
        """Multiples of 1/256 in (0, 1)."""
        return np.asarray(self._random.integers(1, 256, shape) / 256, np.float32)

    def offset(self, reach: int, *shape: int) -> np.ndarray:
        """Multiples of 1/16 within ±reach, at most 8."""
        return np.asarray(self._random.integers(-16 * reach, 16 * reach + 1, shape) / 16, np.float32)

    def whole(self, reach: int, *shape: int) -> np.ndarray:
        """Whole numbers within ±reach."""
        return np.asarray(self._random.integers(-reach, reach + 1, shape), np.float32)

    def weights(self, *shape: int) -> np.ndarray:
        """Softmaxed weights (..., L, P), as multiples of 1/256."""
        powers = np.exp(1.5 * self._random.normal(size=shape))
        return np.asarray(np.round(powers / powers.sum((-2, -1), keepdims=True) * 256) / 256, np.float32)


def _attention(
    name: str, what: str, wide: bool, shapes: Sequence[tuple[int, int]] = ((6, 8),),
    sizes: tuple[int, int, int, int, int] = (2, 5, 2, 3, 4), pixels: Sequence[float] | None = None, weights: np.ndarray | None = None,
) -> Case:  # fmt: skip
    """One case.

    Args:
        sizes: A, Q, M, D, P.
        pixels: positions in pixels that x and y take in turn, in all combinations; None: anywhere, some of them outside.
        weights: for all of (A, Q, M), (L, P); None: random.
    """
    A, Q, M, D, P = sizes
    L, draw = len(shapes), _Draw(name)
    size = np.array(shapes, np.int64)
    points = (A, Q, M, L, P)
    quantities: dict[str, np.ndarray] = {
        "value": draw.normal(A, int(size.prod(1).sum()), M, D), "spatial_shapes": size, "level_start_index": level_starts(size),
    }  # fmt: skip
    lengths = size[:, None, ::-1].astype(np.float32)  # (L, 1, 2) as (w, h)
    if wide:
        reference, offset = draw.share(A, Q, L, 2), draw.offset(4, *points, 2)
        if pixels is not None:
            reference[:] = 0.5
            offset = (_combinations(pixels, points) + 0.5 - lengths / 2).astype(np.float32)
        quantities |= {"reference_points": reference, "sampling_offsets": offset}
        logits = draw.normal(*points)
        if weights is not None:
            logits[:] = np.where(weights > 0, np.log2(np.maximum(weights, 1e-9)), -80)
        quantities["attention_logits"] = logits
    else:
        location = draw.share(*points, 2) * 1.25 - 0.125
        location = (np.round(location * 128) / 128).astype(np.float32)
        if pixels is not None:
            location = ((_combinations(pixels, points) + 0.5) / lengths).astype(np.float32)
        quantities["sampling_locations"] = location
        quantities["attention_weights"] = draw.weights(*points) if weights is None else np.broadcast_to(weights, points).astype(np.float32)
    return Case(f"msda_edge_{name}", "msda", quantities, {}, what)


def _combinations(pixels: Sequence[float], points: tuple[int, ...]) -> np.ndarray:
    """(A, Q, M, L, P, 2): x runs fastest, y one step for each round of x."""
    count = np.arange(int(np.prod(points)))
    chosen = np.array(pixels)
    return np.stack([chosen[count % len(chosen)], chosen[count // len(chosen) % len(chosen)]], -1).reshape(*points, 2)


def _attention_cases(wide: bool) -> tuple[Case, ...]:
    one = np.array([[0, 0, 1, 0]], np.float32)
    return (
        _attention("plain", "two images, two heads, a map that is not square, locations a little beyond it", wide),
        _attention("levels", "three levels of different shapes", wide, ((6, 8), (3, 5), (4, 2)), (2, 4, 2, 3, 2)),
        _attention("many_points", "eight points on one level", wide, ((4, 7),), (1, 4, 2, 3, 8)),
        _attention("one_point", "a single point", wide, ((5, 3),), (2, 4, 3, 2, 1)),
        _attention("wide_heads", "more channels than heads, more heads than queries", wide, ((3, 4),), (1, 2, 4, 8, 2)),
        _attention("one_channel", "heads of width 1", wide, ((4, 4), (2, 2)), (2, 3, 4, 1, 2)),
        _attention("one_head", "a single head", wide, ((4, 8),), (2, 4, 1, 5, 2)),
        _attention("one_query", "a single query of a single image", wide, ((4, 6),), (1, 1, 2, 4, 4)),
        _attention("one_pixel", "maps of a single pixel", wide, ((1, 1), (1, 1)), (1, 6, 2, 2, 2)),
        _attention("one_row", "a map of one row, and one of one column", wide, ((1, 8), (8, 1)), (1, 5, 2, 2, 2)),
        _attention("centres", "locations exactly on pixel centres: one pixel alone is read", wide, ((4, 8),), pixels=(0, 1, 2, 3)),
        _attention(
            "edges", "locations on the outer edges and half a pixel around them", wide, ((8, 8),), (1, 18, 1, 2, 4),
            (-0.5, 0, 7, 7.5, 3.25, 0.25),
        ),
        _attention(
            "just_outside", "locations exactly one pixel outside, where the weight has just become zero, and within that pixel", wide,
            ((8, 8),), (1, 12, 1, 2, 3), (-1, 8, -0.75, 7.75, 2.5),
        ),
        _attention(
            "far_outside", "locations far outside the map: the output is what the inside ones give", wide, ((4, 4),), (1, 9, 1, 2, 4),
            (-100, 200, 1.5, -1000, 2.25),
        ),
        _attention(
            "huge", "locations of 1e9 and 1e30 pixels, which is infinite in float16: they count as zero", wide, ((4, 4),), (1, 9, 1, 2, 4),
            (1e9, -1e9, 1.25, 1e30, 2.5),
        ),
        _attention("one_weight", "one point has all the weight, the others none", wide, weights=one),
        _attention("equal_weights", "all points have the same weight", wide, weights=np.full((1, 4), 0.25, np.float32)),
    )  # fmt: skip


def _deform_conv(
    name: str, what: str, image: tuple[int, int, int, int] = (2, 4, 5, 7), outputs: int = 6, kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1), groups: int = 1,
    deform_groups: int = 1, bias: bool = True, offsets: str = "any", masks: float | None = None,
) -> Case:  # fmt: skip
    """One case.

    Args:
        image: A, C, H, W.
        outputs: O.
        offsets: "any" within 2 pixels, "none", "whole" pixels, "far" (some of ±100), "huge" (some of ±1e9 and 1e30).
        masks: one number for all of them; None: random.
    """
    draw = _Draw(name)
    A, C, H, W = image
    taps = kernel[0] * kernel[1]
    Ho, Wo = ((length + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i, length in enumerate((H, W)))
    shape = (A, deform_groups * 2 * taps, Ho, Wo)
    offset = {"none": np.zeros(shape, np.float32), "whole": draw.whole(2, *shape)}.get(offsets, draw.offset(2, *shape))
    if offsets in ("far", "huge"):
        far = np.array([-100, 100, -250] if offsets == "far" else [-1e9, 1e9, 1e30], np.float32)
        count = np.arange(offset.size).reshape(shape)
        offset = np.where(count % 5 == 0, far[count % 3], offset)
    mask = draw.share(A, deform_groups * taps, Ho, Wo)
    quantities = {
        "input": draw.normal(*image), "offset": offset, "mask": mask if masks is None else np.full_like(mask, masks),
        "weight": draw.normal(outputs, C // groups, *kernel),
    }  # fmt: skip
    if bias:
        quantities["bias"] = 2 * draw.normal(outputs)
    attributes: dict[str, Any] = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "deform_groups": deform_groups,
    }  # fmt: skip
    return Case(f"dcn_edge_{name}", "dcn", quantities, attributes, what)


def _deform_conv_cases() -> tuple[Case, ...]:
    return (
        _deform_conv("plain", "3x3, two images, a map that is not square"),
        _deform_conv("no_bias", "3x3 without bias, as many output as input channels", outputs=4, bias=False),
        _deform_conv("no_offset", "zero offsets: an ordinary convolution with a mask", offsets="none"),
        _deform_conv("no_offset_no_mask", "zero offsets and a mask of ones: an ordinary convolution", offsets="none", masks=1.0),
        _deform_conv("whole_offsets", "offsets of whole pixels: nothing is interpolated", offsets="whole"),
        _deform_conv("zero_mask", "a mask of zeros: only the bias is left", masks=0.0),
        _deform_conv("one_mask", "a mask of ones", masks=1.0),
        _deform_conv("far_offsets", "some offsets of 100 pixels and more: those taps count as zero", offsets="far"),
        _deform_conv("huge_offsets", "some offsets of 1e9 and 1e30, infinite in float16: those taps count as zero", offsets="huge"),
        _deform_conv("stride", "stride 2 down, 3 across", (1, 3, 7, 10), 4, stride=(2, 3)),
        _deform_conv("dilation", "dilation 2 down, 3 across", (1, 3, 7, 9), 4, padding=(2, 3), dilation=(2, 3)),
        _deform_conv("padding_zero", "no padding", padding=(0, 0)),
        _deform_conv("padding_uneven", "padding 0 down, 2 across", padding=(0, 2)),
        _deform_conv("row_kernel", "a 1x3 kernel", kernel=(1, 3), padding=(0, 1)),
        _deform_conv("column_kernel", "a 3x1 kernel", kernel=(3, 1), padding=(1, 0)),
        _deform_conv("even_kernel", "a 2x3 kernel", kernel=(2, 3), padding=(1, 1)),
        _deform_conv("one_tap", "a 1x1 kernel", kernel=(1, 1), padding=(0, 0)),
        _deform_conv("groups", "two groups", groups=2),
        _deform_conv("depthwise", "as many groups as channels", outputs=4, groups=4),
        _deform_conv("deform_groups", "two deform groups", deform_groups=2),
        _deform_conv("both_groups", "two groups, four deform groups", groups=2, deform_groups=4),
        _deform_conv("one_pixel", "a map of a single pixel", (2, 2, 1, 1), 3),
        _deform_conv("one_row", "a map of a single row", (1, 2, 1, 8), 3),
    )  # fmt: skip
