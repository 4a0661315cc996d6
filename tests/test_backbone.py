"""The image backbone: its sizes, where strides and deformable convolutions sit, and a bottleneck written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occport.config import BackboneConfig
from occport.model.backbone import BLOCKS, Bottleneck, ModulatedDeformConv, ResNet
from test_deform_conv import Case, by_loops

OFFICIAL = BackboneConfig(depth=101, stage_with_dcn=(False, False, True, True), deform_groups=1)
SMALL = BackboneConfig(depth=50, stage_with_dcn=(False, False, True, True), deform_groups=1)


def seeded(module: nn.Module, seed: int) -> nn.Module:
    """Random weights and statistics everywhere; float64."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.double().state_dict().items():
        if tensor.is_floating_point():
            value = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / 2
            tensor.copy_(value.exp() if name.endswith("running_var") else value)
    return module.eval()


def stages(net: ResNet) -> list[nn.Sequential]:
    return [net.layer1, net.layer2, net.layer3, net.layer4]


@pytest.mark.parametrize("config", [SMALL, OFFICIAL], ids=["50", "101"])
def test_where_strides_and_deformable_convolutions_sit(config: BackboneConfig):
    with torch.device("meta"):
        net = ResNet(config)
    assert [len(stage) for stage in stages(net)] == list(BLOCKS[config.depth]) == [3, 4, 6 if config.depth == 50 else 23, 3]
    for number, stage in enumerate(stages(net)):
        for index, block in enumerate(stage):
            first = index == 0
            stride = (2, 2) if first and number > 0 else (1, 1)
            assert block.conv1.stride == stride and block.conv1.kernel_size == (1, 1)
            assert isinstance(block.conv2, ModulatedDeformConv if number >= 2 else nn.Conv2d)
            if number < 2:
                assert block.conv2.stride == (1, 1) and block.conv2.padding == (1, 1) and block.conv2.kernel_size == (3, 3)
            assert (block.downsample is not None) == first
            if first:
                assert block.downsample[0].stride == stride and block.downsample[0].kernel_size == (1, 1)
            assert block.conv1.out_channels == 64 * 2**number and block.conv3.out_channels == 256 * 2**number
    assert all(norm.eps == 1e-5 for norm in net.modules() if isinstance(norm, nn.BatchNorm2d))
    assert sum(isinstance(module, ModulatedDeformConv) for module in net.modules()) == (26 if config.depth == 101 else 9)


def test_the_official_number_of_weights():
    with torch.device("meta"):
        net = ResNet(OFFICIAL)
    assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 1) == 44.3


@torch.no_grad()
def test_what_it_returns():
    out = ResNet(SMALL).eval()(torch.randn(2, 3, 64, 96))
    assert [tuple(feat.shape) for feat in out] == [
        (2, channels, 64 // stride, 96 // stride) for channels, stride in zip(ResNet.channels, ResNet.strides, strict=True)
    ]
    assert ResNet.channels == (512, 1024, 2048) and ResNet.strides == (8, 16, 32)
    assert all((feat >= 0).all() and feat.any() for feat in out)  # each stage ends in a ReLU


@torch.no_grad()
def test_the_stem_written_out():
    """Stages are replaced by taps, so that what reaches the first one is seen: 7x7/2, BN, ReLU, max-pool 3/2."""
    net = seeded(ResNet(SMALL), 1)
    img = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    net.layer1 = net.layer2 = net.layer3 = net.layer4 = nn.Identity()
    x = F.conv2d(img, net.conv1.weight, stride=2, padding=3)
    expected = F.max_pool2d(batch_norm(x, net.bn1).clamp(min=0), 3, 2, 1)
    assert expected.shape == (1, 64, 8, 16)
    torch.testing.assert_close(net(img)[0], expected)


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Evaluation mode, by the formula."""
    per_channel = (value.view(1, -1, 1, 1) for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    mean, var, weight, bias = per_channel
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def deform_by_loops(x: Tensor, conv: ModulatedDeformConv) -> Tensor:
    """DCNv2 as upstream words it: chunk into o1, o2, mask; join the offsets again; sigmoid of the mask."""
    o1, o2, mask = torch.chunk(F.conv2d(x, conv.conv_offset.weight, conv.conv_offset.bias, padding=1), 3, dim=1)
    offset = torch.cat([o1, o2], dim=1)
    case = Case(x, offset, torch.sigmoid(mask), conv.weight, None, [1, 1], [1, 1], [1, 1], 1, conv.deform_groups)
    return torch.from_numpy(by_loops(case))


@pytest.mark.parametrize(("stride", "project", "deform_groups"), [(2, True, 1), (1, False, 1), (1, True, 2), (2, True, 0), (1, False, 0)])
@torch.no_grad()
def test_a_bottleneck_written_out(stride: int, project: bool, deform_groups: int):
    width = 4
    channels = 6 if project else 4 * width
    block = seeded(Bottleneck(channels, width, stride, deform_groups=deform_groups, project=project), 2)
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(2, channels, 6, 8)))
    y = batch_norm(torch.einsum("oc,achw->aohw", block.conv1.weight[:, :, 0, 0], x[:, :, ::stride, ::stride]), block.bn1).clamp(min=0)
    y = deform_by_loops(y, block.conv2) if deform_groups else F.conv2d(y, block.conv2.weight, padding=1)
    y = batch_norm(y, block.bn2).clamp(min=0)
    y = batch_norm(torch.einsum("oc,achw->aohw", block.conv3.weight[:, :, 0, 0], y), block.bn3)
    shortcut = x
    if project:
        shortcut = torch.einsum("oc,achw->aohw", block.downsample[0].weight[:, :, 0, 0], x[:, :, ::stride, ::stride])
        shortcut = batch_norm(shortcut, block.downsample[1])
    torch.testing.assert_close(block(x), (y + shortcut).clamp(min=0))


@torch.no_grad()
def test_a_fresh_deformable_convolution_is_usable():
    """No weight is left as memory had it."""
    conv = ModulatedDeformConv(8, 1)
    assert conv.weight.isfinite().all() and 0.1 < conv.weight.std() < 0.3
    assert conv(torch.randn(1, 8, 5, 5)).isfinite().all()


def test_dcn_in_other_stages():
    with torch.device("meta"):
        net = ResNet(BackboneConfig(depth=50, stage_with_dcn=(False, True, False, True), deform_groups=2))
    assert [isinstance(stage[0].conv2, ModulatedDeformConv) for stage in stages(net)] == [False, True, False, True]
    assert net.layer2[0].conv2.conv_offset.out_channels == 2 * 27
