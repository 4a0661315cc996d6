"""Feature pyramid network without extra levels (Lin et al., CVPR 2017; mmdet 2.14 `FPN`)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import NeckConfig


class NamedConv(nn.Module):
    """A convolution under the name `conv`, where mmcv's ConvModule keeps it."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(A, C, h, w) → (A, out, h, w)."""
        out: Tensor = self.conv(x)
        return out


class FPN(nn.Module):
    """Lateral 1x1 convolutions, nearest up-sampling from coarse to fine, 3x3 convolutions; biases, no norm, no activation."""

    def __init__(self, config: NeckConfig) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(NamedConv(channels, config.out_channels, 1) for channels in config.in_channels)
        self.fpn_convs = nn.ModuleList(NamedConv(config.out_channels, config.out_channels, 3) for _ in config.in_channels)

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Maps (A, C_i, h_i, w_i), fine to coarse → maps (A, C, h_i, w_i), fine to coarse."""
        laterals = [conv(feat) for conv, feat in zip(self.lateral_convs, feats, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            fine = laterals[i - 1]
            laterals[i - 1] = fine + F.interpolate(laterals[i], size=fine.shape[-2:], mode="nearest")
        return tuple(conv(lateral) for conv, lateral in zip(self.fpn_convs, laterals, strict=True))
