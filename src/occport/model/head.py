"""The occupancy head: three attention levels and the 3D decoder that joins them (upstream `OccHead`).

Letters: B samples, N cameras, C width of a level, (X, Y, Z) a volume, V = X*Y*Z its voxels.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..config import Config
from .attention import GROUPS, LevelTransformer
from .projection import LevelTable


class OccHead(nn.Module):
    """Image features and tables in, logits at four scales out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.transfer_conv = nn.ModuleList(
            nn.Sequential(nn.Conv2d(config.neck.out_channels, level.width, 1), nn.ReLU()) for level in config.levels
        )
        self.volume_embedding = nn.ModuleList(nn.Embedding(level.num_voxels, level.width) for level in config.levels)
        self.transformer = nn.ModuleList(LevelTransformer(level, config.num_cameras) for level in config.levels)
        decoder = config.decoder
        self.deblocks = nn.ModuleList(
            _deblock(*sizes) for sizes in zip(decoder.conv_input, decoder.conv_output, decoder.upsample_strides, strict=True)
        )
        self.out_indices = decoder.out_indices
        self.occ = nn.ModuleList(nn.Conv3d(decoder.conv_output[i], config.num_classes, 1, bias=False) for i in decoder.out_indices)

    def forward(self, feats: tuple[Tensor, ...], tables: tuple[LevelTable, ...]) -> tuple[Tensor, ...]:
        """Maps (B*N, C, h, w) and tables, fine to coarse → logits (B, classes, X, Y, Z), coarse to fine."""
        return self.decode(self.lift(feats, tables))

    def lift(self, feats: tuple[Tensor, ...], tables: tuple[LevelTable, ...]) -> list[Tensor]:
        """Maps (B*N, C, h, w) and tables → volumes (B, C, X, Y, Z); all fine to coarse."""
        return [
            self.transformer[i](self.volume_embedding[i].weight, self.transfer_conv[i](feat), tables[i]) for i, feat in enumerate(feats)
        ]

    def decode(self, volumes: list[Tensor]) -> tuple[Tensor, ...]:
        """Volumes, fine to coarse → logits, coarse to fine. After each up-sampling the next finer volume is added, while there is one."""
        *finer, x = volumes
        logits: list[Tensor] = []
        for i, block in enumerate(self.deblocks):
            x = block(x)
            if i in self.out_indices:
                logits.append(self.occ[len(logits)](x))
            elif finer:
                x = x + finer.pop()
        return tuple(logits)


def _deblock(channels: int, out: int, stride: int) -> nn.Sequential:
    """Convolution 3x3x3, or transposed convolution 2x2x2 for stride 2; GroupNorm; ReLU."""
    conv: nn.Module
    if stride == 1:
        conv = nn.Conv3d(channels, out, 3, padding=1, bias=False)
    else:
        conv = nn.ConvTranspose3d(channels, out, stride, stride=stride, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, out), nn.ReLU())
