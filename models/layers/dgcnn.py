"""DGCNN over the patch centres (Wang et al. 2019), as the dVAE of Point-BERT uses it."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from extensions.ops import knn
from models.layers.patches import gather
from models.layers.pointwise import pointwise

NEIGHBOURS = 4


class DGCNN(nn.Module):
    """Four EdgeConvs on the graph of the nearest centres: tokens (B, G, C_in) → (B, G, C_out).

    ``widths`` are those of the input layer and of the EdgeConvs.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int] = (128, 256, 512, 512, 1024)) -> None:
        super().__init__()
        self.input_trans = nn.Conv1d(in_channels, widths[0], 1)
        for index, (width_in, width_out) in enumerate(zip(widths[:-1], widths[1:], strict=True), 1):
            self.add_module(f"layer{index}", nn.Sequential(
                nn.Conv2d(2 * width_in, width_out, 1, bias=False), nn.GroupNorm(4, width_out), nn.LeakyReLU(0.2)))
        self.layer5 = nn.Sequential(
            nn.Conv1d(sum(widths[1:]), out_channels, 1, bias=False),
            nn.GroupNorm(4, out_channels), nn.LeakyReLU(0.2))

    def forward(self, x, graph):
        """``graph`` (B, G, 4) holds each centre's neighbours, from ``center_graph``."""
        x = pointwise(self.input_trans, x)  # B G W
        outputs = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = edge_conv(layer, x, graph)  # B G C
            outputs.append(x)
        conv, norm, activation = self.layer5
        return activation(group_norm(norm, pointwise(conv, torch.cat(outputs, -1))))


def center_graph(center):
    """Return the indices (B, G, k) of the nearest centres of each of ``center`` (B, G, 3), itself included.

    The graph depends on the centres alone, so one serves every layer of both networks.
    """
    with torch.no_grad():
        return knn(center, center, min(NEIGHBOURS, center.shape[1]))[1]


def edge_conv(layer, x, graph):
    """Return the maximum over neighbours j of ``layer([x_j - x_i, x_i])``: (B, G, C) → (B, G, C').

    The product is taken per point and not per edge: W [x_j - x_i; x_i] = W_a x_j + (W_b - W_a) x_i.
    """
    conv, norm, activation = layer
    to_neighbour, to_self = conv.weight.flatten(1).chunk(2, dim=1)
    edges = gather(F.linear(x, to_neighbour), graph) + F.linear(x, to_self - to_neighbour).unsqueeze(2)  # B G k C'
    return activation(group_norm(norm, edges)).max(dim=2).values


def group_norm(norm, x):
    """Apply a ``GroupNorm`` to a channels-last ``x`` (B, ..., C)."""
    return norm(x.movedim(-1, 1)).movedim(1, -1)
