"""Tokens of a coarser scale to a finer one, in I2P-MAE's decoder."""
import torch.nn.functional as F
from torch import nn

from models.layers.patches import interpolate
from models.layers.pointwise import pointwise


class TokenPropagation(nn.Module):
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
