"""SurroundOcc, START HERE: six images and a calibration in, occupancy logits at four scales out (Wei et al., ICCV 2023).

    img ── backbone ── neck ── maps of three levels ─┐
                                                     ├─ attention per level ── volumes ── decoder ── logits
    lidar2img ── tables (who sees which voxel) ──────┘

Letters, here and in every file of this folder: B samples, N cameras, H x W padded image, C channels, (X, Y, Z) a volume as it
leaves the network (lidar axes: x right, y forward, z up), (z, h, w) the flat order of its voxels, V = X*Y*Z voxels.
`level` 0..2 are the feature levels, fine to coarse; `scale` 0..3 the outputs, coarse to fine.

There is one forward for training, eager use and export. The state dict has exactly the keys of the original's checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..config import Config
from .backbone import ResNet
from .head import OccHead
from .neck import FPN
from .projection import Budget, LevelTable, Projection


class SurroundOcc(nn.Module):
    """The whole network. Three pure functions: `features`, `tables`, `logits`; `forward` joins them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.img_backbone = ResNet(config.backbone)
        self.img_neck = FPN(config.neck)
        self.pts_bbox_head = OccHead(config)
        self.projection = Projection(config.levels, config.pc_range)  # holds no parameters

    def forward(self, img: Tensor, lidar2img: Tensor) -> tuple[Tensor, ...]:
        """Exact for every calibration: no voxel is ever dropped.

        Args:
            img: (B, N, 3, H, W) float32, BGR minus mean, zero-padded at the bottom and right; H and W multiples of 32.
            lidar2img: (B, N, 4, 4), lidar metres → pixels of the padded image.

        Returns:
            Four tensors (B, 17 or 1, X, Y, Z) float32: logits, coarse to fine.

        Raises:
            ValueError: an image or calibration of another shape.
        """
        self._check_images(img)
        if lidar2img.shape != (*img.shape[:2], 4, 4):
            raise ValueError(f"lidar2img: expected {(*img.shape[:2], 4, 4)} for img {tuple(img.shape)}, got {tuple(lidar2img.shape)}")
        tables, _ = self.tables(lidar2img, (img.shape[-2], img.shape[-1]))
        return self.logits(img, tables)

    def features(self, img: Tensor) -> tuple[Tensor, ...]:
        """(B, N, 3, H, W) → maps (B*N, C, H/8, W/8), (B*N, C, H/16, W/16), (B*N, C, H/32, W/32)."""
        self._check_images(img)
        maps: tuple[Tensor, ...] = self.img_neck(self.img_backbone(img.flatten(0, 1)))
        return maps

    def tables(
        self, lidar2img: Tensor, image_hw: tuple[int, int], budgets: Sequence[Budget] | None = None
    ) -> tuple[tuple[LevelTable, ...], Tensor]:
        """Which camera sees which voxel, as index tables; see `Projection.forward`.

        Args:
            lidar2img: (B, N, 4, 4).
            image_hw: height and width of the padded image.
            budgets: static room for each level; None takes exactly what this calibration needs.

        Returns:
            A table for each level, and `dropped` (B, levels) int64: how many hits found no room.
        """
        tables, dropped = self.projection(lidar2img, image_hw, budgets)
        return tables, dropped

    def logits(self, img: Tensor, tables: tuple[LevelTable, ...]) -> tuple[Tensor, ...]:
        """(B, N, 3, H, W) and tables → four logits (B, 17 or 1, X, Y, Z), coarse to fine."""
        out: tuple[Tensor, ...] = self.pts_bbox_head(self.features(img), tables)
        return out

    def _check_images(self, img: Tensor) -> None:
        num_cameras, shape = self.config.num_cameras, tuple(img.shape)
        if len(shape) != 5 or shape[1:3] != (num_cameras, 3) or shape[3] % 32 or shape[4] % 32:
            raise ValueError(f"img: expected (B, {num_cameras}, 3, H, W) with H and W multiples of 32, got {shape}")


def build_model(config: Config) -> SurroundOcc:
    """The network of a config in eval mode, with PyTorch's default initialisation; load or seed its weights next."""
    return SurroundOcc(config).eval()
