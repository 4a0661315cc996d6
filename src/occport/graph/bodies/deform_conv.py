"""Modulated deformable convolution in standard operators: each tap of the kernel reads bilinearly where its offset says.

Letters: A images, C input and O output channels, (H, W) input and (Ho, Wo) output size, T = kh*kw taps, G = deform_groups.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..attributes import Window
from ..build import AttributeValue
from .body import FORMS, Body

DCN_FORMS = tuple(FORMS["dcn"])


def deform_conv(
    b: Body, input: ir.Value, offset: ir.Value, mask: ir.Value, weight: ir.Value, bias: ir.Value | None, window: Window, form: str
) -> ir.Value:
    """Modulated deformable convolution (DCNv2; Zhu et al., "Deformable ConvNets v2", CVPR 2019).

    Args:
        input: (A, C, H, W) float32.
        offset: (A, G*2*T, Ho, Wo) float32, in input pixels; channel 2k of a group is dy, 2k + 1 is dx of tap k. In the form "gather"
            1e9 and infinite offsets read zeros, and NaN ones too; the others leave NaN to the runtime.
        mask: (A, G*T, Ho, Wo) float32, already sigmoided.
        weight: (O, C/groups, kh, kw) float32.
        bias: (O) float32 or None.
        window: the sizes that a body cannot take from its inputs.
        form: one of DCN_FORMS; "deformconv" from opset 19 on, "gridsample" below opset 16 is ONNX Runtime's own operator.

    Returns:
        (A, O, Ho, Wo) float32.
    """
    assert form in DCN_FORMS, form
    if form == "gather":
        return _gathered(b, input, offset, mask, weight, bias, window)
    if form == "gridsample":
        return _grid_sampled(b, input, offset, mask, weight, bias, window)
    attributes: dict[str, AttributeValue] = {
        "strides": list(window.stride), "pads": list(window.padding * 2), "dilations": list(window.dilation),
        "group": window.groups, "offset_group": window.deform_groups,
    }  # fmt: skip
    return b.op("DeformConv", input, weight, offset, bias, mask, attributes=attributes)


def _grid_sampled(
    b: Body, input: ir.Value, offset: ir.Value, mask: ir.Value, weight: ir.Value, bias: ir.Value | None, window: Window
) -> ir.Value:
    """GridSample over the stacked taps, times the mask, then a 1x1 Conv over channels x taps."""
    T = window.kernel[0] * window.kernel[1]
    rows, columns = b.size(offset, 2), b.size(offset, 3)
    moved = b.reshape(offset, -1, T, 2, rows, columns)  # (A*G, T, 2, Ho, Wo)
    one, two = b.constant(1, "float32"), b.constant(2, "float32")
    axes = []
    for axis, count in ((0, rows), (1, columns)):
        base = b.op("Mul", b.cast(b.count(count), ir.DataType.FLOAT), b.constant(window.stride[axis], "float32"))
        base = b.reshape(base, -1, 1) if axis == 0 else base  # (Ho, 1) or (Wo)
        tap = b.constant(window.taps(axis).reshape(T, 1, 1), "float32")
        position = b.op("Add", b.pick(moved, axis, axis=2), b.op("Add", base, tap))  # (A*G, T, Ho, Wo)
        # pixel p is grid (2p + 1) / size - 1
        length = b.cast(b.size(input, 2 + axis), ir.DataType.FLOAT)
        normed = b.op("Sub", b.op("Div", b.op("Add", b.op("Mul", position, two), one), length), one)
        axes.append(b.on_axes("Unsqueeze", normed, [4]))
    grid = b.reshape(b.op("Concat", axes[1], axes[0], attributes={"axis": 4}), 0, -1, columns, 2)  # (A*G, T*Ho, Wo, 2)
    image = input
    if window.deform_groups > 1:
        per_group = b.op("Div", b.size(input, 1), b.constant([window.deform_groups]))
        image = b.reshape(input, -1, per_group, b.size(input, 2), b.size(input, 3))
    found = b.op("Mul", b.grid_sample(image, grid), b.reshape(mask, b.size(grid, 0), 1, -1, columns))
    channels = b.op("Mul", b.size(input, 1), b.constant([T]))
    stacked = b.reshape(found, b.size(input, 0), channels, rows, columns)  # channels outer, taps inner
    kernel = b.reshape(weight, 0, -1, 1, 1)
    return b.op("Conv", stacked, kernel, *([] if bias is None else [bias]), attributes={"group": window.groups})


def _gathered(
    b: Body, input: ir.Value, offset: ir.Value, mask: ir.Value, weight: ir.Value, bias: ir.Value | None, window: Window
) -> ir.Value:
    """Rows ((a*H + y)*W + x)*G + g of the input in channels-last order, weighted, then MatMul over taps x channels.

    Taps and deform groups are one axis T*G, taps outer, so that reading fills in (T, C) as the matrix product wants it.
    """
    T, G = window.kernel[0] * window.kernel[1], window.deform_groups
    images, channels, height, width = (b.size(input, axis) for axis in range(4))
    table = b.reshape(b.transpose(input, 0, 2, 3, 1), -1, b.op("Div", channels, b.constant([G])))  # (A*H*W*G, C/G)
    group, tap = np.tile(np.arange(G), T), np.repeat(np.arange(T), G)  # each (T*G)
    order = group * 2 * T + tap * 2
    moved = b.op("Gather", offset, b.constant([order, order + 1]), attributes={"axis": 1})  # (A, 2, T*G, Ho, Wo)
    moved = b.transpose(moved, 1, 0, 3, 4, 2)  # (2, A, Ho, Wo, T*G)
    share = mask if G == 1 else b.op("Gather", mask, b.constant(group * T + tap), attributes={"axis": 1})
    share = b.transpose(share, 0, 2, 3, 1)  # (A, Ho, Wo, T*G)
    taps = b.constant(np.stack([window.taps(0)[tap], window.taps(1)[tap]]).reshape(2, 1, 1, 1, T * G), "float32")
    position = b.op("Add", moved, taps)
    for axis in (0, 1):  # one after the other, so that the constants stay small when they are folded
        along = np.zeros((2, 1, 1, 1, 1))
        along[axis] = window.stride[axis]
        steps = b.cast(b.count(b.size(offset, 2 + axis)), ir.DataType.FLOAT)
        steps = b.reshape(steps, -1, 1, 1) if axis == 0 else b.reshape(steps, -1, 1)
        position = b.op("Add", position, b.op("Mul", steps, b.constant(along, "float32")))
    five = (2, 1, 1, 1, 1)
    sizes = b.reshape(b.op("Concat", height, width, attributes={"axis": 0}), *five)
    strides = b.op("Mul", b.op("Concat", width, b.constant([1]), attributes={"axis": 0}), b.constant([G]))
    image = b.op("Mul", b.op("Mul", height, width), b.constant([G]))  # rows
    first = b.op("Add", b.reshape(b.op("Mul", b.count(images), image), -1, 1, 1, 1), b.constant(group))  # (A, 1, 1, T*G)
    found = b.gather_bilinear(table, position, sizes, b.reshape(strides, *five), first, share)  # (A, Ho, Wo, T*G, C/G)
    product = _grouped_product(b, found, weight, window)
    return b.transpose(product if bias is None else b.op("Add", product, bias), 0, 3, 1, 2)


def _grouped_product(b: Body, found: ir.Value, weight: ir.Value, window: Window) -> ir.Value:
    """(A, Ho, Wo, T*G, C/G) readings in the order (T, C) times (O, C/groups, kh, kw) → (A, Ho, Wo, O)."""
    if window.groups == 1:
        kernel = b.reshape(b.transpose(weight, 2, 3, 1, 0), -1, b.size(weight, 0))  # (T*C, O)
        return b.op("MatMul", b.reshape(found, 0, 0, 0, -1), kernel)
    T, groups = window.kernel[0] * window.kernel[1], b.constant([window.groups])
    kernel = b.reshape(weight, groups, -1, b.size(weight, 1), T)  # (groups, O/groups, C/groups, T)
    kernel = b.transpose(b.reshape(b.transpose(kernel, 0, 1, 3, 2), 0, 0, -1), 0, 2, 1)  # (groups, T*C/groups, O/groups)
    columns = b.transpose(b.reshape(found, -1, T, groups, b.size(weight, 1)), 2, 0, 1, 3)  # (groups, A*Ho*Wo, T, C/groups)
    product = b.op("MatMul", b.reshape(columns, 0, 0, -1), kernel)  # (groups, A*Ho*Wo, O/groups)
    sizes = (b.size(found, axis) for axis in range(3))
    return b.reshape(b.transpose(product, 1, 0, 2), *sizes, -1)
