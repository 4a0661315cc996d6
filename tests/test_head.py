"""The occupancy head: what each level is given, and the decoder written out."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occport.config import Config, DecoderConfig, read_config
from occport.model.head import OccHead
from occport.model.projection import LevelTable, Projection
from reference import CONFIGS, recipe


@cache
def config() -> Config:
    return read_config(CONFIGS / "surroundocc_micro.py")


@cache
def head() -> OccHead:
    """With the recipe's weights. Shared between tests: do not change it."""
    return filled(OccHead(config()))


def filled(made: OccHead) -> OccHead:
    with torch.no_grad():
        for key, tensor in made.state_dict().items():
            tensor.copy_(torch.from_numpy(recipe().value(f"pts_bbox_head.{key}", tensor.shape)))
    return made.eval()


@cache
def volumes() -> tuple[Tensor, ...]:
    """Random volumes (B, C, X, Y, Z), fine to coarse."""
    rng = np.random.default_rng(0)
    return tuple(
        torch.from_numpy(rng.normal(size=(2, level.width, level.volume_w, level.volume_h, level.volume_z)).astype(np.float32))
        for level in config().levels
    )


def block(x: Tensor, layers: nn.Sequential, up: bool) -> Tensor:
    """Convolution or transposed convolution, GroupNorm of 16 groups, ReLU, from the weights alone."""
    if up:
        x = F.conv_transpose3d(x, layers[0].weight, stride=2)
    else:
        x = F.conv3d(x, layers[0].weight, padding=1)
    return F.relu(F.group_norm(x, 16, layers[1].weight, layers[1].bias, 1e-5))


@torch.no_grad()
def test_decoder_written_out():
    blocks, occ = head().deblocks, head().occ
    fine, middle, coarse = volumes()
    x0 = block(coarse, blocks[0], up=False)
    x1 = block(x0, blocks[1], up=True) + middle
    x2 = block(x1, blocks[2], up=False)
    x3 = block(x2, blocks[3], up=True) + fine
    x4 = block(x3, blocks[4], up=False)
    x5 = block(x4, blocks[5], up=True)  # no finer volume to add
    x6 = block(x5, blocks[6], up=False)
    expected = [torch.einsum("oc,bcxyz->boxyz", conv.weight[:, :, 0, 0, 0], x) for conv, x in zip(occ, (x0, x2, x4, x6), strict=True)]
    got = head().decode(list(volumes()))
    assert [tuple(logits.shape) for logits in got] == [(2, 17, *size) for size in config().output_sizes]
    for logits, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_decode_leaves_its_argument():
    given = list(volumes())
    head().decode(given)
    assert len(given) == 3 and all(a is b for a, b in zip(given, volumes(), strict=True))


@pytest.mark.parametrize("level", [0, 1, 2])
@torch.no_grad()
def test_a_volume_reaches_its_scale_and_the_finer_ones(level: int):
    changed = list(volumes())
    changed[level] = changed[level] + 1
    pairs = zip(head().decode(list(volumes())), head().decode(changed), strict=True)
    assert [not torch.equal(a, b) for a, b in pairs] == [scale >= 2 - level for scale in range(4)]


class Recorder(nn.Module):
    """Stands for a level's transformer and keeps what it is given."""

    def forward(self, queries: Tensor, feat: Tensor, table: LevelTable) -> Tensor:
        self.given = queries, feat, table
        return feat


@torch.no_grad()
def test_each_level_gets_its_queries_features_and_table():
    head = filled(OccHead(config()))
    head.transformer = nn.ModuleList(Recorder() for _ in range(3))
    feats = tuple(torch.randn(6, 128, size, size) for size in (4, 3, 2))
    tables, _ = Projection(config().levels, config().pc_range)(torch.eye(4).expand(1, 6, 4, 4), (64, 96), None)
    lifted = head.lift(feats, tables)
    for level, transformer in enumerate(head.transformer):
        queries, feat, table = transformer.given
        assert queries is head.volume_embedding[level].weight and table is tables[level]
        conv = head.transfer_conv[level][0]
        expected = torch.einsum("oc,achw->aohw", conv.weight[:, :, 0, 0], feats[level]) + conv.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(feat, expected.clamp(min=0), rtol=1e-4, atol=1e-4)
        assert lifted[level] is feat


@torch.no_grad()
def test_other_decoders():
    decoder = DecoderConfig(
        conv_input=(128, 64, 64, 32, 32), conv_output=(64, 64, 32, 32, 16), upsample_strides=(1, 2, 1, 2, 1), out_indices=(0, 2, 4)
    )
    made = OccHead(replace(config(), decoder=decoder, num_classes=1))
    got = made.decode(list(volumes()))
    assert [tuple(logits.shape) for logits in got] == [(2, 1, 4, 5, 1), (2, 1, 8, 10, 2), (2, 1, 16, 20, 4)]


def test_official_sizes():
    official = read_config(CONFIGS / "surroundocc.py")
    with torch.device("meta"):
        made = OccHead(official)
    assert [tuple(conv.weight.shape) for conv in made.occ] == [(17, channels, 1, 1, 1) for channels in (256, 128, 64, 32)]
    kinds = [type(layers[0]) for layers in made.deblocks]
    assert kinds == [nn.Conv3d, nn.ConvTranspose3d] * 3 + [nn.Conv3d]
    assert all(layers[0].bias is None and layers[1].num_groups == 16 for layers in made.deblocks)
    decoder = sum(parameter.numel() for part in (made.deblocks, made.occ) for parameter in part.parameters())
    levels = sum(parameter.numel() for part in (made.transformer, made.transfer_conv) for parameter in part.parameters())
    queries = sum(parameter.numel() for parameter in made.volume_embedding.parameters())
    assert [round(count / 1e6, 1) for count in (decoder, queries, levels)] == [5.4, 13.4, 108.3]
