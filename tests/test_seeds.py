"""Seeded weights: the same bits everywhere, and a network in which nothing is dead, constant or runs away."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from occport.config import read_config
from occport.errors import UserError
from occport.model.surroundocc import SurroundOcc, build_model
from occport.seeds import seed_weights
from reference import CONFIGS

SEEDS = (0, 1, 11)
IMAGE_HW = (96, 160)


@cache
def micro(seed: int) -> SurroundOcc:
    model = build_model(read_config(CONFIGS / "surroundocc_micro.py"))
    seed_weights(model, seed)
    return model


def made_up_inputs() -> tuple[Tensor, Tensor]:
    """Six smooth images (1, 6, 3, H, W) in the range of real ones, and six cameras (1, 6, 4, 4) that look around."""
    rng = np.random.default_rng(5)
    height, width = IMAGE_HW
    coarse = torch.from_numpy(rng.normal(0, 70, (6, 3, 7, 11)).astype(np.float32))
    img = nn.functional.interpolate(coarse, IMAGE_HW, mode="bicubic").clamp(-124, 152).unsqueeze(0)
    pinhole = np.diag([0.8 * width, 0.8 * width, 1.0, 1.0])
    pinhole[:2, 2] = width / 2, height / 2
    rigs = []
    for turn in np.arange(6) * np.pi / 3:
        right, forward = (np.cos(turn), -np.sin(turn), 0), (np.sin(turn), np.cos(turn), 0)
        rigid = np.eye(4)
        rigid[:3, :3] = right, (0, 0, -1), forward
        rigs.append(pinhole @ rigid)
    return img, torch.from_numpy(np.stack(rigs))[None]


@cache
def run(seed: int) -> tuple[dict[str, list[Tensor]], tuple[Tensor, ...]]:
    """Every module's outputs by name, and the logits."""
    seen: defaultdict[str, list[Tensor]] = defaultdict(list)
    model = micro(seed)

    def keep(name: str):
        def hook(module: nn.Module, args: object, out: object) -> None:
            if isinstance(out, Tensor):
                seen[name].append(out)

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        logits = model(*made_up_inputs())
    for handle in handles:
        handle.remove()
    return dict(seen), logits


class Named(nn.Module):
    """Holds one parameter under a name of the network."""

    def __init__(self, name: str, *shape: int) -> None:
        super().__init__()
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(torch.full(shape, torch.nan)))
        self.name = name

    def seeded(self, seed: int) -> Tensor:
        seed_weights(self, seed)
        return self.get_parameter(self.name).detach()


def test_values_are_pinned():
    got = Named("img_neck.lateral_convs.0.conv.weight", 2, 3, 1, 1).seeded(7)
    expected = torch.tensor([-0.219274282, 0.661204994, 0.721145034, -0.808567047, -0.980824709, 0.499144346])
    assert torch.equal(got.flatten(), expected)


def test_a_tensor_depends_on_seed_name_and_shape_alone():
    state = micro(0).state_dict()
    for name in ("img_backbone.layer3.1.conv2.weight", "pts_bbox_head.transformer.1.encoder.layers.0.norms.1.bias"):
        assert torch.equal(Named(name, *state[name].shape).seeded(0), state[name])
        assert not torch.equal(Named(name, *state[name].shape).seeded(1), state[name])
    assert not torch.equal(Named("a.weight", 4, 4).seeded(0), Named("b.weight", 4, 4).seeded(0))


def test_seeding_again_changes_nothing():
    first, again = Named("img_backbone.conv1.weight", 64, 3, 7, 7), Named("img_backbone.conv1.weight", 64, 3, 7, 7)
    again.seeded(99)
    assert torch.equal(first.seeded(3), again.seeded(3))


@given(count=st.integers(1, 5000), seed=st.integers(0, 2**40))
@settings(deadline=None, max_examples=25)
def test_a_shorter_tensor_is_the_beginning_of_a_longer(count: int, seed: int):
    values = Named("a.volume_embedding.0.weight", count).seeded(seed)
    assert values.shape == (count,) and values.abs().max() <= 3**0.5 + 1e-6
    assert torch.equal(values, Named("a.volume_embedding.0.weight", count + 1).seeded(seed)[:count])


def test_a_tensor_that_takes_several_draws(monkeypatch: pytest.MonkeyPatch):
    whole = Named("a.weight", 50, 20).seeded(4)
    monkeypatch.setattr("occport.seeds.DRAW_STEP", 128)
    assert torch.equal(Named("a.weight", 50, 20).seeded(4), whole)


def test_a_negative_seed_is_refused():
    with pytest.raises(UserError, match=r"^seed: expected 0 or a positive number, got -1$"):
        seed_weights(nn.Linear(1, 1), -1)


def test_half_precision_models_and_counters():
    model = nn.BatchNorm2d(8).half()
    model.num_batches_tracked += 5
    seed_weights(model, 0)
    assert model.num_batches_tracked == 0 and model.weight.dtype == torch.float16


@pytest.mark.parametrize("seed", SEEDS)
def test_no_tensor_is_constant_and_variances_are_positive(seed: int):
    for name, tensor in micro(seed).state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor == 0
            continue
        assert tensor.isfinite().all(), name
        assert tensor.std() > 1e-3, name
        if name.endswith("running_var"):
            assert tensor.min() > 0.5, name


@pytest.mark.parametrize("seed", SEEDS)
def test_activations_stay_healthy(seed: int):
    seen, logits = run(seed)
    assert all(scale.isfinite().all() for scale in logits)
    for name, outs in seen.items():
        for out in outs:
            assert 1e-3 < out.abs().mean() < 1e3, name
    relus = [name for name, module in micro(seed).named_modules() if isinstance(module, nn.ReLU)]
    assert len(relus) > 30
    for name in relus:
        assert all(0.1 < (out > 0).float().mean() < 0.97 for out in seen[name]), name


@pytest.mark.parametrize("seed", SEEDS)
def test_offsets_and_masks_are_wide_and_depend_on_the_input(seed: int):
    seen, _ = run(seed)
    convs = [name for name in seen if name.endswith("conv_offset")]
    assert len(convs) >= 9
    for name in convs:
        out = seen[name][0]  # (A, 27, h, w)
        assert 0.8 < out[:, :18].std() < 3, name
        assert out[:, 18:].sigmoid().std() > 0.1, name
        assert out.std(dim=(0, 2, 3)).mean() > 0.5, name  # within a channel: not only the bias
    for name, module in micro(seed).named_modules():
        if name.endswith("sampling_offsets"):
            assert isinstance(module, nn.Linear)
            offsets = module(torch.randn(500, module.in_features, generator=torch.Generator().manual_seed(0)))
            assert 1.5 < offsets.std() < 3, name


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_vary_and_follow_the_image(seed: int):
    _, logits = run(seed)
    finest = logits[3][0]
    assert len(finest.argmax(0).unique()) >= 5
    assert 0.5 < finest.std() < 5
    img, lidar2img = made_up_inputs()
    with torch.no_grad():
        other = micro(seed)(img.flip(-1), lidar2img)[3][0]
    assert (other - finest).abs().mean() > 0.1
