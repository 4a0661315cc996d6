"""Operations counted by hand, and those of the official network."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from exporting import ROOT, TINY
from occport.config import read_config
from occport.frames.rig import nuscenes_like_rig
from occport.measure.flops import flops_of_stages, of_columns, of_samples
from occport.measure.operators import Operator, OperatorClock, summed
from occport.ops.deform_conv import deform_conv2d
from occport.ops.msda import multi_scale_deformable_attention


def counted(call) -> dict[str, Operator]:
    clock = OperatorClock(lambda: None)
    with torch.no_grad(), clock:
        call()
    return {each.name: each for each in clock.found()}


def test_a_convolution():
    found = counted(lambda: F.conv2d(torch.rand(2, 6, 5, 7), torch.rand(4, 3, 3, 3), groups=2))
    assert found["aten.convolution"].flops == 2 * (2 * 4 * 3 * 5) * (3 * 3 * 3)
    assert found["aten.convolution"].calls == 1


def test_a_transposed_convolution():
    found = counted(lambda: F.conv_transpose3d(torch.rand(1, 4, 2, 3, 5), torch.rand(4, 6, 2, 2, 2), stride=2))
    assert found["aten.convolution"].flops == 2 * (4 * 2 * 3 * 5) * (6 * 8)


def test_a_matrix_product():
    assert counted(lambda: F.linear(torch.rand(5, 3), torch.rand(4, 3), torch.rand(4)))["aten.addmm"].flops == 2 * 5 * 3 * 4


def test_a_deformable_convolution_is_one_operator():
    A, C, out, H, W = 2, 4, 6, 5, 7
    offset, mask = torch.rand(A, 18, H, W), torch.rand(A, 9, H, W)
    found = counted(
        lambda: deform_conv2d(torch.rand(A, C, H, W), offset, mask, torch.rand(out, C, 3, 3), None, [1, 1], [1, 1], [1, 1], 1, 1)
    )
    product, corners = 2 * A * H * W * out * C * 9, 8 * A * H * W * C * 9
    assert found["occport.deform_conv2d"].flops == product + corners == of_columns((out, C, 3, 3), (A, out, H, W), C)
    assert "aten.grid_sampler_2d" not in found, "what it calls is its own"


def test_deformable_attention():
    A, Q, M, P, D, h, w = 2, 5, 3, 4, 8, 6, 7
    found = counted(
        lambda: multi_scale_deformable_attention(
            torch.rand(A, h * w, M, D), [h, w], torch.rand(A, Q, 1, 2), torch.rand(A, Q, M, 1, P, 2), torch.rand(A, Q, M, 1, P)
        )
    )
    assert found["occport.multi_scale_deformable_attention"].flops == A * Q * M * P * D * 8 == of_samples((A, Q, M, 1, P), D)


def test_what_is_no_product_counts_nothing():
    found = counted(lambda: torch.rand(3, 3).relu())
    assert found["aten.relu"].flops == 0 and found["aten.relu"].seconds >= 0


def rig_of(config) -> torch.Tensor:
    _, rig = nuscenes_like_rig(config.num_cameras, *config.image.size)
    return torch.from_numpy(rig[None]).float()


def test_of_the_official_network():
    """2.32 tera multiply-adds, as exporter-notes has it; what the custom operators sample is 0.4 % of it."""
    config = read_config(ROOT / "projects/configs/surroundocc/surroundocc.py")
    found = flops_of_stages(config, (1, 6, 3, 928, 1600), rig_of(config))
    assert sum(found.values()) / 2e12 == pytest.approx(2.32, abs=0.01)
    assert list(found) == ["backbone", "neck", "level 0", "level 1", "level 2", "decoder"]
    assert found["neck"] == 2 * 6 * sum(
        h * w * (512 * channels + 512 * 512 * 9) for (h, w), channels in (((116, 200), 512), ((58, 100), 1024), ((29, 50), 2048))
    )


def test_twice_the_samples_are_twice_the_work():
    config = read_config(TINY)
    rig = rig_of(config)
    one = flops_of_stages(config, (1, 4, 3, 64, 96), rig)
    two = flops_of_stages(config, (2, 4, 3, 64, 96), rig.repeat(2, 1, 1, 1))
    # of the queries alone, which are the same for all samples, the first layer's projections are made once for each
    assert two == {stage: 2 * count for stage, count in one.items()}


def test_calls_are_joined_by_name():
    calls = [Operator("a", 1, 1.0, 10), Operator("b", 1, 5.0, 0), Operator("a", 1, 3.0, 30)]
    assert summed(calls) == (Operator("b", 1, 5.0, 0), Operator("a", 2, 4.0, 40))
    assert summed(calls, frames=2) == (Operator("b", 0, 2.5, 0), Operator("a", 1, 2.0, 20))


@torch.no_grad()
def test_the_convolutions_that_onednn_is_asked_for_by_itself():
    image = torch.ones(1, 8, 5, 6).contiguous(memory_format=torch.channels_last)
    weight, total = torch.ones(16, 8, 1, 1), torch.zeros(1, 16, 5, 6).contiguous(memory_format=torch.channels_last)
    attributes = ([0, 0], [1, 1], [1, 1], 1)
    with OperatorClock(lambda: None) as clock:
        torch.ops.mkldnn._convolution_pointwise(image, weight, None, *attributes, "none", [], None)
        torch.ops.mkldnn._convolution_pointwise_.binary(total, image, weight, None, *attributes, "add", 1.0, None, [], None)
    assert [operator.flops for operator in clock.found()] == [2 * 16 * 8 * 5 * 6] * 2
    assert (total == 8).all()
