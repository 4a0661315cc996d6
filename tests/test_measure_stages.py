"""Time is shared among the stages without loss, and each module and node belongs to the right one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporting import TINY
from occport.config import read_config
from occport.frames.rig import nuscenes_like_rig
from occport.graph.stages import PATHS, REST, stage_of_node
from occport.measure.stages import PREPROCESS, STAGES, StageClock, synchroniser
from occport.model.prepared import prepared
from occport.model.surroundocc import build_model


class Ticks:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Work(nn.Module):
    """Takes its time before and after it calls another module."""

    def __init__(self, ticks: Ticks, before: float, inner: nn.Module | None = None, after: float = 0.0) -> None:
        super().__init__()
        self._ticks, self._before, self._after = ticks, before, after
        if inner is not None:
            self.neck = inner

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) → (B, C)."""
        self._ticks.now += self._before
        if hasattr(self, "neck"):
            x = self.neck(x)
        self._ticks.now += self._after
        return x


class Toy(nn.Module):
    """A backbone with a neck inside, and a decoder; 0.5 s of its own between the two."""

    def __init__(self, ticks: Ticks) -> None:
        super().__init__()
        self._ticks = ticks
        self.img_backbone = Work(ticks, 1.0, Work(ticks, 10.0), 2.0)
        self.pts_bbox_head = Work(ticks, 100.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) → (B, C)."""
        x = self.img_backbone(x)
        self._ticks.now += 0.5
        return self.pts_bbox_head(x)


def test_a_stage_inside_another_counts_alone():
    ticks = Ticks()
    network = Toy(ticks)
    clock = StageClock(network, clock=ticks)
    for _ in range(2):  # a second run begins at zero
        with clock.running() as seconds:
            network(torch.zeros(1, 1))
            ticks.now += 0.25
        assert seconds == {"backbone": 3.0, "neck": 10.0, "decoder": 100.0, REST: 0.75}
    assert not network.img_backbone._forward_hooks, "the network is left as it was"


def test_the_device_is_waited_for_before_the_clock_is_read():
    ticks = Ticks()
    network = Toy(ticks)
    waits: list[float] = []

    def wait() -> None:
        waits.append(ticks.now)
        ticks.now += 1

    with StageClock(network, wait, ticks).running() as seconds:
        network(torch.zeros(1, 1))
    assert len(waits) == 8  # start, three modules in and out, end
    assert sum(seconds.values()) == ticks.now - 1  # all but the wait before the start


def test_a_failing_network_leaves_no_hooks():
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """(B, C) → (B, C)."""
            raise RuntimeError("broken")

    network = Toy(Ticks())
    network.img_backbone.neck = Broken()
    with pytest.raises(RuntimeError, match="broken"), StageClock(network).running():
        network(torch.zeros(1, 1))
    assert not network.img_backbone._forward_hooks and not network.pts_bbox_head._forward_pre_hooks


@pytest.mark.parametrize("precision", ["", "fp32", "bf16"])
def test_every_stage_of_the_network_is_found(precision: str):
    config = read_config(TINY)
    torch.manual_seed(0)
    network = build_model(config)
    if precision:
        network = prepared(network, precision)
    _, rig = nuscenes_like_rig(config.num_cameras, *config.image.size)
    with torch.no_grad(), StageClock(network).running() as seconds:
        network(torch.rand(1, config.num_cameras, 3, 64, 96), torch.from_numpy(rig[None]).float())
    assert set(seconds) == set(STAGES) - {PREPROCESS}
    assert all(value > 0 for value in seconds.values())
    assert seconds[REST] < 0.5 * sum(seconds.values())


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("projection_Div", "tables"),
        ("img_backbone_layer3_0_conv2_DeformConv_kernel_time", "backbone"),
        ("img_neck_fpn_convs_0_Conv", "neck"),
        ("pts_bbox_head_transfer_conv_1_0_Conv", "level 1"),
        ("pts_bbox_head_transformer_2_encoder_layers_0_Gather", "level 2"),
        ("pts_bbox_head_occ_3_Conv", "decoder"),
        ("const_num_queries", ""),
        ("", ""),
    ],
)
def test_nodes_of_a_file(name: str, stage: str):
    assert stage_of_node(name) == stage


def test_the_table_names_known_stages():
    assert {stage for _, stage in PATHS} < set(STAGES)
    synchroniser(torch.device("cpu"))()
