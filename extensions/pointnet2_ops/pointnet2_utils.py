"""Operators with the signatures of the published ``pointnet2_ops.pointnet2_utils`` (Wijmans 2018).

Indices are returned as int32, as there; any integer type is accepted. ``extensions.ops`` documents each in full.
"""
import torch
from torch import nn

from extensions import ops


def furthest_point_sample(xyz, npoint):
    """(B, N, 3) → (B, npoint) int32; points at the origin are skipped."""
    return ops.furthest_point_sample(xyz, npoint).int()


def gather_operation(features, idx):
    """(B, C, N), (B, M) → (B, C, M); differentiable."""
    return ops.gather_points(features, idx)


def grouping_operation(features, idx):
    """(B, C, N), (B, M, K) → (B, C, M, K); differentiable."""
    return ops.group_points(features, idx)


def three_nn(unknown, known):
    """(B, n, 3), (B, m, 3) → Euclidean distances and int32 indices (B, n, 3)."""
    distance, index = ops.three_nn(unknown, known)
    return distance, index.int()


def three_interpolate(features, idx, weight):
    """(B, C, m), (B, n, 3), (B, n, 3) → (B, C, n); differentiable in features and weight."""
    return ops.three_interpolate(features, idx, weight)


def ball_query(radius, nsample, xyz, new_xyz):
    """Radius, number, points (B, N, 3), centres (B, M, 3) → (B, M, nsample) int32."""
    return ops.ball_query(xyz, new_xyz, radius, nsample).int()


class QueryAndGroup(nn.Module):
    """Group points, and features if given, within ``radius`` of each centre; xyz relative to it."""

    def __init__(self, radius, nsample, use_xyz=True):
        super().__init__()
        self.radius, self.nsample, self.use_xyz = radius, nsample, use_xyz

    def forward(self, xyz, new_xyz, features=None):
        """(B, N, 3), (B, M, 3), (B, C, N) or None → (B, 3 + C, M, nsample); C or 3 alone where one is left out."""
        if features is None and not self.use_xyz:
            raise ValueError("without features QueryAndGroup needs use_xyz")
        index = ops.ball_query(xyz, new_xyz, self.radius, self.nsample)
        grouped = ops.group_points(xyz.transpose(1, 2), index) - new_xyz.transpose(1, 2).unsqueeze(-1)  # B 3 M K
        if features is None:
            return grouped
        features = ops.group_points(features, index)
        return torch.cat([grouped, features], 1) if self.use_xyz else features


class GroupAll(nn.Module):
    """One group of all points, features if given below their coordinates."""

    def __init__(self, use_xyz=True):
        super().__init__()
        self.use_xyz = use_xyz

    def forward(self, xyz, new_xyz, features=None):
        """(B, N, 3), ignored, (B, C, N) or None → (B, 3 + C, 1, N); C or 3 alone where one is left out."""
        grouped = xyz.transpose(1, 2).unsqueeze(2)  # B 3 1 N
        if features is None:
            return grouped
        features = features.unsqueeze(2)
        return torch.cat([grouped, features], 1) if self.use_xyz else features
