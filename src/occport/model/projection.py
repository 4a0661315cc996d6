"""Which camera sees which voxel: from a calibration to the index tables that the attention layers read.

Letters: B samples, N cameras, V voxels of a level in flat (z, h, w) order, U voxels of all levels one after the other,
K slots of a camera (its `Budget.slots`), R rows of a voxel (`Budget.cameras`).

A camera's hits get its slots in ascending voxel order, by a cumulative sum; a voxel's hits get its rows in ascending camera
order. Whatever finds no room goes to a dump place that is cut off and counted. Nothing is scattered with a reduction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import LevelConfig

MIN_DEPTH = 1e-5  # metres; upstream's epsilon


class Budget(NamedTuple):
    """Static room of one level."""

    slots: int  # K, voxels a camera may see
    cameras: int  # R, cameras that may see a voxel


class LevelTable(NamedTuple):
    """The hits of one level as indices."""

    slots: Tensor  # (B, N, K) int64: voxel in each slot, 0 where empty
    ref_uv: Tensor  # (B, N, K, 2) float32 in [0, 1]: where the slot's voxel is in the image, 0 where empty
    back: Tensor  # (B, R, V) int64: slot n*K + k of each camera that sees the voxel; N*K = none
    weight: Tensor  # (B, V) float32: 1 / max(number of cameras that really see the voxel, 1)


class Projection(nn.Module):
    """Projects voxel centres into the cameras and builds the tables; all levels in one pass, in float32."""

    points: Tensor  # (3, U) float32: x, y, z in lidar metres
    voxel: Tensor  # (1, 1, 1, U) float32: index of the voxel in its level; exact, as levels have less than 2^24 voxels
    level_of: Tensor  # (U, levels) float32: 1 where the voxel belongs to the level

    def __init__(self, levels: Sequence[LevelConfig], pc_range: Sequence[float]) -> None:
        super().__init__()
        self.sizes = [level.volume_z * level.volume_h * level.volume_w for level in levels]
        centres = torch.cat([voxel_centres(level, pc_range) for level in levels], dim=1)
        index = torch.cat([torch.arange(size) for size in self.sizes])
        member = torch.cat([torch.eye(len(levels))[i].expand(size, -1) for i, size in enumerate(self.sizes)])
        for name, value in (("points", centres), ("voxel", index.float().view(1, 1, 1, -1)), ("level_of", member)):
            self.register_buffer(name, value, persistent=False)  # the state dict stays the original's

    def forward(
        self, lidar2img: Tensor, image_hw: tuple[int, int], budgets: Sequence[Budget] | None
    ) -> tuple[tuple[LevelTable, ...], Tensor]:
        """Builds the tables.

        Args:
            lidar2img: (B, N, 4, 4), lidar metres → pixels of the padded image.
            image_hw: height and width of the padded image.
            budgets: room for each level; None takes exactly what this calibration needs.

        Returns:
            A table for each level, and (B, levels) int64: how many (camera, voxel) hits found no room.
        """
        hit, uv = self.project(lidar2img, image_hw)
        return self.assign(hit, uv, self.needs(hit) if budgets is None else budgets)

    def project(self, lidar2img: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Hits (B, N, U) bool and image positions (B, N, 2, U), u and v in units of the padded image (upstream `point_sampling`).

        A voxel is hit where its depth is over 1e-5 m and 0 < u < 1 and 0 < v < 1. The matrix rows are divided by the image size
        first: unscaled pixels reach 104,000, which half precision cannot hold.
        """
        matrix = lidar2img.to(self.points.dtype)
        height, width = image_hw
        a, b, c, d = (matrix / matrix.new_tensor([width, height, 1, 1]).view(4, 1)).split(1, dim=3)  # columns, (B, N, 4, 1)
        x, y, z = self.points
        # not a matrix product: single multiplications and additions give the same bits in every runtime, and so the same hits
        uv, depth, _ = (a * x + (b * y + (c * z + d))).split([2, 1, 1], dim=2)  # (B, N, 2, U), (B, N, 1, U)
        uv = uv / depth.clamp(min=MIN_DEPTH)
        # how far inside every border, and beyond the smallest depth; x - y > 0 is x > y to the last bit
        margins = torch.cat([uv, 1 - uv, depth - MIN_DEPTH], dim=2)
        return margins.amin(dim=2) > 0, uv

    def needs(self, hit: Tensor) -> list[Budget]:
        """The smallest budgets that drop none of the hits (B, N, U); at least one slot and one row."""
        return [
            Budget(max(int(level.sum(2).max()), 1), max(int(level.sum(1).max()), 1))
            for level in hit.split(self.sizes, dim=2)
        ]  # fmt: skip

    def assign(self, hit: Tensor, uv: Tensor, budgets: Sequence[Budget]) -> tuple[tuple[LevelTable, ...], Tensor]:
        """Gives the hits (B, N, U) with positions (B, N, 2, U) their slots and rows. Returns what `forward` returns."""
        B, N, U = hit.shape
        room, first_slot, no_slot, most_rows = self._of_voxel(budgets)
        seen = hit.long()
        order = torch.cat([level.cumsum(2) for level in seen.split(self.sizes, dim=2)], dim=2)  # 1, 2, ... over a camera's hits
        kept = hit & (order <= room)

        # forwards: what each slot holds. Place 0 is the dump, then the slots of all levels
        slot = torch.where(kept, order + first_slot, 0)
        num_slots = [budget.slots for budget in budgets]
        content = torch.cat([self.voxel.expand(B, N, 1, U), uv], dim=2)  # (B, N, 3, U)
        filled = content.new_zeros(B, N, 3, 1 + sum(num_slots)).scatter(3, slot.unsqueeze(2).expand(B, N, 3, U), content)
        voxels, positions = filled.split([1, 2], dim=2)
        slots = voxels.squeeze(2).long().split([1, *num_slots], dim=2)[1:]
        ref_uv = positions.transpose(2, 3).split([1, *num_slots], dim=2)[1:]  # (B, N, K, 2) each

        # backwards: where each voxel's results are. Row 0 is the dump
        rank = kept.long().cumsum(1)
        placed = kept & (rank <= most_rows)
        camera = torch.arange(N, device=hit.device).view(N, 1)
        place = order + (camera * room - 1)
        empty = no_slot.mul(N).expand(B, 1 + max(budget.cameras for budget in budgets), U)
        back = empty.scatter(1, torch.where(placed, rank, 0), place)[:, 1:].split(self.sizes, dim=2)

        weight = seen.sum(1).to(uv.dtype).clamp(min=1).reciprocal().split(self.sizes, dim=1)
        dropped = ((hit ^ placed).to(uv.dtype).sum(1) @ self.level_of).long()  # (B, levels), exact below 2^24
        tables = (
            LevelTable(slots[i], ref_uv[i], back[i][:, : budgets[i].cameras], weight[i]) for i in range(len(budgets))
        )  # fmt: skip
        return tuple(tables), dropped

    def _of_voxel(self, budgets: Sequence[Budget]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each voxel, (U) int64: slots K of its level; slots of the levels before; K again as "no slot"; rows R."""
        starts = [sum(budget.slots for budget in budgets[:i]) for i in range(len(budgets))]
        columns = ([budget.slots for budget in budgets], starts, [budget.cameras for budget in budgets])
        room, first_slot, rows = (
            torch.cat([torch.full((size,), value, device=self.points.device) for size, value in zip(self.sizes, column, strict=True)])
            for column in columns
        )
        return room, first_slot, room, rows


def voxel_centres(level: LevelConfig, pc_range: Sequence[float]) -> Tensor:
    """Centres (3, V) float32 of a level's voxels in lidar metres, flat order (z, h, w): x from w, y from h, z from z.

    Centre (i + 0.5) / n of the range, as upstream's `get_reference_points`.
    """
    low, high = pc_range[:3], pc_range[3:]
    axes = [
        (torch.arange(count, dtype=torch.float64) + 0.5) / count * (high[i] - low[i]) + low[i]
        for i, count in enumerate((level.volume_w, level.volume_h, level.volume_z))
    ]
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), z.flatten()]).float()
