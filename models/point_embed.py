"""From a cloud to patch tokens: grouping, and the small PointNet that encodes a patch."""
import torch
from torch import nn

from extensions.ops import furthest_point_sample, knn
from models.layers import norm_relu, pointwise, pointwise_split
from utils.errors import DataError


def gather(points, index):
    """Return the rows ``index`` (B, ...) of ``points`` (B, N, C) as (B, ..., C)."""
    batch, channels = points.shape[0], points.shape[-1]
    flat = index.reshape(batch, -1, 1).expand(-1, -1, channels)
    return points.gather(1, flat).view(*index.shape, channels)


def group(xyz, num_group, group_size):
    """Cut clouds into patches: furthest-point-sampled centres and their nearest neighbours.

    Args:
        xyz: (B, N, 3) points.
        num_group: number of patches G.
        group_size: points a patch K.

    Returns:
        neighborhood (B, G, K, 3), relative to its centre, nearest first, and center (B, G, 3).

    Raises DataError where a cloud has fewer points than the patches need.
    """
    if xyz.shape[1] < max(num_group, group_size):
        raise DataError(f"clouds of {xyz.shape[1]} points cannot be cut into {num_group} groups of {group_size}: "
                        f"raise npoints or lower model.num_group / model.group_size")
    with torch.no_grad():
        center = gather(xyz, furthest_point_sample(xyz, num_group))  # B G 3
        _, index = knn(xyz, center, group_size)  # B G K
    return gather(xyz, index) - center[:, :, None], center


class PatchEncoder(nn.Module):
    """A two-stage PointNet over each patch: (B, G, K, 3) → (B, G, C)."""

    def __init__(self, channels):
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, 128, 1), nn.BatchNorm1d(128), nn.ReLU(inplace=True), nn.Conv1d(128, 256, 1))
        self.second_conv = nn.Sequential(
            nn.Conv1d(512, 512, 1), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Conv1d(512, channels, 1))

    def forward(self, neighborhood):
        batch, groups, size, _ = neighborhood.shape
        x = neighborhood.flatten(0, 1)  # BG K 3
        conv1, norm1, _, conv2 = self.first_conv
        local = pointwise(conv2, norm_relu(norm1, pointwise(conv1, x)))  # BG K 256
        overall = local.max(dim=1, keepdim=True).values  # BG 1 256
        conv3, norm2, _, conv4 = self.second_conv
        x = norm_relu(norm2, pointwise_split(conv3, overall, local))  # BG K 512
        return pointwise(conv4, x).max(dim=1).values.view(batch, groups, -1)
