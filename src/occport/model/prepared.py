"""A network made ready for inference: the same forward and the same numbers to rounding, several times as fast on a CPU.

What changes are child modules and the layout of weights, never the code of a forward:

- a BatchNorm becomes part of the convolution before it, deformable ones too;
- the neck's last convolution and the 1x1 convolution that alone reads it are one: 13 % of all products are saved;
- weights and images are channels_last, which oneDNN and the native kernels want;
- large images run one after the other, so that the activations stay small and near the processor;
- volumes are channels_last with z outermost, as the attention leaves them;
- a bottleneck adds its last convolution to the shortcut in place;
- in bf16 and fp16 the convolutions of images and of the levels' volumes run in that type; geometry, attention, normalisation and the
  decoder stay in float32.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..ops.group_norm import group_norm_relu
from .attention import EncoderLayer
from .backbone import Bottleneck, ModulatedDeformConv, ResNet
from .neck import FPN, NamedConv
from .surroundocc import SurroundOcc

PRECISIONS = ("fp32", "bf16", "fp16")
LONG = 6  # blocks of a stage
TOGETHER = 2**20  # pixels of images that run at a time, or one image: weights are reordered for each, activations grow with all
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepared(model: SurroundOcc, precision: str = "fp32") -> SurroundOcc:
    """A copy of the network, ready for inference; the network itself stays as it is. Args, Errors: as `prepare_`."""
    return prepare_(copy.deepcopy(model), precision)


def prepare_(model: SurroundOcc, precision: str = "fp32") -> SurroundOcc:
    """Makes a network ready for inference, in place: to be run without gradients. Its state dict is no longer the checkpoint's, and its
    `features` are what the attention reads, behind the levels' 1x1 convolutions.

    Args:
        model: in eval mode, float32, on any device.
        precision: of convolutions, one of PRECISIONS. Images in and logits out are float32 in each.

    Returns: the network.
    Errors: ValueError for a network in training mode, of another dtype, one that is prepared already, and an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if model.training or next(model.parameters()).dtype != torch.float32:
        raise ValueError("the network: expected one in eval mode with float32 weights; call its eval() and float() first")
    if isinstance(model.img_backbone, _ByCamera):
        raise ValueError("the network: expected one that is not prepared yet, got one that is")
    with torch.no_grad():
        for module in list(model.modules()):
            if isinstance(module, Bottleneck | ResNet):
                _fold(module)
            elif isinstance(module, nn.ReLU):
                module.inplace = True
        _join(model.img_neck, model.pts_bbox_head.transfer_conv)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | ModulatedDeformConv):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        _arrange(model, DTYPES[precision])
    return model


def _arrange(model: SurroundOcc, dtype: torch.dtype) -> None:
    """Images in the dtype as far as the attention, volumes in it inside the convolutions; everything else stays in float32."""
    head, backbone = model.pts_bbox_head, model.img_backbone
    for name in ("layer1", "layer2", "layer3", "layer4"):
        blocks = [_Block(block) for block in getattr(backbone, name) if isinstance(block, Bottleneck)]
        wide = dtype != torch.float32 and len(blocks) > LONG
        _put(backbone, name, _WideStage(blocks) if wide else nn.Sequential(*blocks))
    for owner in [*backbone.modules(), *model.img_neck.modules()]:
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1) and name != "conv3":
                _put(owner, name, _Pointwise(child))
    _put(model, "img_backbone", _ByCamera(backbone, model.img_neck, head.transfer_conv).to(dtype))
    _put(model, "img_neck", nn.Identity())
    head.transfer_conv = nn.ModuleList(nn.Identity() for _ in head.transfer_conv)
    for owner in list(head.modules()):
        if isinstance(owner, EncoderLayer):
            owner.deblock = _volumes(owner.deblock, dtype)
    head.deblocks = _volumes(head.deblocks, torch.float32)  # the nearest to the labels


def _volumes(blocks: nn.ModuleList, dtype: torch.dtype) -> nn.ModuleList:
    return nn.ModuleList(_Volume(block, dtype) for block in blocks if isinstance(block, nn.Sequential))


def _put(owner: nn.Module, name: str, child: nn.Module) -> None:
    """Another child under a name that has a type of its own."""
    assert name in owner._modules
    owner._modules[name] = child


class _Block(nn.Module):
    """A bottleneck whose sum is made in place of its shortcut: the first block of a stage has one of its own, the others' input is done."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.downsample = block.conv1, block.conv2, block.conv3, block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """(A, C, H, W) → (A, 4*width, H/stride, W/stride); x itself is overwritten where the block keeps its size."""
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        out, conv = self.inner(x), self.conv3
        if _in_onednn(out):
            attributes = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
            # its own ReLU would make 0 of NaN, and labels of a network that is broken
            torch.ops.mkldnn._convolution_pointwise_.binary(shortcut, out, conv.weight, conv.bias, *attributes, "add", 1.0, None, [], None)
            return shortcut.relu_()
        return shortcut.add_(conv(out)).relu_()

    def inner(self, x: Tensor) -> Tensor:
        """(A, C, H, W) → (A, width, H/stride, W/stride): everything before the last convolution."""
        out: Tensor = self.conv2(self.conv1(x).relu_()).relu_()
        return out


class _WideStage(nn.Module):
    """A long stage in half a precision with its sum in float32: what each block rounds off the sum would add up, block by block."""

    def __init__(self, blocks: list[_Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(A, C, H, W) → (A, 4*width, H/stride, W/stride), dtype of the input."""
        first, *others = (block for block in self.blocks if isinstance(block, _Block))
        total: Tensor = first(x).float()
        for block in others:
            total.add_(block.conv3(block.inner(total.to(x.dtype)))).relu_()
        return total.to(x.dtype)


