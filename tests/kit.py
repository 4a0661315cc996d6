"""Kernels written for the tests, in any dtype and with a switch for each of a dozen bugs; and vectors folders to grade them with.

They share no line with `occport.kit`: corners are four explicit cases as in mmcv's kernels, every operation rounds to the dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from occport.kit.cases.case import Case, output_shape
from occport.kit.cases.folder import Held, write_case, write_index
from occport.kit.cases.golden import golden
from occport.kit.cases.record import Index

DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
Kernel = Callable[[Case], np.ndarray]


def write_vectors(folder: Path, cases: Sequence[Case]) -> None:
    """A vectors folder whose ports hold the quantities as they are, without models."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for case in cases:
        ports = [Held(name, name, array) for name, array in case.quantities.items()]
        records.append(write_case(folder, case, ports, golden(case), output_shape(case), b"model", {"seed": 0}))
    write_index(folder, Index("dl", {"msda": {}, "dcn": {}}, tuple(records)))


def write_outputs(folder: Path, cases: Sequence[Case], kernel: Kernel) -> None:
    """CASE.npy of what the kernel gives for each case."""
    folder.mkdir(exist_ok=True)
    for case in cases:
        np.save(folder / f"{case.name}.npy", kernel(case))


def corners(image: np.ndarray, y: np.ndarray, x: np.ndarray, bug: str = "") -> np.ndarray:
    """(C, n) of a map (C, H, W) at positions (n), all of one dtype; the rounding of every step is the dtype's."""
    dtype = image.dtype
    _, H, W = image.shape
    one = dtype.type(1)
    if bug == "border":
        y, x = np.clip(y, dtype.type(0), dtype.type(H - 1)), np.clip(x, dtype.type(0), dtype.type(W - 1))
    valid = (y > -1) & (x > -1) & (y < H) & (x < W)
    y, x = np.where(valid, y, dtype.type(0)), np.where(valid, x, dtype.type(0))
    if bug == "nearest":
        row, column = np.floor(y.astype(np.float64) + 0.5).astype(int), np.floor(x.astype(np.float64) + 0.5).astype(int)
        inside = valid & (row >= 0) & (column >= 0) & (row < H) & (column < W)
        return np.where(inside, image[:, np.clip(row, 0, H - 1), np.clip(column, 0, W - 1)], dtype.type(0))
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    ly, lx = y - row.astype(dtype), x - column.astype(dtype)
    hy, hx = one - ly, one - lx
    if bug == "corner_weights_exchanged":
        ly, lx, hy, hx = hy, hx, ly, lx
    out = np.zeros((image.shape[0], len(y)), dtype)
    four = ((0, 0, hy * hx), (0, 1, hy * lx), (1, 0, ly * hx), (1, 1, ly * lx))
    for down, across, weight in four:
        rows, columns = row + down, column + across
        inside = valid & (rows >= 0) & (columns >= 0) & (rows < H) & (columns < W)
        pixels = image[:, np.clip(rows, 0, H - 1), np.clip(columns, 0, W - 1)]
        out = out + np.where(inside, weight * pixels, dtype.type(0))
    return out


def attention_kernel(dtype: str, bug: str = "") -> Kernel:
    """Multi-scale deformable attention in `dtype`, wide or narrow; `bug`: names joined by "+"."""
    number = DTYPES[dtype]
    bugs = set(bug.split("+"))

    def kernel(case: Case) -> np.ndarray:
        with np.errstate(all="ignore"):
            return _attention(case, number, bugs)

    return kernel


def _attention(case: Case, number: Any, bugs: set[str]) -> np.ndarray:
    q = case.quantities
    value = q["value"].astype(number)
    A, S, M, D = value.shape
    if "value_heads_first" in bugs:
        value = value.reshape(A, M, S, D).transpose(0, 2, 1, 3)
    wide = "attention_logits" in q
    points = q["attention_logits" if wide else "attention_weights"].astype(number)
    Q, P = points.shape[1], points.shape[4]
    weights = np.zeros_like(points)
    for a, query, m in np.ndindex(A, Q, M):
        row = points[a, query, m]
        if wide and "softmax_missing" not in bugs:
            row = softmax(row, number) if "softmax_of_points" not in bugs else np.stack([softmax(level, number) for level in row])
        weights[a, query, m] = softmax(row, number) if "softmax_again" in bugs else row
    shapes = q["spatial_shapes"][:, ::-1] if "shapes_as_wh" in bugs else q["spatial_shapes"]
    out = np.zeros((A, Q, M, D), number)
    start = 0
    for level, (h, w) in enumerate(shapes.tolist()):
        first = 0 if "starts_ignored" in bugs else start
        start += h * w
        for a, m in np.ndindex(A, M):
            feature = value[0 if "value_of_first_image" in bugs else a, first : first + h * w, m].T.reshape(D, h, w)
            for point in range(P):
                u, v = _place(q, number, (a, m, level, point), h, w, bugs)
                x, y = _pixel(u, w, number, bugs), _pixel(v, h, number, bugs)
                sample = corners(feature, y, x, next(iter(bugs & {"border", "nearest", "corner_weights_exchanged"}), ""))
                if "weights_ignored" not in bugs:
                    sample = sample * weights[a, :, m, level, point]
                out[a, :, m] = out[a, :, m] + sample.T
    return _written(out, bugs)


