"""The feature pyramid: laterals, nearest up-sampling from coarse to fine, 3x3 convolutions; nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from occport.config import NeckConfig
from occport.model.neck import FPN


def enlarged(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest up-sampling by the definition: pixel i of n reads pixel floor(i * m / n) of m."""
    rows = [row * coarse.shape[2] // size[0] for row in range(size[0])]
    columns = [column * coarse.shape[3] // size[1] for column in range(size[1])]
    return coarse[:, :, rows][:, :, :, columns]


@pytest.mark.parametrize("sizes", [((12, 20), (6, 10), (3, 5)), ((7, 9), (4, 5), (2, 3))], ids=["halves", "odd"])
@torch.no_grad()
def test_written_out(sizes: tuple[tuple[int, int], ...]):
    neck = FPN(NeckConfig(in_channels=(3, 4, 5), out_channels=6)).double()
    rng = np.random.default_rng(0)
    feats = tuple(torch.from_numpy(rng.normal(size=(2, channels, *size))) for channels, size in zip((3, 4, 5), sizes, strict=True))
    laterals = [
        torch.einsum("oc,achw->aohw", conv.conv.weight[:, :, 0, 0], feat) + conv.conv.bias.view(1, -1, 1, 1)
        for conv, feat in zip(neck.lateral_convs, feats, strict=True)
    ]
    middle = laterals[1] + enlarged(laterals[2], sizes[1])
    fine = laterals[0] + enlarged(middle, sizes[0])
    expected = [
        F.conv2d(lateral, conv.conv.weight, conv.conv.bias, padding=1)
        for lateral, conv in zip((fine, middle, laterals[2]), neck.fpn_convs, strict=True)
    ]
    out = neck(feats)
    assert len(out) == 3
    for got, wanted in zip(out, expected, strict=True):
        torch.testing.assert_close(got, wanted)
    assert min(got.min() for got in out) < 0  # no activation


def test_the_official_number_of_weights():
    with torch.device("meta"):
        neck = FPN(NeckConfig(in_channels=(512, 1024, 2048), out_channels=512))
    assert round(sum(parameter.numel() for parameter in neck.parameters()) / 1e6, 1) == 8.9
    assert sorted(neck.state_dict()) == sorted(
        f"{kind}_convs.{level}.conv.{part}" for kind in ("fpn", "lateral") for level in range(3) for part in ("bias", "weight")
    )


@torch.no_grad()
def test_the_input_maps_stay_as_they_were():
    neck = FPN(NeckConfig(in_channels=(2, 2, 2), out_channels=2))
    feats = tuple(torch.ones(1, 2, size, size) for size in (4, 2, 1))
    neck(feats)
    assert all(torch.equal(feat, torch.ones_like(feat)) for feat in feats)
