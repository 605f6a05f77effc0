"""Point-wise layers in channels-last order.

The published networks are built of ``Conv1d`` and ``Conv2d`` with kernel 1, which are matrix products over the last
axis of a channels-last tensor. The modules stay convolutions, so that checkpoints keep their shapes; the functions
here apply them without a transpose.
"""
import torch
import torch.nn.functional as F
from torch import nn


def pointwise(conv, x):
    """Apply a kernel-1 convolution to ``x`` (..., C_in) and return (..., C_out)."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def pointwise_split(conv, *parts):
    """Apply ``conv`` to the concatenation of ``parts`` along the last axis, without forming it.

    A part that is the same for a whole patch, of shape (B, 1, C), is multiplied once a patch instead of once a
    point; the results are added by broadcasting. Returns (B, N, C_out).
    """
    weights = conv.weight.flatten(1).split([part.shape[-1] for part in parts], dim=1)
    biases = [conv.bias, *[None] * (len(parts) - 1)]
    products = [F.linear(part, weight, bias) for part, weight, bias in zip(parts, weights, biases, strict=True)]
    result = max(products, key=torch.numel)
    for product in products:
        if product is not result:
            result += product  # in place: nothing needs the product itself again
    return result


def norm_relu(norm, x):
    """Apply a ``BatchNorm1d`` and a ReLU to ``x`` (..., C), the statistics over all leading axes."""
    return F.relu_(norm(x.flatten(0, -2))).view(x.shape)


class DropPath(nn.Module):
    """Drop a residual branch for a whole sample with probability ``rate`` (stochastic depth, Huang et al. 2016)."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = torch.empty(x.shape[0], *[1] * (x.dim() - 1), device=x.device, dtype=x.dtype).bernoulli_(keep)
        return x * mask / keep


def position_mlp(width):
    """Return the position embedding: an MLP from a patch's centre (3) to ``width``."""
    return nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
