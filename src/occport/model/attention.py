"""Lifting image features into a voxel volume: spatial cross-attention, feed-forward, 3D convolutions.

Upstream: SurroundOcc `spatial_cross_attention.py`, `encoder.py`; Wei et al., ICCV 2023. Attribute names are the checkpoint's.

Letters: B samples, N cameras, A = B*N images, C width, (z, h, w) the volume, V = z*h*w voxels, S = pixels of the feature map,
K slots of a camera, R rows of a voxel, M heads, D head width, P points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import LevelConfig
from ..ops.msda import multi_scale_deformable_attention
from .projection import LevelTable

GROUPS = 16  # of every GroupNorm


class Lookup(NamedTuple):
    """A `LevelTable` with indices into the flattened batch, made once for all layers of a level."""

    slots: Tensor  # (A, K) int64 into B*V voxels
    ref_uv: Tensor  # (A, K, 1, 2)
    back: Tensor  # (R, B*V) int64 into A*K slots; A*K = none
    weight: Tensor  # (B*V, 1)


def lookup(table: LevelTable) -> Lookup:
    """Flattens the batch of a table; for one sample these are plain reshapes."""
    B, N, K = table.slots.shape
    R, V = table.back.shape[1:]
    slots, back = table.slots, table.back
    if B > 1:
        sample = torch.arange(B, device=slots.device).view(B, 1, 1)
        slots = slots + sample * V
        back = torch.where(back == N * K, B * N * K, back + sample * (N * K)).transpose(0, 1)  # (R, B, V)
    return Lookup(slots.reshape(B * N, K), table.ref_uv.reshape(B * N, K, 1, 2), back.reshape(R, B * V), table.weight.reshape(B * V, 1))


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention of slots to the one feature map of their camera (upstream `MSDeformableAttention3D`)."""

    def __init__(self, level: LevelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_points = level.num_heads, level.num_points
        samples = level.num_heads * level.num_points
        self.sampling_offsets = nn.Linear(level.width, samples * 2)
        self.attention_weights = nn.Linear(level.width, samples)
        self.value_proj = nn.Linear(level.width, level.width)

    def forward(self, queries: Tensor, tokens: Tensor, feat_hw: tuple[int, int], look: Lookup) -> Tensor:
        """Attends from each slot.

        Args:
            queries: (B*V, C).
            tokens: (A*S, C) image features, row-major.
            feat_hw: (h, w) of the feature map, S = h*w.
            look: the level's indices.

        Returns:
            (A*K, C). Rows of empty slots are without meaning.
        """
        A, K = look.slots.shape
        M, P = self.num_heads, self.num_points
        # both are linear in the query alone: computed once for each voxel, and their few numbers gathered instead of the features
        weight = torch.cat([self.sampling_offsets.weight, self.attention_weights.weight])
        bias = torch.cat([self.sampling_offsets.bias, self.attention_weights.bias])
        wanted = F.embedding(look.slots, F.linear(queries, weight, bias))  # (A, K, M*P*3)
        offsets, scores = wanted.split([M * P * 2, M * P], dim=2)
        value = self.value_proj(tokens).view(A, feat_hw[0] * feat_hw[1], M, -1)  # (A, S, M, D)
        out: Tensor = multi_scale_deformable_attention(
            value, list(feat_hw), look.ref_uv, offsets.reshape(A, K, M, 1, P, 2), scores.reshape(A, K, M, 1, P)
        )
        return out.view(A * K, -1)


class SpatialCrossAttention(nn.Module):
    """Each voxel takes the mean of what its cameras' slots found, projects it and adds itself."""

    def __init__(self, level: LevelConfig) -> None:
        super().__init__()
        self.deformable_attention = DeformableAttention(level)
        self.output_proj = nn.Linear(level.width, level.width)

    def forward(self, queries: Tensor, tokens: Tensor, feat_hw: tuple[int, int], look: Lookup) -> Tensor:
        """(B*V, C), (A*S, C) → (B*V, C). A voxel that no camera sees gets the projection's bias plus itself."""
        found: Tensor = self.deformable_attention(queries, tokens, feat_hw, look)
        # one row of zeros for "no camera": an empty slot is never read, whatever it holds
        found = torch.cat([found, found.new_zeros(1, found.shape[1])])
        mean = F.embedding(look.back, found).sum(0) * look.weight  # (R, B*V, C) → (B*V, C)
        projected: Tensor = self.output_proj(mean)
        return queries + projected


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them, plus the input (mmcv `FFN`)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(width, hidden), nn.ReLU()), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B*V, C) → (B*V, C)."""
        out: Tensor = x + self.layers(x)
        return out


class EncoderLayer(nn.Module):
    """Attention, LayerNorm, feed-forward, LayerNorm, then 3D convolutions on the volume with a shortcut (upstream `OccLayer`)."""

    def __init__(self, level: LevelConfig) -> None:
        super().__init__()
        C = level.width
        self.volume_zhw = (level.volume_z, level.volume_h, level.volume_w)
        self.attentions = nn.ModuleList([SpatialCrossAttention(level)])
        self.ffns = nn.ModuleList([FeedForward(C, level.ffn_width)])
        self.norms = nn.ModuleList([nn.LayerNorm(C), nn.LayerNorm(C)])
        self.deblock = nn.ModuleList(
            nn.Sequential(nn.Conv3d(C, C, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, C), nn.ReLU()) for _ in range(level.num_convs)
        )

    def forward(self, queries: Tensor, tokens: Tensor, feat_hw: tuple[int, int], look: Lookup) -> Tensor:
        """(B*V, C) queries, (A*S, C) image tokens → volume (B, C, w, h, z)."""
        x = self.attentions[0](queries, tokens, feat_hw, look)
        x = self.norms[1](self.ffns[0](self.norms[0](x)))
        volume = x.view(-1, *self.volume_zhw, x.shape[1]).permute(0, 4, 3, 2, 1)  # (B, z, h, w, C) → (B, C, w, h, z)
        out: Tensor = volume
        for block in self.deblock:
            out = block(out)
        summed: Tensor = out + volume
        return summed


class Encoder(nn.Module):
    """The layers of one level (upstream `OccEncoder`)."""

    def __init__(self, level: LevelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(level) for _ in range(level.num_layers))

    def forward(self, queries: Tensor, tokens: Tensor, feat_hw: tuple[int, int], look: Lookup) -> Tensor:
        """(B*V, C) queries, (A*S, C) image tokens → volume (B, C, w, h, z)."""
        volume: Tensor = self.layers[0](queries, tokens, feat_hw, look)
        for layer in list(self.layers)[1:]:
            queries = volume.permute(0, 4, 3, 2, 1).reshape(-1, volume.shape[1])  # (B, C, w, h, z) → (B*z*h*w, C)
            volume = layer(queries, tokens, feat_hw, look)
        return volume


class LevelTransformer(nn.Module):
    """One level's embeddings and encoder (upstream `PerceptionTransformer`)."""

    def __init__(self, level: LevelConfig, num_cameras: int) -> None:
        super().__init__()
        self.level_embeds = nn.Parameter(torch.randn(4, level.width))  # rows 1 to 3 are in every checkpoint and never used
        self.cams_embeds = nn.Parameter(torch.randn(num_cameras, level.width))
        self.reference_points = nn.Linear(level.width, 3)  # in every checkpoint, never used
        self.encoder = Encoder(level)

    def forward(self, queries: Tensor, feat: Tensor, table: LevelTable) -> Tensor:
        """Fills the level's volume.

        Args:
            queries: (V, C), the same for every sample.
            feat: (A, C, h, w).
            table: the level's hits.

        Returns:
            (B, C, w, h, z) = (B, C, X, Y, Z).
        """
        A, C, h, w = feat.shape
        B = table.slots.shape[0]
        embeds = (self.cams_embeds + self.level_embeds[0]).view(-1, 1, 1, C).repeat(B, 1, 1, 1)  # (A, 1, 1, C)
        tokens = feat.permute(0, 2, 3, 1) + embeds  # (A, h, w, C)
        queries = queries if B == 1 else queries.repeat(B, 1)
        out: Tensor = self.encoder(queries, tokens.reshape(A * h * w, C), (h, w), lookup(table))
        return out
