"""Modulated deformable convolution (DCNv2; Zhu et al., "Deformable ConvNets v2", CVPR 2019) as a torch operator.

For tap k = kw*i + j of the kernel and output position (ho, wo) the input is read at

    y = ho*stride_y - padding_y + i*dilation_y + offset[2k],    x = wo*stride_x - padding_x + j*dilation_x + offset[2k + 1]

bilinearly, every corner outside the map counting as zero, times mask[k]; an ordinary weighted sum over channels and taps follows.
A position that is infinite or nan is outside. A mask that is infinite or nan stays so in the products, outside the map too (0 * nan).

Positions are computed in float32 at least, samples as well, whatever the dtype of the image: in bfloat16 they are off by half a pixel
at 200.

On a CPU, float32 and bfloat16 run by a native kernel where there is one (`native`): the columns of some hundred output positions at a time,
channels last, then oneDNN's convolution 1x1 as matrix product. Everything else runs as `reference`.

Letters: A images, C input and O output channels, (H, W) input and (Ho, Wo) output size, T = kh*kw taps, G = deform_groups.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import native
from .recompute import recomputed_grads

# Output positions in one matrix product. Each product reorders the weight anew, which more rows pay for; their columns want the cache.
TILE_ROWS = 2048
TILE_BYTES = 32 * 2**20
_KERNELS = {dtype: f"occport_columns_{name}" for name, dtype in native.DTYPES.items()}


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
        input: (A, C, H, W) of any float dtype; channels_last is fastest.
        offset: (A, G*2*T, Ho, Wo) float, in input pixels; channel 2k of a group is dy, 2k + 1 is dx of tap k.
        mask: (A, G*T, Ho, Wo) float, already sigmoided. Offset and mask may be float32 where the input is of a smaller dtype.
        weight: (O, C/groups, kh, kw), dtype of the input.
        bias: (O), dtype of the input, or None.
        stride, padding, dilation: two ints each, y then x.

    Returns:
        (A, O, Ho, Wo), dtype of the input; channels_last where the input is (and is not contiguous as well), else contiguous.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    output_size(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    tensors = [tensor for tensor in (input, offset, mask, weight, bias) if tensor is not None]
    simple = all(tensor.device.type == "cpu" and tensor.numel() for tensor in tensors) and input.dtype in _KERNELS
    library = native.find().library if simple else None
    if library is None:
        out = reference(input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
        return _laid_out(out, input)
    sizes = [*weight.shape[2:], *stride, *padding, *dilation, groups, deform_groups]
    return _tiled(getattr(library, _KERNELS[input.dtype]), input, offset.float(), mask.float(), weight, bias, sizes)


def _tiled(kernel: Any, input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, sizes: list[int]) -> Tensor:
    """The operator by the native kernel; `sizes` as the kernel has them, kernel_h to deform_groups."""
    A, C, H, W = input.shape
    num_out, groups, T = weight.shape[0], sizes[-2], weight.shape[2] * weight.shape[3]
    positions, Wo = offset.shape[2] * offset.shape[3], offset.shape[3]
    image = input.permute(0, 2, 3, 1).contiguous()  # (A, H, W, C), no copy of what is channels_last
    # in the order of the columns, which are the channels of a convolution 1x1: (O, T*C/groups, 1, 1)
    product = weight.permute(0, 2, 3, 1).reshape(num_out, T * C // groups, 1, 1)
    most = max(1, min(TILE_ROWS, TILE_BYTES // (T * C * input.element_size())))
    rows = math.ceil(positions / math.ceil(positions / most))  # tiles of about one size
    columns = input.new_empty(rows, T * C)
    # over a single row any stride is the same; with one thread PyTorch takes oneDNN for float32 only where there is a stride
    stride = (2, 1) if input.dtype == torch.float32 else (1, 1)
    out = input.new_empty(A, positions, num_out)
    for a in range(A):
        for first in range(0, positions, rows):
            last = min(first + rows, positions)
            numbers = [H, W, C, Wo, *sizes, first, last, torch.get_num_threads(), *offset.stride()[1:], *mask.stride()[1:]]
            places = (tensor.data_ptr() for tensor in (image[a], offset[a], mask[a], columns))
            kernel(*places, (ctypes.c_int64 * len(numbers))(*numbers))
            tile = columns[: last - first].view(1, 1, last - first, T * C).permute(0, 3, 1, 2)  # channels_last, strides of ones too
            out[a, first:last] = F.conv2d(tile, product, bias, stride=stride, groups=groups)[0, :, 0].t()  # (rows, O)
    return _laid_out(out.view(A, *offset.shape[2:], num_out).permute(0, 3, 1, 2), input)


def _place(input: Tensor, shape: Sequence[int]) -> Tensor:
    """An output of a shape, for an input: its dtype and device, and its memory format where that is channels_last."""
    last = input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=memory_format)


def _laid_out(out: Tensor, input: Tensor) -> Tensor:
    """The output with the strides that belong to the input, of sizes 1 as well; no copy where it has them."""
    place = _place(input, out.shape)
    return out if out.stride() == place.stride() else place.copy_(out)


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

    Arguments and values as in `deform_conv2d`; contiguous.
    """
    if 0 in input.shape[2:]:
        input = F.pad(input, (0, 1, 0, 1))  # an empty map is zero everywhere, but grid_sample wants pixels
    A, C, H, W = input.shape
    num_out, _, kh, kw = weight.shape
    Ho, Wo = offset.shape[-2:]
    T, G = kh * kw, deform_groups
    wide = torch.promote_types(input.dtype, torch.float32)
    # where each tap would look without offset: (T, Ho, 1) and (T, 1, Wo)
    count = partial(torch.arange, dtype=wide, device=input.device)
    tap_y = count(kh).mul(dilation[0]).repeat_interleave(kw).view(T, 1, 1)
    tap_x = count(kw).mul(dilation[1]).repeat(kh).view(T, 1, 1)
    base_y = count(Ho).mul(stride[0]).sub(padding[0]).view(1, Ho, 1) + tap_y
    base_x = count(Wo).mul(stride[1]).sub(padding[1]).view(1, 1, Wo) + tap_x
    dy, dx = offset.to(wide).reshape(A * G, T, 2, Ho, Wo).unbind(2)  # each (A*G, T, Ho, Wo)
    y, x = _on_or_beside(base_y + dy, H), _on_or_beside(base_x + dx, W)
    # grid_sample with align_corners=False reads pixel (g + 1) * size / 2 - 1/2
    grid = torch.stack((x.mul(2).add(1).div(W).sub(1), y.mul(2).add(1).div(H).sub(1)), dim=-1)
    samples = F.grid_sample(
        input.to(wide).reshape(A * G, C // G, H, W),
        grid.view(A * G, T * Ho, Wo, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    columns = samples.view(A, G, C // G, T, Ho * Wo) * mask.to(wide).reshape(A, G, 1, T, Ho * Wo)
    columns = columns.to(input.dtype).view(A, groups, C // groups * T, Ho * Wo)  # channels outer, taps inner, as in the weight
    out = weight.reshape(groups, num_out // groups, C // groups * T) @ columns  # (A, groups, O/groups, Ho*Wo)
    out = out.view(A, num_out, Ho, Wo)
    return out if bias is None else out + bias.view(1, num_out, 1, 1)


def _on_or_beside(position: Tensor, size: int) -> Tensor:
    """Positions in pixels; what is far outside a map of `size` pixels, infinite or nan becomes a place just outside, where all is zero."""
    return position.nan_to_num(nan=-2.0).clamp(-2, size + 1)


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
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != input.dtype:
            raise ValueError(f"deform_conv2d: {name}: expected the input's dtype, {input.dtype}, got {tensor.dtype}")
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
    return _place(input, (input.shape[0], weight.shape[0], Ho, Wo))


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
