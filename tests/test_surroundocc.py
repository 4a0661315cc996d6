"""The whole network: its three functions fit together, for any number of cameras, size and depth; gradients reach everything."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from occport.config import read_config, read_config_with_options
from occport.frames.rig import nuscenes_like_rig, turned
from occport.model.projection import Budget
from occport.model.surroundocc import SurroundOcc, build_model
from reference import CONFIGS, inputs, reference_model

MICRO = CONFIGS / "surroundocc_micro.py"
HW = (64, 96)
HEAD = "model.pts_bbox_head"
ENCODER = f"{HEAD}.transformer_template.encoder"
ATOL = 1e-4


@cache
def micro_model() -> SurroundOcc:
    """The reference's micro network. Shared between tests: do not change it."""
    model: SurroundOcc = reference_model("micro_sem")
    return model


def images(samples: int, cameras: int = 6, hw: tuple[int, int] = HW, seed: int = 0) -> Tensor:
    """(B, N, 3, H, W) in about the range of real ones."""
    pixels = np.random.default_rng([seed, samples, cameras]).normal(0, 60, (samples, cameras, 3, *hw))
    return torch.from_numpy(pixels.astype(np.float32))


def rigs(turns: tuple[float, ...], cameras: int = 6, hw: tuple[int, int] = HW) -> Tensor:
    """(B, N, 4, 4) float32: a turned rig for each sample."""
    _, rig = nuscenes_like_rig(cameras, *hw)
    return torch.from_numpy(np.stack([turned(rig, degrees) for degrees in turns]).astype(np.float32))


def check_same(some: tuple[Tensor, ...], others: tuple[Tensor, ...], atol: float) -> None:
    for scale, (one, other) in enumerate(zip(some, others, strict=True)):
        torch.testing.assert_close(one, other, rtol=0, atol=atol, msg=lambda text, scale=scale: f"scale {scale}: {text}")


