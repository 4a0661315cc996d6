"""Multi-scale deformable attention (MSDA; Zhu et al., "Deformable DETR", ICLR 2021) as a torch operator.

Each query looks at P points of every level and head around its reference point; what it reads there bilinearly is summed with
softmaxed weights. The operator stands in its *wide* form: reference points, offsets in pixels and logits go in, the location
arithmetic and the softmax are inside, so that every narrower vendor form can be cut out of it later.

A sample whose position is infinite or nan is outside and counts as zero. A logit that is nan or +inf makes the whole output of its head and
query nan. Positions, softmax and sums are float32 at least, whatever the dtypes: a bfloat16 position is off by half a pixel at 200.

On a CPU, values of float32 and bfloat16 run by a native kernel where there is one (`native`), within 1e-4 of the largest value from
`reference`, and nearer to exact arithmetic than that (bfloat16: and half a unit in the last place). Everything else runs as `reference`.

Letters: A images, S = sum of h*w, M heads, D head width, Q queries, L levels, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import native
from .recompute import recomputed_grads

_KERNELS = {dtype: f"occport_attention_{name}" for name, dtype in native.DTYPES.items()}


@torch.library.custom_op("occport::multi_scale_deformable_attention", mutates_args=())
def multi_scale_deformable_attention(
    value: Tensor, spatial_shapes: Sequence[int], reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor
) -> Tensor:
    """MSDA forward.

    Args:
        value: (A, S, M, D) of any float dtype, levels one after the other, each row-major.
        spatial_shapes: h, w of each level: 2*L ints.
        reference_points: (A, Q, L, 2) float, (x, y) in [0, 1] of the level's map.
        sampling_offsets: (A, Q, M, L, P, 2) float, (x, y) in pixels of the level.
        attention_logits: (A, Q, M, L, P) float, before the softmax over L*P.

    The last three may be of other float dtypes than the value; parts of a larger tensor are read where they lie.

    Returns:
        (A, Q, M*D), dtype of the value, contiguous.

    Raises:
        ValueError: shapes that do not fit together.
    """
    check_shapes(value, spatial_shapes, reference_points, sampling_offsets, attention_logits)
    others = (reference_points, sampling_offsets, attention_logits)
    simple = value.dtype in _KERNELS and all(other.dtype in _KERNELS for other in others)
    simple = simple and value.shape[1] < 2**30 and all(tensor.device.type == "cpu" and tensor.numel() for tensor in (value, *others))
    library = native.find().library if simple else None
    if library is None:
        return reference(value, spatial_shapes, reference_points, sampling_offsets, attention_logits)
    return _by_kernel(getattr(library, _KERNELS[value.dtype]), value, spatial_shapes, *(other.float() for other in others))


def _by_kernel(kernel: Any, value: Tensor, spatial_shapes: Sequence[int], centres: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """The operator by the native kernel: nothing empty, all but the value float32."""
    A, S, M, D = value.shape
    _, Q, _, L, P = logits.shape
    value, centres, offsets, logits = value.contiguous(), centres.contiguous(), _rows(offsets), _rows(logits)
    shapes = torch.tensor(spatial_shapes, dtype=torch.int64, device="cpu")
    strides = (*offsets.stride()[:2], *logits.stride()[:2])
    sizes = torch.tensor([A, S, M, D, Q, L, P, torch.get_num_threads(), *strides], dtype=torch.int64, device="cpu")
    out = value.new_empty(A, Q, M * D)
    kernel(*(tensor.data_ptr() for tensor in (value, shapes, centres, offsets, logits, out, sizes)))
    return out


def _rows(tensor: Tensor) -> Tensor:
    """(A, Q, ...) with what belongs to a query contiguous: a copy only where it is not."""
    return tensor if tensor[0, 0].is_contiguous() else tensor.contiguous()


def reference(
    value: Tensor, spatial_shapes: Sequence[int], reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor
) -> Tensor:
    """The operator in differentiable torch calls. Arguments and result as in `multi_scale_deformable_attention`."""
    A, Q, M, L, P = attention_logits.shape
    wide = _wide(value, reference_points, sampling_offsets, attention_logits)
    offsets = sampling_offsets.to(wide)
    size = offsets.new_tensor(spatial_shapes).view(L, 2).flip(1)  # (L, 2) as (w, h)
    locations = reference_points.to(wide)[:, :, None, :, None, :] + offsets / size[:, None, :]
    weights = attention_logits.to(wide).reshape(A, Q, M, L * P).softmax(-1).view(A, Q, M, L, P)
    return sample_weighted(value, spatial_shapes, locations, weights)


def sample_weighted(value: Tensor, spatial_shapes: Sequence[int], sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """The narrow form: what mmcv's CUDA kernel computes. One `grid_sample` per level.

    Args:
        value, spatial_shapes: as in `multi_scale_deformable_attention`.
        sampling_locations: (A, Q, M, L, P, 2) float, (x, y) in [0, 1]; location u is pixel u*w - 1/2, outside counts as zero.
        attention_weights: (A, Q, M, L, P) float, already softmaxed.

    Returns:
        (A, Q, M*D), dtype of the value.
    """
    A, S, M, D = value.shape
    _, Q, _, L, P, _ = sampling_locations.shape
    wide = _wide(value, sampling_locations, attention_weights)
    grids = sampling_locations.to(wide).mul(2).sub(1)
    # what is far outside, infinite or nan becomes a place outside a map of any size, where all is zero: grid_sample makes nan of it
    grids = grids.nan_to_num(nan=-3.0).clamp(-3, 3)
    grids = grids.permute(3, 0, 2, 1, 4, 5).reshape(L, A * M, Q, P, 2)
    weights = attention_weights.to(wide).permute(3, 0, 2, 1, 4).reshape(L, A * M, 1, Q, P)
    maps = value.to(wide).permute(0, 2, 3, 1).reshape(A * M, D, S)  # heads next to images
    out = maps.new_zeros(())
    start = 0
    for level in range(L):
        h, w = spatial_shapes[2 * level : 2 * level + 2]
        image = maps[:, :, start : start + h * w].view(A * M, D, h, w)
        samples = F.grid_sample(image, grids[level], mode="bilinear", padding_mode="zeros", align_corners=False)  # (A*M, D, Q, P)
        out = out + (samples * weights[level]).sum(-1)
        start += h * w
    return out.view(A, M * D, Q).transpose(1, 2).to(value.dtype).contiguous()


def _wide(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: float64 where one of them is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def check_shapes(
    value: Tensor, spatial_shapes: Sequence[int], reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor
) -> None:
    """ValueError where the shapes of `multi_scale_deformable_attention` do not fit together."""
    if not spatial_shapes or len(spatial_shapes) % 2 or min(spatial_shapes) < 1:
        raise ValueError(f"multi_scale_deformable_attention: spatial_shapes: expected h, w of each level, got {list(spatial_shapes)}")
    for name, tensor, rank in (("value", value, 4), ("attention_logits", attention_logits, 5)):
        if tensor.dim() != rank:
            raise ValueError(f"multi_scale_deformable_attention: {name}: expected {rank} dimensions, got {tuple(tensor.shape)}")
    A, _, M, _ = value.shape
    L = len(spatial_shapes) // 2
    _, Q, _, _, P = attention_logits.shape
    rows = sum(spatial_shapes[2 * level] * spatial_shapes[2 * level + 1] for level in range(L))
    wanted = (
        ("value", value, (A, rows, M, value.shape[3])),
        ("reference_points", reference_points, (A, Q, L, 2)),
        ("sampling_offsets", sampling_offsets, (A, Q, M, L, P, 2)),
        ("attention_logits", attention_logits, (A, Q, M, L, P)),
    )
    for name, tensor, shape in wanted:
        if tuple(tensor.shape) != shape:
            got = f"{tuple(tensor.shape)} (levels {list(spatial_shapes)})"
            raise ValueError(f"multi_scale_deformable_attention: {name}: expected {shape}, got {got}")


@multi_scale_deformable_attention.register_fake
def _shape(
    value: Tensor, spatial_shapes: Sequence[int], reference_points: Tensor, sampling_offsets: Tensor, attention_logits: Tensor
) -> Tensor:
    check_shapes(value, spatial_shapes, reference_points, sampling_offsets, attention_logits)
    A, Q = attention_logits.shape[:2]
    return value.new_empty(A, Q, value.shape[2] * value.shape[3])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.spatial_shapes, *others = inputs
    ctx.save_for_backward(value, *others)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:])
    value, *others = recomputed_grads(
        lambda tensors: reference(tensors[0], ctx.spatial_shapes, tensors[1], tensors[2], tensors[3]), ctx.saved_tensors, needed, grad
    )
    return (value, None, *others)


multi_scale_deformable_attention.register_autograd(_backward, setup_context=_save)
