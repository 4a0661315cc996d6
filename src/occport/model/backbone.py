"""ResNet-50/101 in Caffe's style with deformable convolutions, as mmdet 2.14 builds it (He et al. 2016; Zhu et al. 2019).

"Caffe's style": the stride of stages 2 to 4 sits in the first 1x1 convolution, not in the 3x3. Attribute names are the
checkpoint's. A = B*N images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import BackboneConfig
from ..ops.deform_conv import deform_conv2d

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # bottlenecks of each stage
TAPS = 9  # of a 3x3 kernel


class ModulatedDeformConv(nn.Module):
    """3x3 DCNv2 that predicts its own offsets and mask from its input (mmcv `ModulatedDeformConv2dPack`)."""

    def __init__(self, channels: int, deform_groups: int) -> None:
        super().__init__()
        self.deform_groups = deform_groups
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.conv_offset = nn.Conv2d(channels, deform_groups * 3 * TAPS, 3, padding=1)
        self.register_parameter("bias", None)  # of no checkpoint; a prepared network keeps its folded BatchNorm here
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(A, C, H, W) → (A, C, H, W), stride 1, padding 1."""
        groups = self.deform_groups
        # upstream chunks into o1, o2, mask and joins o1 and o2 again: the first two thirds are the offsets
        offset, mask = self.conv_offset(x).split([groups * 2 * TAPS, groups * TAPS], dim=1)
        out: Tensor = deform_conv2d(x, offset, mask.sigmoid(), self.weight, self.bias, [1, 1], [1, 1], [1, 1], 1, groups)
        return out


class Bottleneck(nn.Module):
    """1x1 (with the stride), 3x3 or DCNv2, 1x1 to four times the width; plus the shortcut."""

    def __init__(self, channels: int, width: int, stride: int, *, deform_groups: int, project: bool) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = ModulatedDeformConv(width, deform_groups) if deform_groups else nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """(A, C, H, W) → (A, 4*width, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return out


class ResNet(nn.Module):
    """The image backbone. `channels` and `strides` say what `forward` returns."""

    channels = (512, 1024, 2048)
    strides = (8, 16, 32)

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages, channels = [], 64
        for stage, count in enumerate(BLOCKS[config.depth]):
            width = 64 * 2**stage
            deform_groups = config.deform_groups if config.stage_with_dcn[stage] else 0
            blocks = []
            for block in range(count):
                first = block == 0
                stride = 2 if first and stage else 1
                blocks.append(Bottleneck(channels, width, stride, deform_groups=deform_groups, project=first))
                channels = 4 * width
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, img: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(A, 3, H, W) → (A, 512, H/8, W/8), (A, 1024, H/16, W/16), (A, 2048, H/32, W/32)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(img))))
        fine = self.layer2(self.layer1(x))
        middle = self.layer3(fine)
        return fine, middle, self.layer4(middle)