def _written(out: np.ndarray, bugs: set[str]) -> np.ndarray:
    A, Q, M, D = out.shape
    if "output_channels_first" in bugs:
        out = out.transpose(0, 1, 3, 2)
    if "output_transposed" in bugs:
        out = out.reshape(A, Q, M * D).transpose(0, 2, 1)
    if "scaled" in bugs:
        out = out * out.dtype.type(0.125)
    return np.ascontiguousarray(out).reshape(A, Q, M * D)


def _place(q: Any, number: Any, at: tuple[int, int, int, int], h: int, w: int, bugs: set[str]) -> tuple[np.ndarray, np.ndarray]:
    a, m, level, point = at
    if "sampling_offsets" in q:
        offset = q["sampling_offsets"][a, :, m, level, point].astype(number)
        reference = q["reference_points"][a, :, level].astype(number)
        over = (h, w) if "offsets_by_hw" in bugs else (1, 1) if "offsets_not_divided" in bugs else (w, h)
        u, v = (reference[:, i] + offset[:, i] / number(over[i]) for i in (0, 1))
    else:
        u, v = q["sampling_locations"][a, :, m, level, point].astype(number).T
    return (v, u) if "xy_swapped" in bugs else (u, v)


def _pixel(share: np.ndarray, size: int, number: Any, bugs: set[str]) -> np.ndarray:
    if "align_corners" in bugs:
        return share * number(size - 1)
    if "half_pixel_missing" in bugs:
        return share * number(size)
    if "by_grid" in bugs:  # right: the way through a grid in [-1, 1]
        grid = number(2) * share - number(1)
        return ((grid + number(1)) * number(size) - number(1)) / number(2)
    return share * number(size) - number(0.5)


def softmax(row: np.ndarray, number: Any) -> np.ndarray:
    """Over all of it, each step in the dtype."""
    powers = np.exp(row - row.max())
    total = number(0)
    for power in powers.ravel():
        total = number(total + power)
    return powers / total


def deform_kernel(dtype: str, bug: str = "") -> Kernel:
    """Modulated deformable convolution in `dtype`; `bug`: names joined by "+"."""
    number = DTYPES[dtype]
    bugs = set(bug.split("+"))

    def kernel(case: Case) -> np.ndarray:
        with np.errstate(all="ignore"):
            return _deform_conv(case, number, bugs)

    return kernel


def _deform_conv(case: Case, number: Any, bugs: set[str]) -> np.ndarray:
    image, offset, mask, weight = (case.quantities[name].astype(number) for name in ("input", "offset", "mask", "weight"))
    stride, padding, dilation = (case.attributes[name] for name in ("stride", "padding", "dilation"))
    groups, G = case.attributes["groups"], case.attributes["deform_groups"]
    if "stride_ignored" in bugs:
        stride = (1, 1)
    if "dilation_ignored" in bugs:
        dilation = (1, 1)
    if "padding_ignored" in bugs:
        padding = (0, 0)
    A, C = image.shape[:2]
    O, per_group, kh, kw = weight.shape  # noqa: E741
    if "weight_by_columns" in bugs:
        weight = weight.reshape(O, per_group, kw, kh).swapaxes(2, 3)
    Ho, Wo = offset.shape[2:]
    ho, wo = (grid.ravel() for grid in np.mgrid[:Ho, :Wo])
    out = np.zeros((A, O, Ho * Wo), number)
    how = next(iter(bugs & {"border", "nearest", "corner_weights_exchanged"}), "")
    for a in range(A):
        for g in range(G):
            source = 0 if "first_deform_group_for_all" in bugs else g
            channels = image[0 if "input_of_first_image" in bugs else a, g * C // G : (g + 1) * C // G]
            for i, j in np.ndindex(kh, kw):
                k, taps = i * kw + j, kh * kw
                down, across = (k, taps + k) if "offsets_in_blocks" in bugs else (2 * k, 2 * k + 1)
                if "offsets_as_dxdy" in bugs:
                    down, across = across, down
                dy, dx = (offset[a, source * 2 * taps + part].ravel() for part in (down, across))
                y = (ho * stride[0] - padding[0] + i * dilation[0]).astype(number) + dy
                x = (wo * stride[1] - padding[1] + j * dilation[1]).astype(number) + dx
                if "half_pixel_left" in bugs:
                    y, x = y - number(0.5), x - number(0.5)
                samples = corners(channels, y, x, how)
                if "mask_ignored" not in bugs:
                    factor = mask[a, source * taps + k].ravel()
                    samples = samples * (number(1) / (number(1) + np.exp(-factor)) if "sigmoid_again" in bugs else factor)
                for channel, sample in enumerate(samples):
                    c = g * C // G + channel
                    block = slice(c // per_group * (O // groups), (c // per_group + 1) * (O // groups))
                    out[a, block] = out[a, block] + weight[block, c % per_group, i, j, None] * sample
    if "bias" in case.quantities and "bias_missing" not in bugs:
        bias = case.quantities["bias"].astype(number)[:, None]
        out = out + bias
        if "bias_twice" in bugs:
            out = out + bias
    out = out.reshape(A, O, Ho, Wo)
    if "output_channels_last" in bugs:
        out = np.ascontiguousarray(out.transpose(0, 2, 3, 1)).reshape(out.shape)
    return out
