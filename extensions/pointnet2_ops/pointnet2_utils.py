"""Operators with the signatures of the published ``pointnet2_ops.pointnet2_utils`` (Wijmans 2018).

Indices are returned as int32, as there; any integer type is accepted. ``extensions.ops`` documents each in full.
"""
import torch
from torch import nn

from extensions import ops


class FurthestPointSampling:
    """Called by ``apply``, like the classes below; not differentiable. Points at the origin are skipped."""

    @staticmethod
    def apply(xyz: torch.Tensor, npoint: int) -> torch.Tensor:
        """(B, N, 3) → (B, npoint) int32."""
        return ops.furthest_point_sample(xyz, npoint).int()


class GatherOperation:
    """Differentiable in the features."""

    @staticmethod
    def apply(features: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        """(B, C, N), (B, M) → (B, C, M)."""
        return ops.gather_points(features, idx)


class ThreeNN:
    """Not differentiable."""

    @staticmethod
    def apply(unknown: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, n, 3), (B, m, 3) → Euclidean distances and int32 indices (B, n, 3)."""
        distance, index = ops.three_nn(unknown, known)
        return distance, index.int()


class ThreeInterpolate:
    """Differentiable in the features, as published, and in the weight."""

    @staticmethod
    def apply(features: torch.Tensor, idx: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(B, C, m), (B, n, 3), (B, n, 3) → (B, C, n)."""
        return ops.three_interpolate(features, idx, weight)


class GroupingOperation:
    """Differentiable in the features."""

    @staticmethod
    def apply(features: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        """(B, C, N), (B, M, K) → (B, C, M, K)."""
        return ops.group_points(features, idx)


class BallQuery:
    """Not differentiable."""

    @staticmethod
    def apply(radius: float, nsample: int, xyz: torch.Tensor, new_xyz: torch.Tensor) -> torch.Tensor:
        """Radius, number, points (B, N, 3), centres (B, M, 3) → (B, M, nsample) int32."""
        return ops.ball_query(xyz, new_xyz, radius, nsample).int()


furthest_point_sample = FurthestPointSampling.apply
gather_operation = GatherOperation.apply
three_nn = ThreeNN.apply
three_interpolate = ThreeInterpolate.apply
grouping_operation = GroupingOperation.apply
ball_query = BallQuery.apply


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