class _Pointwise(nn.Module):
    """A 1x1 convolution by oneDNN: with a single thread PyTorch would take its own for one image, which is slow."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(A, C, H, W) → (A, O, H', W')."""
        conv = self.conv
        if x.dtype != torch.float32 or torch.get_num_threads() > 1 or not _in_onednn(x):
            same: Tensor = conv(x)
            return same
        attributes = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, conv.weight, conv.bias, *attributes, "none", [], None)
        return out


def _in_onednn(x: Tensor) -> bool:
    """Whether oneDNN can be called by itself: it also adds a convolution to what is there, with one rounding and in one pass."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise_"):
        return False
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


class _ByCamera(nn.Module):
    """Backbone, neck and the levels' 1x1 convolutions for a few images at a time: the activations are those of one large image."""

    def __init__(self, backbone: ResNet, neck: FPN, transfer: nn.ModuleList) -> None:
        super().__init__()
        self.backbone, self.neck, self.transfer = backbone, neck, transfer

    def forward(self, img: Tensor) -> tuple[Tensor, ...]:
        """(A, 3, H, W) → (A, C_i, h_i, w_i) of each level, fine to coarse, channels_last, in the dtype of the weights."""
        A, (height, width) = img.shape[0], img.shape[2:]
        count = max(1, TOGETHER // (height * width))
        found: list[Tensor] = []
        for first in range(0, A, count):
            some = img[first : first + count].to(self.backbone.conv1.weight.dtype, memory_format=torch.channels_last)
            feats = [block(feat) for block, feat in zip(self.transfer, self.neck(self.backbone(some)), strict=True)]
            if not found:
                found = [_room(feat, A) for feat in feats]
            for place, feat in zip(found, feats, strict=True):
                place[first : first + count] = feat
        return tuple(found)


def _room(feat: Tensor, count: int) -> Tensor:
    """(some, C, h, w) → (count, C, h, w), unset, channels_last."""
    return torch.empty((count, *feat.shape[1:]), dtype=feat.dtype, device=feat.device, memory_format=torch.channels_last)


class _Volume(nn.Module):
    """Convolution, norm and ReLU of a volume with z as its outermost axis and channels as the innermost, as the attention leaves it.

    Volumes are flat: with z innermost, most of what a convolution reads is padding.
    """

    def __init__(self, block: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__()
        conv, norm, _ = block
        assert isinstance(conv, nn.Conv3d | nn.ConvTranspose3d) and isinstance(norm, nn.GroupNorm)
        self.conv, self.norm = conv, norm
        weight = self.conv.weight.data.permute(0, 1, 4, 3, 2)
        self.conv.weight.data = weight.to(dtype).contiguous(memory_format=torch.channels_last_3d)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) → (B, C', X', Y', Z') float32."""
        turned = x.permute(0, 1, 4, 3, 2).to(self.dtype, memory_format=torch.channels_last_3d)
        norm = self.norm
        out = group_norm_relu(self.conv(turned), norm.num_groups, norm.weight, norm.bias, norm.eps)
        return out.permute(0, 1, 4, 3, 2)


def _fold(module: Bottleneck | ResNet) -> None:
    """Every BatchNorm of the module into the convolution before it."""
    for number in (1, 2, 3) if isinstance(module, Bottleneck) else (1,):
        conv, norm = getattr(module, f"conv{number}"), getattr(module, f"bn{number}")
        if isinstance(conv, ModulatedDeformConv):
            statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, None, *statistics)
        else:
            setattr(module, f"conv{number}", fuse_conv_bn_eval(conv, norm))
        setattr(module, f"bn{number}", nn.Identity())
    if isinstance(module, Bottleneck) and module.downsample is not None:
        conv, norm = module.downsample
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        module.downsample = nn.Sequential(fuse_conv_bn_eval(conv, norm))


def _join(neck: FPN, transfer: nn.ModuleList) -> None:
    """Each 3x3 convolution of the neck and the 1x1 convolution behind it, with nothing between them, as one; in double precision.

    W'[o, i] = sum over m of V[o, m] * W[m, i],    b' = V @ b + c
    """
    for lateral, block in zip(neck.fpn_convs, transfer, strict=True):
        assert isinstance(lateral, NamedConv) and isinstance(block, nn.Sequential)
        conv, pointwise = lateral.conv, block[0]
        assert isinstance(pointwise, nn.Conv2d) and conv.bias is not None and pointwise.bias is not None
        mix = pointwise.weight.double()[:, :, 0, 0]
        weight = (mix @ conv.weight.double().flatten(1)).float().view(-1, *conv.weight.shape[1:])
        joined = nn.Conv2d(conv.in_channels, pointwise.out_channels, 3, padding=1, device=weight.device).eval()
        joined.weight = nn.Parameter(weight)
        joined.bias = nn.Parameter((mix @ conv.bias.double() + pointwise.bias.double()).float())
        lateral.conv, block[0] = joined, nn.Identity()
