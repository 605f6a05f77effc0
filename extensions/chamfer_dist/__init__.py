"""Chamfer losses with the signatures of the published ``chamfer_dist`` package (GRNet, Xie et al. 2020).

Each is a module with ``forward(xyz1, xyz2)`` of clouds (B, N, 3) and (B, M, 3). Shapes that do not fit are a
ValueError.
"""
import torch
from torch import nn

from extensions.ops import chamfer

TINY = 1e-24  # keeps the gradient of a square root finite where two points coincide


class ChamferFunction:
    """Squared distances by ``apply``, as of the published autograd function."""

    @staticmethod
    def apply(xyz1: torch.Tensor, xyz2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, 3), (B, M, 3) → (B, N) and (B, M), each to the nearest of the other cloud; differentiable in both."""
        return chamfer(xyz1, xyz2)[:2]


class _Chamfer(nn.Module):
    """``ignore_zeros`` drops padding from both clouds of a batch of one, and of no other: points that add up to 0.

    As published, these are (0, 0, 0) and any point whose coordinates cancel.
    """

    def __init__(self, ignore_zeros=False):
        super().__init__()
        self.ignore_zeros = ignore_zeros

    def distances(self, xyz1, xyz2):
        """Return the squared distances (B, N) and (B, M) to the other cloud."""
        if self.ignore_zeros and xyz1.shape[0] == 1:
            xyz1, xyz2 = (xyz[xyz.sum(-1).ne(0)].unsqueeze(0) for xyz in (xyz1, xyz2))
        return ChamferFunction.apply(xyz1, xyz2)


class ChamferDistanceL2(_Chamfer):
    """Mean squared distance of xyz1 to xyz2 plus that of xyz2 to xyz1: a scalar."""

    def forward(self, xyz1, xyz2):
        one, two = self.distances(xyz1, xyz2)
        return one.mean() + two.mean()


class ChamferDistanceL2_split(_Chamfer):  # noqa: N801 - the published name
    """The two means of ChamferDistanceL2 apart: of xyz1 to xyz2, of xyz2 to xyz1."""

    def forward(self, xyz1, xyz2):
        one, two = self.distances(xyz1, xyz2)
        return one.mean(), two.mean()


class ChamferDistanceL1(_Chamfer):
    """Mean distance of xyz1 to xyz2 and that of xyz2 to xyz1, averaged: a scalar.

    Where two points coincide the gradient is zero.
    """

    def forward(self, xyz1, xyz2):
        one, two = self.distances(xyz1, xyz2)
        return (one.clamp_min(TINY).sqrt().mean() + two.clamp_min(TINY).sqrt().mean()) / 2