@torch.no_grad()
def test_forward_is_logits_of_tables_and_the_same_each_time():
    model, img, lidar2img = micro_model(), images(1), rigs((4.0,))
    once = model(img, lidar2img)
    tables, dropped = model.tables(lidar2img, HW)
    assert not dropped.any()
    assert all(torch.equal(a, b) for a, b in zip(once, model.logits(img, tables), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(once, model(img, lidar2img), strict=True))
    assert all(logits.isfinite().all() and logits.std() > 0.1 for logits in once)


@torch.no_grad()
def test_a_batch_is_its_single_runs():
    """Different rigs with different needs: the batch's tables have room for the larger, and empty slots in the smaller."""
    model, img = micro_model(), images(2)
    lidar2img = rigs((0.0, 25.0))
    lidar2img[1, :2] = lidar2img[1, 2]  # three cameras look one way
    needs = [model.projection.needs(model.projection.project(lidar2img[i : i + 1], HW)[0]) for i in range(2)]
    assert all(one != other for one, other in zip(*needs, strict=True))
    single = [model(img[i : i + 1], lidar2img[i : i + 1]) for i in range(2)]
    expected = tuple(torch.cat(pair) for pair in zip(*single, strict=True))
    check_same(model(img, lidar2img), expected, ATOL)
    budgets = [Budget(max(a.slots, b.slots) + 9, 6) for a, b in zip(*needs, strict=True)]
    tables, dropped = model.tables(lidar2img, HW, budgets)
    assert not dropped.any()
    check_same(model.logits(img, tables), expected, ATOL)


@torch.no_grad()
def test_a_batch_that_drops_differently():
    """Budgets that are too small: each sample loses what it would lose alone."""
    model, img, lidar2img = micro_model(), images(2), rigs((0.0, 25.0))
    budgets = [Budget(150, 1), Budget(20, 6), Budget(3, 2)]
    tables, dropped = model.tables(lidar2img, HW, budgets)
    assert dropped.min() > 0 and not torch.equal(dropped[0], dropped[1])
    both = model.logits(img, tables)
    for i in range(2):
        alone, alone_dropped = model.tables(lidar2img[i : i + 1], HW, budgets)
        assert torch.equal(alone_dropped, dropped[i : i + 1])
        check_same(model.logits(img[i : i + 1], alone), tuple(logits[i : i + 1] for logits in both), ATOL)


@torch.no_grad()
def test_what_is_dropped_changes_the_logits():
    model, img, lidar2img = micro_model(), images(1), rigs((0.0,))
    tables, dropped = model.tables(lidar2img, HW, [Budget(1, 1)] * 3)
    assert dropped.min() > 0
    assert all(not torch.allclose(a, b, atol=1e-2) for a, b in zip(model(img, lidar2img), model.logits(img, tables), strict=True))


@torch.no_grad()
def test_cameras_have_no_order_but_their_embedding():
    order = [3, 1, 5, 0, 4, 2]
    config = reference_model("micro_sem").config
    swapped = build_model(config)
    swapped.load_state_dict(micro_model().state_dict())
    for transformer in swapped.pts_bbox_head.transformer:
        transformer.cams_embeds.copy_(transformer.cams_embeds[order])
    given = inputs("micro_sem")
    expected = micro_model()(given.img, given.lidar2img)
    check_same(swapped(given.img[:, order], given.lidar2img[:, order]), expected, ATOL)
    wrong = swapped(given.img, given.lidar2img)
    assert not torch.allclose(wrong[3], expected[3], atol=1e-2)


def variant(overrides: dict[str, Any]) -> SurroundOcc:
    torch.manual_seed(0)
    return build_model(read_config_with_options(MICRO, [f"{key}={value}" for key, value in overrides.items()]))


@pytest.mark.parametrize("cameras", range(1, 9))
@torch.no_grad()
def test_any_number_of_cameras(cameras: int):
    model = variant({f"{HEAD}.transformer_template.num_cams": cameras})
    logits = model(images(1, cameras), rigs((0.0,), cameras))
    assert [tuple(scale.shape) for scale in logits] == [(1, 17, *size) for size in model.config.output_sizes]
    assert all(scale.isfinite().all() and scale.std() > 0 for scale in logits)


VARIANTS: dict[str, dict[str, Any]] = {
    "depth 101": {"model.img_backbone.depth": 101},
    "dcn in one stage": {"model.img_backbone.stage_with_dcn": [False, False, False, True]},
    "two deform groups": {"model.img_backbone.dcn.deform_groups": 2},
    "layers": {f"{ENCODER}.num_layers": [2, 1, 3]},
    "points": {f"{ENCODER}.transformerlayers.attn_cfgs.0.deformable_attention.num_points": [1, 3, 5]},
    "ffn": {f"{ENCODER}.transformerlayers.feedforward_channels": [48, 80, 112]},
    "neck": {"model.img_neck.out_channels": 96, f"{HEAD}.img_channels": [96, 96, 96]},
    "no semantics": {"use_semantic": False, "model.use_semantic": False, f"{HEAD}.use_semantic": False},
    "widths": {
        f"{HEAD}.embed_dims": [48, 80, 160],
        f"{HEAD}.conv_input": [160, 80, 80, 48, 48, 32, 32],
        f"{HEAD}.conv_output": [80, 80, 48, 48, 32, 32, 16],
        f"{HEAD}.transformer_template.embed_dims": [48, 80, 160],
        f"{ENCODER}.transformerlayers.embed_dims": [48, 80, 160],
        f"{ENCODER}.transformerlayers.attn_cfgs.0.embed_dims": [48, 80, 160],
        f"{ENCODER}.transformerlayers.attn_cfgs.0.deformable_attention.embed_dims": [48, 80, 160],
    },
    "volumes": {f"{HEAD}.volume_h": [12, 6, 3], f"{HEAD}.volume_w": [20, 10, 5], f"{HEAD}.volume_z": [4, 2, 1]},
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_other_networks(name: str):
    model = variant(VARIANTS[name])
    logits = model(images(2), rigs((0.0, 70.0)))
    classes = 1 if name == "no semantics" else 17
    assert [tuple(scale.shape) for scale in logits] == [(2, classes, *size) for size in model.config.output_sizes]
    assert all(scale.isfinite().all() and scale.std() > 0 for scale in logits)


@pytest.mark.parametrize("hw", [(32, 32), (96, 64), (128, 224)])
@torch.no_grad()
def test_other_image_sizes(hw: tuple[int, int]):
    model, img, lidar2img = micro_model(), images(1, hw=hw), rigs((0.0,), hw=hw)
    features = model.features(img)
    assert [tuple(feat.shape) for feat in features] == [(6, 128, hw[0] // stride, hw[1] // stride) for stride in (8, 16, 32)]
    assert all(scale.isfinite().all() for scale in model(img, lidar2img))


def test_training_gives_every_weight_and_input_a_gradient():
    torch.manual_seed(0)
    model = build_model(read_config(MICRO))
    assert not model.training
    model.train()
    img = images(2).requires_grad_()
    lidar2img = rigs((0.0, 40.0)).requires_grad_()
    sum(scale.square().mean() for scale in model(img, lidar2img)).backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == {f"pts_bbox_head.transformer.{level}.reference_points.{part}" for level in range(3) for part in ("weight", "bias")}
    for name, parameter in model.named_parameters():
        if name not in unused:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    for level in range(3):
        assert not model.get_parameter(f"pts_bbox_head.transformer.{level}.level_embeds").grad[1:].any()
    assert img.grad.isfinite().all() and img.grad.flatten(2).any(2).all()  # through every image
    assert lidar2img.grad.isfinite().all() and lidar2img.grad.any()  # through the reference points
    assert (model.img_backbone.bn1.running_mean != 0).any()  # statistics are learnt


WRONG: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "five cameras": ((1, 5, 3, 64, 96), (1, 5, 4, 4), r"img: expected \(B, 6, 3, H, W\) .* multiples of 32, got \(1, 5, 3, 64, 96\)"),
    "channels": ((1, 6, 4, 64, 96), (1, 6, 4, 4), r"img: expected .* got \(1, 6, 4, 64, 96\)"),
    "height": ((1, 6, 3, 63, 96), (1, 6, 4, 4), r"img: expected .* got \(1, 6, 3, 63, 96\)"),
    "width": ((1, 6, 3, 64, 100), (1, 6, 4, 4), r"img: expected .* got \(1, 6, 3, 64, 100\)"),
    "no batch": ((6, 3, 64, 96), (6, 4, 4), r"img: expected .* got \(6, 3, 64, 96\)"),
    "another batch": ((2, 6, 3, 64, 96), (1, 6, 4, 4), r"lidar2img: expected \(2, 6, 4, 4\) for img .*, got \(1, 6, 4, 4\)"),
    "other cameras": ((1, 6, 3, 64, 96), (1, 5, 4, 4), r"lidar2img: expected \(1, 6, 4, 4\) for img .*, got \(1, 5, 4, 4\)"),
    "three rows": ((1, 6, 3, 64, 96), (1, 6, 3, 4), r"lidar2img: expected \(1, 6, 4, 4\) for img .*, got \(1, 6, 3, 4\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_inputs_of_another_shape_are_refused(wrong: str):
    img, lidar2img, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message) as caught:
        micro_model()(torch.zeros(img), torch.zeros(lidar2img))
    assert "\n" not in str(caught.value)
