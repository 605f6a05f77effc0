"""From a cloud to patch tokens and back: grouping, the small PointNet that encodes a patch, and interpolation."""
import torch
from torch import nn

from extensions.ops import furthest_point_sample, knn, linear_max, three_interpolate, three_nn
from models.layers.pointwise import composed_split_norm_relu, norm_relu, pointwise
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
                        f"raise npoints, or lower the number of the model's groups or their size")
    with torch.no_grad():
        center = gather(xyz, furthest_point_sample(xyz, num_group))  # B G 3
        _, index = knn(xyz, center, group_size)  # B G K
    return gather(xyz, index) - center[:, :, None], center


class PatchEncoder(nn.Module):
    """A two-stage PointNet over each patch: (B, G, K, 3) → (B, G, C).

    ``widths`` are those of the input and of the three layers before the last.
    """

    def __init__(self, channels, widths=(3, 128, 256, 512)):
        super().__init__()
        given, first, local, second = widths
        self.first_conv = nn.Sequential(
            nn.Conv1d(given, first, 1), nn.BatchNorm1d(first), nn.ReLU(inplace=True), nn.Conv1d(first, local, 1))
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * local, second, 1), nn.BatchNorm1d(second), nn.ReLU(inplace=True),
            nn.Conv1d(second, channels, 1))

    def forward(self, neighborhood):
        return self.after_first_layer(pointwise(self.first_conv[0], neighborhood))

    def after_first_layer(self, x):
        """Finish what the first layer has begun: (B, G, K, 128) → (B, G, C)."""
        batch, groups = x.shape[:2]
        x = x.flatten(0, 1)  # BG K 128
        _, norm1, _, conv2 = self.first_conv
        conv3, norm2, _, conv4 = self.second_conv
        x = norm_relu(norm1, x)
        overall = linear_max(x, conv2.weight.flatten(1), conv2.bias).unsqueeze(1)  # BG 1 256
        x = composed_split_norm_relu(conv2, conv3, norm2, overall, x)  # BG K 512
        return linear_max(x, conv4.weight.flatten(1), conv4.bias).view(batch, groups, -1)


def interpolate(points, center, features):
    """Mix the features (B, G, C) of the three nearest centres (B, G, 3) for each of the points (B, N, 3).

    Weights are the inverse squared distances, normalised (PointNet++, equation 2). Where there are fewer than three
    centres, those that there are count.
    """
    if center.shape[1] < 3:
        repeats = -(-3 // center.shape[1])
        center, features = center.repeat(1, repeats, 1), features.repeat(1, repeats, 1)
    with torch.no_grad(), torch.autocast(points.device.type, enabled=False):
        distance, index = three_nn(points, center)  # B N 3
        weight = 1 / (distance.square() + 1e-8)
        weight = weight / weight.sum(-1, keepdim=True)
    return three_interpolate(features.float().transpose(1, 2), index, weight).transpose(1, 2)


def position_mlp(width, hidden=128):
    """Return the position embedding: an MLP from a patch's centre (3) to ``width``."""
    return nn.Sequential(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, width))
