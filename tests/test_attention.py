"""One level's attention equals loops over single voxels; empty slots, blind cameras and unseen voxels are nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from occport.config import LevelConfig, read_config
from occport.frames.rig import nuscenes_like_rig, turned
from occport.model.attention import DeformableAttention, EncoderLayer, FeedForward, LevelTransformer, Lookup, SpatialCrossAttention, lookup
from occport.model.projection import Budget, LevelTable, Projection
from reference import CONFIGS, inputs, reference_model

PC_RANGE = (-50.0, -50.0, -5.0, 50.0, 50.0, 3.0)
LEVEL = LevelConfig(
    width=32, volume_h=5, volume_w=4, volume_z=2, num_layers=2, num_points=3, num_heads=4, ffn_width=48, num_convs=1
)
FEAT_HW = (3, 5)
HW = (64, 96)


def seeded(module: nn.Module, seed: int) -> nn.Module:
    """Random weights everywhere, also where the initialisation would be zero or one; float64."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3
    return module.eval()


def rigs(samples: int) -> Tensor:
    """(B, 6, 4, 4): another turn for each sample; camera 4 of the last one is blind."""
    _, rig = nuscenes_like_rig(6, *HW)
    batch = np.stack([turned(rig, 33.0 * sample) for sample in range(samples)])
    batch[-1, 4, :3] = [[100.0, 0, 0, 0], [0, 100.0, 0, 0], [0, 0, 1.0, -100.0]]
    return torch.from_numpy(batch)


def table_of(samples: int, budget: Budget | None = None) -> LevelTable:
    """The table of `LEVEL`, in float64 but for the indices."""
    projection = Projection([LEVEL], PC_RANGE)
    (table,), dropped = projection(rigs(samples), HW, None if budget is None else [budget])
    assert not dropped.any()
    return table._replace(ref_uv=table.ref_uv.double(), weight=table.weight.double())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).normal(size=shape))


def bilinear(image: Tensor, x: float, y: float) -> Tensor:
    """(h, w, D) read at column x, row y; zero outside."""
    out = torch.zeros(image.shape[2], dtype=torch.float64)
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                out += (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column]
    return out


