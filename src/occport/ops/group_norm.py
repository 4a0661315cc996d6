"""Group normalisation and ReLU of volumes whose channels are innermost (Wu and He, ECCV 2018), for inference.

PyTorch's own adds up a million values in float32 where a volume is channels_last, and loses digits that a comparison would see. For
contiguous volumes it is exact, but those would have to be copied there and back.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from . import native

_KERNELS = {dtype: f"occport_group_norm_{name}" for name, dtype in native.DTYPES.items()}


def group_norm_relu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalises over each sample's groups of channels, scales, shifts, and takes ReLU.

    Args:
        x: (B, C, ...) of any float dtype; channels_last_3d is fastest.
        groups: divides C.
        weight, bias: (C) float32.
        eps: added to the variance.

    Returns: (B, C, ...) float32, in the memory format of `x` where a kernel runs, else contiguous.
    """
    kernel = _KERNELS.get(x.dtype)
    library = native.find().library if kernel and x.device.type == "cpu" and x.numel() else None
    if library is None or not kernel:
        return torch.group_norm(x.float().contiguous(), groups, weight, bias, eps).relu_()
    rows = x.movedim(1, -1).contiguous()  # (B, ..., C), no copy of what is channels_last
    out = torch.empty_like(rows, dtype=torch.float32)
    threads = torch.get_num_threads()
    sums = torch.empty(threads, 2, x.shape[1], dtype=torch.float64)
    scale, shift = weight.contiguous(), bias.contiguous()
    numbers = [x.shape[0], x[0, 0].numel(), x.shape[1], groups, threads, round(eps * 1e12)]
    places = (tensor.data_ptr() for tensor in (rows, scale, shift, out, sums))
    getattr(library, kernel)(*places, (ctypes.c_int64 * len(numbers))(*numbers))
    return out.movedim(-1, 1)
