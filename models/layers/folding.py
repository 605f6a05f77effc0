"""FoldingNet decoder (Yang et al. 2018): a token becomes a coarse and a fine patch."""
from collections.abc import Sequence

import torch
from torch import nn

from models.layers.pointwise import norm_relu, pointwise, pointwise_split_norm_relu

GRID_STEPS = 2
GRID_EXTENT = 0.05


class FoldingDecoder(nn.Module):
    """Tokens (B, G, C) → coarse (B, G, K/4, 3) and fine (B, G, K, 3) points, relative to the patch's centre.

    ``widths`` are those of the MLP to the coarse points and of the layers that fold.
    """

    def __init__(self, in_channels: int, group_size: int, widths: Sequence[int] = (1024, 512)) -> None:
        super().__init__()
        coarse, fold = widths
        self.num_coarse = group_size // GRID_STEPS ** 2
        self.mlp = nn.Sequential(
            nn.Linear(in_channels, coarse), nn.ReLU(inplace=True),
            nn.Linear(coarse, coarse), nn.ReLU(inplace=True),
            nn.Linear(coarse, 3 * self.num_coarse))
        self.final_conv = nn.Sequential(
            nn.Conv1d(in_channels + 2 + 3, fold, 1), nn.BatchNorm1d(fold), nn.ReLU(inplace=True),
            nn.Conv1d(fold, fold, 1), nn.BatchNorm1d(fold), nn.ReLU(inplace=True),
            nn.Conv1d(fold, 3, 1))
        steps = torch.linspace(-GRID_EXTENT, GRID_EXTENT, GRID_STEPS)
        rows, columns = torch.meshgrid(steps, steps, indexing="ij")
        grid = torch.stack([columns, rows], -1).view(1, -1, 2)  # 1 4 2
        self.register_buffer("grid", grid.repeat(1, self.num_coarse, 1), persistent=False)  # 1 K 2

    def forward(self, tokens):
        batch, groups, channels = tokens.shape
        tokens = tokens.reshape(batch * groups, 1, channels)
        coarse = self.mlp(tokens).view(batch * groups, self.num_coarse, 3)
        anchor = coarse.repeat_interleave(GRID_STEPS ** 2, dim=1)  # BG K 3
        conv1, norm1, _, conv2, norm2, _, conv3 = self.final_conv
        x = pointwise_split_norm_relu(conv1, norm1, tokens, self.grid.to(tokens.dtype), anchor)  # BG K F
        x = norm_relu(norm2, pointwise(conv2, x))
        fine = pointwise(conv3, x) + anchor
        return coarse.view(batch, groups, -1, 3), fine.view(batch, groups, -1, 3)
