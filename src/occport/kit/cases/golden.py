"""Golden values: both custom operators in float64 numpy, from the quantities of a case.

Multi-scale deformable attention (Zhu et al., "Deformable DETR", ICLR 2021): location (u, v) of a map is the pixel position
x = u*w - 1/2, y = v*h - 1/2; in the wide form location = reference + offset / (w, h) and weights = softmax over all L*P points.
Modulated deformable convolution (Zhu et al., "Deformable ConvNets v2", CVPR 2019): tap (i, j) reads
y = ho*stride - padding + i*dilation + dy, x = wo*stride - padding + j*dilation + dx, times its mask.

Both read bilinearly, and every pixel outside the map counts as zero; so do positions that are infinite or nan, as in mmcv's kernels,
whose comparisons fail for them. All other quantities must be finite.

`Way` lets the same arithmetic go wrong on purpose (`bugs.py`); the size of an output comes from the arrays, never from attributes, so
that wrong attributes shift the taps and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .case import Case, level_starts, window
from .reading import RIGHT, Way, read

_PIECE = 2**20  # float64 values in work at a time: 8 MiB for each temporary array


def golden(case: Case) -> np.ndarray:
    """The right output in float64: (A, Q, M*D) of "msda", (A, O, Ho, Wo) of "dcn". The case must have passed `case.check`."""
    return evaluate(case, RIGHT)


def evaluate(case: Case, way: Way) -> np.ndarray:
    """As `golden`, with maps read in another way."""
    return _attention(case, way) if case.operator == "msda" else _deform_conv(case, way)


def pieces(rows: int, width: int) -> Iterator[slice]:
    """Slices over `rows` rows of `width` values that keep the memory of a temporary array small."""
    step = max(1, _PIECE // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def locations(case: Case) -> np.ndarray:
    """(A, Q, M, L, P, 2) float64 as (x, y) in [0, 1] of each level's map."""
    if "sampling_offsets" not in case.quantities:
        return case.float64("sampling_locations")
    size = case.float64("spatial_shapes")[:, None, ::-1]  # (L, 1, 2) as (w, h)
    reference = case.float64("reference_points")[:, :, None, :, None, :]  # (A, Q, L, 2) to (A, Q, 1, L, 1, 2)
    return np.asarray(reference + case.float64("sampling_offsets") / size)


def attention_weights(case: Case) -> np.ndarray:
    """(A, Q, M, L, P) float64, after the softmax over L and P."""
    return softmax(case.float64("attention_logits"), 2) if "attention_logits" in case.quantities else case.float64("attention_weights")


def softmax(logits: np.ndarray, axes: int) -> np.ndarray:
    """Softmax over the last `axes` axes together, without overflow."""
    over = tuple(range(-axes, 0))
    powers = np.exp(logits - logits.max(over, keepdims=True))
    return np.asarray(powers / powers.sum(over, keepdims=True))


def attention_positions(case: Case, way: Way) -> tuple[np.ndarray, np.ndarray]:
    """y and x in pixels, (A, Q, M, L, P) float64 each."""
    place, size = locations(case), case.float64("spatial_shapes")[:, :, None]  # (L, 2, 1) as (h, w)
    pixel = way.pixel or (lambda share, length: share * length - 0.5)
    with np.errstate(over="ignore"):
        return pixel(place[..., 1], size[:, 0]), pixel(place[..., 0], size[:, 1])


