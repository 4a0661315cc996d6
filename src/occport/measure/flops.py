"""How much arithmetic a frame takes: floating-point operations of every operator from its shapes, a multiplication and an addition = 2.

Counted are products (convolutions, matrix products) and what the two operators of our own sample:

    deformable convolution   the product of the columns, as of a plain convolution, + 8 for each number of the columns (four corners)
    deformable attention     8 for each number sampled; the weights of corners and points are a few numbers for a whole row

The same frame can take less than the network as it is written, where two convolutions in a row have been made one; both are told.
Everything else (norms, activations, softmax, sums) is less than 1 % at the official size and counts as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..config import Config
from ..model.prepared import prepare_
from ..model.projection import LevelTable, Projection
from ..model.surroundocc import SurroundOcc
from .stages import StageClock

_CORNERS = 8  # of one bilinear sample: four multiplications and four additions


def of_columns(weight: Sequence[int], out: Sequence[int], channels: int) -> int:
    """DCNv2.

    Args:
        weight: (O, C/groups, kh, kw).
        out: (A, O, Ho, Wo).
        channels: C.
    """
    positions = out[0] * out[2] * out[3]
    return 2 * positions * prod(weight) + _CORNERS * positions * channels * weight[2] * weight[3]


def of_samples(logits: Sequence[int], width: int) -> int:
    """MSDA.

    Args:
        logits: (A, Q, M, L, P), of the attention.
        width: D of a head.
    """
    return _CORNERS * prod(logits) * width


def _deform_conv(args: Sequence[Any], out: Tensor) -> int:
    return of_columns(args[3].shape, out.shape, args[0].shape[1])


def _attention(args: Sequence[Any], out: Tensor) -> int:
    return of_samples(args[4].shape, args[0].shape[3])


def _convolution(args: Sequence[Any], out: Tensor) -> int:
    """oneDNN's own convolutions: (image, weight, bias, padding, ...), or (sum, image, weight, bias, ...) where it adds to a sum."""
    weight = args[1] if isinstance(args[3], list) else args[2]
    return int(2 * out.numel() * weight[0].numel())


_OWN: Mapping[str, Callable[[Sequence[Any], Tensor], int]] = {
    "mkldnn._convolution_pointwise": _convolution,
    "mkldnn._convolution_pointwise_": _convolution,
    "occport.deform_conv2d": _deform_conv,
    "occport.multi_scale_deformable_attention": _attention,
}


def of_call(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """Operations of one call, by the shapes of what goes in and comes out.

    Args:
        operator: a `torch._ops.OpOverload`, as a dispatch mode is given it.
    """
    packet = operator.overloadpacket
    if str(packet) in _OWN:
        return _OWN[str(packet)](args, out)
    formula = flop_registry.get(packet)
    return int(formula(*args, **kwargs, out_val=out)) if formula is not None else 0


class _ByStage(TorchDispatchMode):
    """Adds up operations under the stage that the clock is in."""

    def __init__(self, clock: StageClock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock
        self.found: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = of_call(func, args, kwargs or {}, out)
        if count:
            self.found[self._clock.stage] = self.found.get(self._clock.stage, 0) + count
        return out


def parameters_of(config: Config) -> int:
    """Numbers of a network that are trained; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SurroundOcc(config).parameters())


def flops_of_stages(
    config: Config, image: Sequence[int], lidar2img: Tensor | Sequence[object], *, ready: bool = False
) -> dict[str, int]:  # fmt: skip
    """Operations of one exact frame by stage; stages without any are left out. Nothing is computed but which camera sees which voxel.

    Args:
        config: of the network.
        image: (B, N, 3, H, W), the shape of the padded images.
        lidar2img: (B, N, 4, 4) float32 on the CPU, or (N, 4, 4) nested lists; it decides how many slots the attention has.
        ready: of the network made ready for inference, instead of the network as it is.
    """
    with torch.device("meta"):
        network = SurroundOcc(config).eval()
    if ready:
        prepare_(network)
    rig = torch.as_tensor(lidar2img, dtype=torch.float32).reshape(-1, config.num_cameras, 4, 4)
    tables = _tables(config, rig, (image[-2], image[-1]))
    clock = StageClock(network)
    counted = _ByStage(clock)
    with torch.no_grad(), clock.running(), counted:
        network.logits(torch.empty(tuple(image), device="meta"), tables)
    return counted.found


def _tables(config: Config, lidar2img: Tensor, image_hw: tuple[int, int]) -> tuple[LevelTable, ...]:
    """As large as this calibration needs them, without their numbers."""
    with torch.no_grad():
        tables, _ = Projection(config.levels, config.pc_range)(lidar2img, image_hw, None)
    return tuple(LevelTable(*(tensor.to("meta") for tensor in table)) for table in tables)
