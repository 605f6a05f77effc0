"""Features of a coarser scale carried to a finer one (PointNet++): in I2P-MAE's decoder, and in segmentation."""
import torch.nn.functional as F
from torch import nn

from models.layers.patches import interpolate
from models.layers.pointwise import norm_relu, pointwise


class ResidualFeaturePropagation(nn.Module):
    """Three-nearest-neighbour interpolation, joined with the finer tokens, then convolutions.

    The form is PointNet++'s feature propagation with the residual layers of PointMLP, and GELU.
    """

    def __init__(self, coarse, channels, blocks):
        super().__init__()
        self.fuse = nn.Module()
        self.fuse.net = conv_norm_gelu(channels + coarse, channels)
        self.extraction = nn.Module()
        self.extraction.operation = nn.Sequential(*(ResidualConv(channels) for _ in range(blocks)))

    def forward(self, points, center, skip, features):
        """Centres (B, N, 3) and (B, G, 3), tokens (B, N, C) and (B, G, C') of both scales → (B, N, C).

        The first layer is linear, and so is interpolation: the layer is applied to the coarser tokens, of which there
        are fewer.
        """
        conv, norm, gelu = self.fuse.net
        weight = conv.weight.flatten(1)
        own, coarse = weight.split([skip.shape[-1], features.shape[-1]], dim=1)
        mixed = interpolate(points, center, F.linear(features, coarse))  # B N C
        return self.extraction.operation(gelu(batch_norm(norm, mixed + F.linear(skip, own, conv.bias))))


def conv_norm_gelu(given, channels):
    """Return the layers of a kernel-1 convolution with batch norm and GELU."""
    return nn.Sequential(nn.Conv1d(given, channels, 1), nn.BatchNorm1d(channels), nn.GELU())


def batch_norm(norm, x):
    """Apply a ``BatchNorm1d`` to ``x`` (..., C), the statistics over all leading axes."""
    return norm(x.flatten(0, -2)).view(x.shape)


class ResidualConv(nn.Module):
    """Two kernel-1 convolutions with batch norm around which the input (B, N, C) is led."""

    def __init__(self, channels):
        super().__init__()
        self.net1 = conv_norm_gelu(channels, channels)
        self.net2 = conv_norm_gelu(channels, channels)[:2]

    def forward(self, x):
        conv1, norm1, gelu = self.net1
        conv2, norm2 = self.net2
        hidden = gelu(batch_norm(norm1, pointwise(conv1, x)))
        return gelu(batch_norm(norm2, pointwise(conv2, hidden)) + x)


class FeaturePropagation(nn.Module):
    """Features from patch centres to points: interpolation, then two layers over ``[xyz, interpolated]``."""

    def __init__(self, channels, widths):
        super().__init__()
        widths = (channels, *widths)
        pairs = list(zip(widths, widths[1:], strict=False))
        self.mlp_convs = nn.ModuleList(nn.Conv1d(before, after, 1) for before, after in pairs)
        self.mlp_bns = nn.ModuleList(nn.BatchNorm1d(after) for _, after in pairs)

    def forward(self, points, center, features):
        """(B, N, 3), (B, G, 3), (B, G, C) → (B, N, C').

        The first layer is linear, and so is interpolation with weights that add up to 1: it is applied to the patches
        instead of the points, of which there are many more.
        """
        first, second = self.mlp_convs
        weight = first.weight.flatten(1)
        mixed = interpolate(points, center, F.linear(features, weight[:, 3:]))  # B N C
        x = norm_relu(self.mlp_bns[0], mixed + F.linear(points, weight[:, :3], first.bias))
        return norm_relu(self.mlp_bns[1], pointwise(second, x))