def level_maps(case: Case) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Image, head, level and its map (h, w, D) float64, for every combination."""
    value, shapes = case.quantities["value"], case.quantities["spatial_shapes"]
    starts = case.quantities.get("level_start_index", level_starts(shapes))
    for image, head in np.ndindex(value.shape[0], value.shape[2]):
        for level, (height, width) in enumerate(shapes.tolist()):
            rows = value[image, starts[level] : starts[level] + height * width, head]
            yield image, head, level, rows.astype(np.float64).reshape(height, width, -1)  # (h*w, D) to (h, w, D)


def _attention(case: Case, way: Way) -> np.ndarray:
    y, x = attention_positions(case, way)
    weights = attention_weights(case)
    A, Q, M, _, P = weights.shape
    out = np.zeros((A, Q, M, case.quantities["value"].shape[3]))
    for image, head, level, feature in level_maps(case):
        for block in pieces(Q, P * feature.shape[2]):
            at = image, block, head, level
            samples = read(feature, y[at].ravel(), x[at].ravel(), way.axis)
            samples *= weights[at].reshape(-1, 1)
            out[image, block, head] += samples.reshape(-1, P, feature.shape[2]).sum(1)  # (Qb*P, D) to (Qb, P, D)
    return out.reshape(A, Q, -1)  # (A, Q, M, D) to (A, Q, M*D)


def tap_offsets(case: Case) -> np.ndarray:
    """(A, G, T, 2, Ho*Wo) float64 in pixels, as (dy, dx)."""
    offset = case.float64("offset")
    A, channels, Ho, Wo = offset.shape
    G = window(case).deform_groups
    return offset.reshape(A, G, channels // (2 * G), 2, Ho * Wo)  # (A, G*T*2, Ho, Wo) to (A, G, T, 2, Ho*Wo)


def tap_grid(case: Case) -> np.ndarray:
    """Where each tap reads without offset: (T, 2, Ho*Wo) float64 in pixels, as (y, x)."""
    stride, padding, dilation, _, _ = window(case)
    kernel, out = case.quantities["weight"].shape[2:], case.quantities["offset"].shape[2:]
    tap, place = np.indices(kernel).reshape(2, -1, 1), np.indices(out).reshape(2, 1, -1)  # (2, T, 1) and (2, 1, Ho*Wo)
    grids = [place[axis] * stride[axis] - padding[axis] + tap[axis] * dilation[axis] for axis in (0, 1)]
    return np.stack(grids, axis=1).astype(np.float64)


def tap_positions(case: Case, way: Way) -> np.ndarray:
    """(A, G, T, 2, Ho*Wo) float64 in pixels, as (y, x)."""
    positions: np.ndarray = tap_offsets(case) + tap_grid(case)
    if way.pixel is None:
        return positions
    size = np.array(case.quantities["input"].shape[2:], np.float64).reshape(2, 1)
    return way.pixel(positions, size)


def dense_weight(case: Case) -> np.ndarray:
    """(T, C, O) float64: the kernel with zeros where its groups do not look."""
    weight, groups = case.float64("weight"), window(case).groups
    num_out, per_group, kh, kw = weight.shape
    dense = np.zeros((kh * kw, case.quantities["input"].shape[1], num_out))
    taps = weight.reshape(num_out, per_group, kh * kw).transpose(2, 1, 0)  # (O, C/groups, kh, kw) to (T, C/groups, O)
    for group, outs in enumerate(np.split(np.arange(num_out), groups)):
        dense[:, group * per_group : (group + 1) * per_group, outs] = taps[:, :, outs]
    return dense


def group_maps(case: Case) -> Iterator[tuple[int, int, slice, np.ndarray]]:
    """Image, deform group, its channels and their map (H, W, C/G) float64, for every combination."""
    source, G = case.quantities["input"], window(case).deform_groups
    width = source.shape[1] // G
    for image, group in np.ndindex(source.shape[0], G):
        channels = slice(group * width, (group + 1) * width)
        feature = source[image, channels].transpose(1, 2, 0)  # (C/G, H, W) to (H, W, C/G)
        yield image, group, channels, np.ascontiguousarray(feature, np.float64)


def tap_masks(case: Case) -> np.ndarray:
    """(A, G, T, Ho*Wo) float64."""
    mask = case.float64("mask")
    A, _, Ho, Wo = mask.shape
    return mask.reshape(A, window(case).deform_groups, -1, Ho * Wo)  # (A, G*T, Ho, Wo) to (A, G, T, Ho*Wo)


def _deform_conv(case: Case, way: Way) -> np.ndarray:
    positions = tap_positions(case, way)
    masks, weight = tap_masks(case), dense_weight(case)
    A, _, Ho, Wo = case.quantities["offset"].shape
    out = np.zeros((A, Ho * Wo, weight.shape[2]))
    for image, group, channels, feature in group_maps(case):
        for block in pieces(Ho * Wo, max(feature.shape[2], weight.shape[2])):
            for tap in range(len(weight)):
                y, x = positions[image, group, tap, :, block]
                samples = read(feature, y, x, way.axis)
                samples *= masks[image, group, tap, block, None]
                out[image, block] += samples @ weight[tap, channels]
    if "bias" in case.quantities:
        out += case.float64("bias")
    return np.ascontiguousarray(out.transpose(0, 2, 1).reshape(A, -1, Ho, Wo))  # (A, Ho*Wo, O) to (A, O, Ho, Wo)
