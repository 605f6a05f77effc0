"""Augmentations and subsampling of whole batches (B, N, 3), on their device, from torch's random generator."""
import torch

from extensions.ops import furthest_point_sample
from utils.errors import ConfigError, nearest


def scale_and_translate(points):
    """Scale every cloud's axes by factors from [2/3, 3/2] and shift them by up to ±0.2."""
    shape = (len(points), 1, 3)
    scale = torch.empty(shape, device=points.device).uniform_(2 / 3, 3 / 2)
    shift = torch.empty(shape, device=points.device).uniform_(-0.2, 0.2)
    return points * scale + shift


def scale_and_shift(points):
    """Scale every cloud by a factor from [0.8, 1.25] and shift its axes by up to ±0.1: the segmentation tasks'."""
    scale = torch.empty((len(points), 1, 1), device=points.device).uniform_(0.8, 1.25)
    shift = torch.empty((len(points), 1, 3), device=points.device).uniform_(-0.1, 0.1)
    return points * scale + shift


def scale(points):
    """Scale every cloud's axes by factors from [0.9, 1.1]."""
    return points * torch.empty((len(points), 1, 3), device=points.device).uniform_(0.9, 1.1)


def rotate(points):
    """Turn every cloud about the y axis by a uniformly random angle."""
    angle = torch.rand(len(points), device=points.device) * (2 * torch.pi)
    sine, cosine = angle.sin(), angle.cos()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [cosine, zero, sine, zero, one, zero, -sine, zero, cosine]
    return points @ torch.stack(rows, -1).view(-1, 3, 3)


TRANSFORMS = {"ScaleAndTranslate": scale_and_translate, "ScaleAndShift": scale_and_shift, "Scale": scale,
              "Rotate": rotate}


def build_transform(names):
    """Return a function that applies the named augmentations one after the other; none for None."""
    names = names or []
    for name in names:
        if name not in TRANSFORMS:
            raise ConfigError(f"unknown transform '{name}'{nearest(name, TRANSFORMS)}")

    def apply(points):
        for name in names:
            points = TRANSFORMS[name](points)
        return points

    return apply


# how many points furthest point sampling keeps before a random subset is drawn, by the subset's size
CANDIDATES = {1024: 1200, 2048: 2400, 4096: 4800, 8192: 8192}


def subsample(points, npoints, random):
    """Reduce clouds (B, N, C) to ``npoints`` points.

    With ``random`` (training): furthest point sampling to somewhat more, then one random subset for the whole batch.
    Without (evaluation): furthest point sampling alone. Coordinates must be the first three channels.
    """
    return random_subset(candidates(points, npoints), npoints) if random else furthest_subset(points, npoints)


def candidates(points, npoints):
    """Return the furthest-point-sampled points (B, K, C) that a random subset of ``npoints`` is drawn from."""
    count = CANDIDATES.get(npoints, npoints * 75 // 64)
    return furthest_subset(points, max(npoints, min(count, points.shape[1])))


def random_subset(points, npoints):
    """Return ``npoints`` random points (B, npoints, C), the same rows of every cloud in random order, as published."""
    return points[:, torch.randperm(points.shape[1], device=points.device)[:npoints]]


def furthest_subset(points, npoints):
    """Return ``npoints`` furthest-point-sampled points of clouds (B, N, C); ConfigError where there are fewer."""
    if points.shape[1] < npoints:
        raise ConfigError(f"npoints is {npoints}, but the clouds have only {points.shape[1]} points")
    if points.shape[1] == npoints:
        return points
    index = furthest_point_sample(points[..., :3].contiguous(), npoints)  # B npoints
    return points.gather(1, index.unsqueeze(-1).expand(-1, -1, points.shape[-1]))