def attend_by_loops(attention: SpatialCrossAttention, queries: Tensor, tokens: Tensor, table: LevelTable) -> Tensor:
    """Spatial cross-attention voxel by voxel, for each sample by itself, straight from the list of hits."""
    inner = attention.deformable_attention
    M, P = inner.num_heads, inner.num_points
    h, w = FEAT_HW
    B, N, _ = table.slots.shape
    V, C = LEVEL.num_voxels, LEVEL.width
    values = inner.value_proj(tokens).view(B, N, h, w, M, C // M)
    out = torch.empty(B * V, C, dtype=torch.float64)
    for b in range(B):
        hit, uv = Projection([LEVEL], PC_RANGE).project(rigs(B)[b : b + 1], HW)
        for v in range(V):
            query = queries[b * V + v]
            offsets = inner.sampling_offsets(query).view(M, P, 2)
            weights = inner.attention_weights(query).view(M, P).softmax(1)
            cameras = [camera for camera in range(N) if hit[0, camera, v]]
            total = torch.zeros(C, dtype=torch.float64)
            for camera in cameras:
                u, t = uv[0, camera, :, v].double().tolist()
                found = torch.zeros(M, C // M, dtype=torch.float64)
                for m, p in np.ndindex(M, P):
                    x, y = u * w + offsets[m, p, 0].item() - 0.5, t * h + offsets[m, p, 1].item() - 0.5
                    found[m] += weights[m, p] * bilinear(values[b, camera, :, :, m], x, y)
                total += found.flatten()
            out[b * V + v] = attention.output_proj(total / max(len(cameras), 1)) + query
    return out


@pytest.mark.parametrize("budget", [None, Budget(40, 6)], ids=["exact", "roomy"])
@pytest.mark.parametrize("samples", [1, 2])
@torch.no_grad()
def test_a_loop_over_single_voxels(samples: int, budget: Budget | None):
    attention = seeded(SpatialCrossAttention(LEVEL), 1)
    queries = random(samples * LEVEL.num_voxels, LEVEL.width)
    tokens = random(samples * 6 * FEAT_HW[0] * FEAT_HW[1], LEVEL.width)
    table = table_of(samples, budget)
    got = attention(queries, tokens, FEAT_HW, lookup(table))
    torch.testing.assert_close(got, attend_by_loops(attention, queries, tokens, table), rtol=1e-6, atol=1e-6)


def test_lookup_of_a_batch_points_into_the_right_sample():
    table = table_of(3, Budget(17, 4))
    look = lookup(table)
    V, N, K = LEVEL.num_voxels, 6, 17
    for sample in range(3):
        alone = lookup(LevelTable(*(field[sample : sample + 1] for field in table)))
        assert torch.equal(look.slots[sample * N : (sample + 1) * N], alone.slots + sample * V)
        back = look.back[:, sample * V : (sample + 1) * V]
        none = alone.back == N * K
        assert torch.equal(back == 3 * N * K, none)
        assert torch.equal(back[~none], alone.back[~none] + sample * N * K)
        assert torch.equal(look.ref_uv[sample * N : (sample + 1) * N], alone.ref_uv)
        assert torch.equal(look.weight[sample * V : (sample + 1) * V], alone.weight)


class Poisoned(nn.Module):
    """Another attention, whose rows of unused slots are NaN."""

    def __init__(self, inner: DeformableAttention) -> None:
        super().__init__()
        self.inner, self.num_poisoned = inner, 0

    def forward(self, queries: Tensor, tokens: Tensor, feat_hw: tuple[int, int], look: Lookup) -> Tensor:
        out = poison(self.inner(queries, tokens, feat_hw, look), look)
        self.num_poisoned = int(out.isnan().any(1).sum())
        return out


def poison(found: Tensor, look: Lookup) -> Tensor:
    """NaN in every row (A*K, C) that no voxel looks up."""
    unused = torch.ones(found.shape[0] + 1, dtype=torch.bool)
    unused[look.back.flatten()] = False
    return found.masked_fill(unused[:-1, None], torch.nan)


@pytest.mark.parametrize("samples", [1, 2])
@torch.no_grad()
def test_an_empty_slot_is_nobodys(samples: int):
    attention = seeded(SpatialCrossAttention(LEVEL), 2)
    queries = random(samples * LEVEL.num_voxels, LEVEL.width)
    tokens = random(samples * 6 * FEAT_HW[0] * FEAT_HW[1], LEVEL.width)
    look = lookup(table_of(samples, Budget(30, 6)))
    before = attention(queries, tokens, FEAT_HW, look)
    attention.deformable_attention = poisoned = Poisoned(attention.deformable_attention)
    after = attention(queries, tokens, FEAT_HW, look)
    assert poisoned.num_poisoned > 30
    assert torch.equal(before, after)


@contextmanager
def all_poisoned(model: nn.Module) -> Iterator[list[int]]:
    """Every attention of a network writes NaN into its unused slots; gives the list of how many."""
    counts: list[int] = []

    def hook(module: nn.Module, given: tuple[Tensor, Tensor, tuple[int, int], Lookup], out: Tensor) -> Tensor:
        out = poison(out, given[3])
        counts.append(int(out.isnan().any(1).sum()))
        return out

    handles = [module.register_forward_hook(hook) for module in model.modules() if isinstance(module, DeformableAttention)]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ["micro_sem", "micro_blind"])
@torch.no_grad()
def test_nan_in_every_unused_slot_of_the_network(name: str):
    model, given = reference_model(name), inputs(name)
    need = model.projection.needs(model.projection.project(given.lidar2img, given.image_hw)[0])
    tables, _ = model.tables(given.lidar2img, given.image_hw, [Budget(slots + 50, 6) for slots, _ in need])
    before = model.logits(given.img, tables)
    with all_poisoned(model) as counts:
        after = model.logits(given.img, tables)
    assert len(counts) == 5 and min(counts) >= 6 * 50
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@torch.no_grad()
def test_an_unseen_voxel_gets_the_bias_and_itself():
    attention = seeded(SpatialCrossAttention(LEVEL), 3)
    blind = rigs(1)[:, 4:5].expand(-1, 6, -1, -1)
    (table,), _ = Projection([LEVEL], PC_RANGE)(blind, HW, None)
    look = lookup(table._replace(ref_uv=table.ref_uv.double(), weight=table.weight.double()))
    queries = random(LEVEL.num_voxels, LEVEL.width)
    got = attention(queries, random(6 * FEAT_HW[0] * FEAT_HW[1], LEVEL.width), FEAT_HW, look)
    torch.testing.assert_close(got, queries + attention.output_proj.bias)


@torch.no_grad()
def test_every_sample_is_inside_or_bounded_by_its_offset():
    """Empty slots too: their reference point is 0, never the far place where a camera would project a voxel behind it."""
    table = table_of(2, Budget(40, 6))
    assert ((table.ref_uv >= 0) & (table.ref_uv <= 1)).all()
    assert (table.ref_uv > 0).all(-1).sum() == (table.back != 6 * 40).sum()


@torch.no_grad()
def test_layer_written_out():
    """Attention, LN, FFN, LN, then convolutions on (C, w, h, z) plus their input; as `upstream.md` has it."""
    layer = seeded(EncoderLayer(LEVEL), 4)
    queries = random(2 * LEVEL.num_voxels, LEVEL.width)
    tokens = random(2 * 6 * FEAT_HW[0] * FEAT_HW[1], LEVEL.width)
    look = lookup(table_of(2))
    weights = dict(layer.named_parameters())
    x = layer.attentions[0](queries, tokens, FEAT_HW, look)
    x = F.layer_norm(x, (32,), weights["norms.0.weight"], weights["norms.0.bias"], 1e-5)
    hidden = F.relu(x @ weights["ffns.0.layers.0.0.weight"].T + weights["ffns.0.layers.0.0.bias"])
    x = x + hidden @ weights["ffns.0.layers.1.weight"].T + weights["ffns.0.layers.1.bias"]
    x = F.layer_norm(x, (32,), weights["norms.1.weight"], weights["norms.1.bias"], 1e-5)
    volume = torch.empty(2, 32, LEVEL.volume_w, LEVEL.volume_h, LEVEL.volume_z, dtype=torch.float64)
    for b, k, h, w in np.ndindex(2, LEVEL.volume_z, LEVEL.volume_h, LEVEL.volume_w):
        volume[b, :, w, h, k] = x[b * LEVEL.num_voxels + (k * LEVEL.volume_h + h) * LEVEL.volume_w + w]
    out = F.conv3d(volume, weights["deblock.0.0.weight"], padding=1)
    out = F.relu(F.group_norm(out, 16, weights["deblock.0.1.weight"], weights["deblock.0.1.bias"], 1e-5)) + volume
    torch.testing.assert_close(layer(queries, tokens, FEAT_HW, look), out)


@torch.no_grad()
def test_feed_forward_adds_its_input():
    ffn = seeded(FeedForward(6, 10), 5)
    x = random(7, 6)
    torch.testing.assert_close(ffn(x), x + ffn.layers[1](torch.relu(ffn.layers[0][0](x))))


@torch.no_grad()
def test_level_written_out():
    """Tokens are row-major pixels plus their camera's and the level's embedding; layers follow each other in flat order."""
    level = seeded(LevelTransformer(LEVEL, 6), 6)
    feat, queries = random(12, LEVEL.width, *FEAT_HW), random(LEVEL.num_voxels, LEVEL.width)
    table = table_of(2)
    tokens = torch.stack(
        [
            feat[image, :, row, column] + level.cams_embeds[image % 6] + level.level_embeds[0]
            for image in range(12)
            for row in range(FEAT_HW[0])
            for column in range(FEAT_HW[1])
        ]
    )
    flat, look = queries.repeat(2, 1), lookup(table)
    for layer in level.encoder.layers:
        volume = layer(flat, tokens, FEAT_HW, look)
        flat = torch.stack(
            [
                volume[b, :, w, h, k]
                for b in range(2)
                for k in range(LEVEL.volume_z)
                for h in range(LEVEL.volume_h)
                for w in range(LEVEL.volume_w)
            ]
        )
    torch.testing.assert_close(level(queries, feat, table), volume)


@torch.no_grad()
def test_only_the_first_level_embedding_and_no_reference_point_counts():
    level = seeded(LevelTransformer(replace(LEVEL, num_layers=1), 6), 7)
    feat, queries, table = random(6, LEVEL.width, *FEAT_HW), random(LEVEL.num_voxels, LEVEL.width), table_of(1)
    before = level(queries, feat, table)
    level.level_embeds[1:] += 1
    level.reference_points.weight.add_(1)
    assert torch.equal(level(queries, feat, table), before)
    level.level_embeds[0] += 1
    assert not torch.allclose(level(queries, feat, table), before)


def test_names_and_sizes_of_an_official_level():
    level = LevelTransformer(read_config(CONFIGS / "surroundocc.py").levels[0], 6)
    inner = level.encoder.layers[0].attentions[0].deformable_attention
    assert inner.sampling_offsets.weight.shape == (8 * 2 * 2, 128)
    assert inner.attention_weights.weight.shape == (8 * 2, 128)
    assert level.level_embeds.shape == (4, 128) and level.cams_embeds.shape == (6, 128)
    assert len(level.encoder.layers) == 1 and len(level.encoder.layers[0].deblock) == 2
