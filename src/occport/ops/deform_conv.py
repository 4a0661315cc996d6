"""Modulated deformable convolution (DCNv2; Zhu et al., "Deformable ConvNets v2", CVPR 2019) as a torch operator.

For tap k = kw*i + j of the kernel and output position (ho, wo) the input is read at

    y = ho*stride_y - padding_y + i*dilation_y + offset[2k],    x = wo*stride_x - padding_x + j*dilation_x + offset[2k + 1]

bilinearly, every corner outside the map counting as zero, times mask[k]; an ordinary weighted sum over channels and taps follows.

Letters: A images, C input and O output channels, (H, W) input and (Ho, Wo) output size, T = kh*kw taps, G = deform_groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .recompute import recomputed_grads


@torch.library.custom_op("occport::deform_conv2d", mutates_args=())
def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    """DCNv2 forward.

    Args:
        input: (A, C, H, W) float.
        offset: (A, G*2*T, Ho, Wo) float, in input pixels; channel 2k of a group is dy, 2k + 1 is dx of tap k.
        mask: (A, G*T, Ho, Wo) float, already sigmoided.
        weight: (O, C/groups, kh, kw) float.
        bias: (O) float or None.
        stride, padding, dilation: two ints each, y then x.

    Returns:
        (A, O, Ho, Wo), dtype of the input.

    Raises:
        ValueError: shapes that do not fit together.
    """
    output_size(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    return reference(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)


def reference(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    """The operator in differentiable torch calls: one `grid_sample` over all stacked taps, then one matrix product.

    Arguments and result as in `deform_conv2d`.
    """
    A, C, H, W = input.shape
    num_out, _, kh, kw = weight.shape
    Ho, Wo = offset.shape[-2:]
    T, G = kh * kw, deform_groups
    # where each tap would look without offset: (T, Ho, 1) and (T, 1, Wo)
    count = partial(torch.arange, dtype=input.dtype, device=input.device)
    tap_y = count(kh).mul(dilation[0]).repeat_interleave(kw).view(T, 1, 1)
    tap_x = count(kw).mul(dilation[1]).repeat(kh).view(T, 1, 1)
    base_y = count(Ho).mul(stride[0]).sub(padding[0]).view(1, Ho, 1) + tap_y
    base_x = count(Wo).mul(stride[1]).sub(padding[1]).view(1, 1, Wo) + tap_x
    dy, dx = offset.reshape(A * G, T, 2, Ho, Wo).unbind(2)  # each (A*G, T, Ho, Wo)
    # grid_sample with align_corners=False reads pixel (g + 1) * size / 2 - 1/2
    grid = torch.stack(((base_x + dx).mul(2).add(1).div(W).sub(1), (base_y + dy).mul(2).add(1).div(H).sub(1)), dim=-1)
    samples = F.grid_sample(
        input.reshape(A * G, C // G, H, W), grid.view(A * G, T * Ho, Wo, 2), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    columns = samples.view(A, G, C // G, T, Ho * Wo) * mask.reshape(A, G, 1, T, Ho * Wo)
    columns = columns.view(A, groups, C // groups * T, Ho * Wo)  # channels outer, taps inner, as in the weight
    out = weight.reshape(groups, num_out // groups, C // groups * T) @ columns  # (A, groups, O/groups, Ho*Wo)
    out = out.view(A, num_out, Ho, Wo)
    return out if bias is None else out + bias.view(1, num_out, 1, 1)


def output_size(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
) -> tuple[int, int]:
    """(Ho, Wo) for the arguments of `deform_conv2d`; ValueError where they do not fit together."""
    for name, pair, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        if len(pair) != 2 or min(pair) < least:
            raise ValueError(f"deform_conv2d: {name}: expected two ints of at least {least}, got {list(pair)}")
    for name, tensor in (("input", input), ("weight", weight)):
        if tensor.dim() != 4:
            raise ValueError(f"deform_conv2d: {name}: expected four dimensions, got {tuple(tensor.shape)}")
    A, C, H, W = input.shape
    num_out, per_group, kh, kw = weight.shape
    if min(groups, deform_groups) < 1 or C % groups or num_out % groups or C // groups != per_group or C % deform_groups:
        sizes = f"{C} input and {num_out} output channels, weight {tuple(weight.shape)}, groups {groups}, deform_groups {deform_groups}"
        raise ValueError(f"deform_conv2d: expected sizes that fit together, got {sizes}")
    T = kh * kw
    Ho = (H + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    Wo = (W + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    for name, given, shape in (
        ("offset", offset, (A, 2 * T * deform_groups, Ho, Wo)),
        ("mask", mask, (A, T * deform_groups, Ho, Wo)),
        ("bias", bias, (num_out,)),
    ):
        if given is not None and tuple(given.shape) != shape:
            raise ValueError(f"deform_conv2d: {name}: expected {shape}, got {tuple(given.shape)}")
    return Ho, Wo


@deform_conv2d.register_fake
def _shape(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    Ho, Wo = output_size(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    return input.new_empty(input.shape[0], weight.shape[0], Ho, Wo)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4], *([] if inputs[4] is None else [inputs[4]]))
    ctx.attributes = inputs[5:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    def again(tensors: Sequence[Tensor]) -> Tensor:
        input, offset, mask, weight, *rest = tensors
        return reference(input, offset, mask, weight, rest[0] if rest else None, *ctx.attributes)

    saved = ctx.saved_tensors
    grads = recomputed_grads(again, saved, ctx.needs_input_grad[: len(saved)], grad)
    return (*grads, *([None] * (10 - len(grads))))


deform_conv2d.register_autograd(_backward, setup_context=_save)
