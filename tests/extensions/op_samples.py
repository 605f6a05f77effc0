"""Sample inputs of every operator, the one list behind the tests of values, contracts and compilation.

Coordinates are such that float32 decides every comparison as float64 does: random ones have no near-ties (fixed
seed), all others are small integers times a power of two, whose squared distances are exact.
"""
import itertools
from typing import NamedTuple

import torch


class Sample(NamedTuple):
    """One call of an operator: the name of its cloud, the operator and its arguments."""
    name: str
    operator: str
    arguments: tuple

    def __str__(self):
        numbers = [str(value) for value in self.arguments if not isinstance(value, torch.Tensor)]
        return "-".join([self.operator, self.name, *numbers])


def _clouds():
    """Pairs of clouds (B, N, 3), (B, M, 3) by name."""
    random = torch.Generator().manual_seed(7)
    grid = torch.tensor(list(itertools.product(range(3), repeat=3)), dtype=torch.float32)  # 27 3
    line = torch.arange(9, dtype=torch.float32).unsqueeze(1) * torch.tensor([1.0, 2.0, -1.0])
    small = torch.rand(2, 12, 3, generator=random) * 2 - 1
    return {
        "random": (torch.rand(2, 40, 3, generator=random) * 2 - 1, torch.rand(2, 17, 3, generator=random) * 2 - 1),
        "duplicates": (small.repeat(1, 3, 1), small[:, :5].repeat_interleave(2, 1)),
        "collinear": (line.repeat(2, 1, 1), line[::2].repeat(2, 1, 1) + 0.5),
        "equal": (torch.full((2, 10, 3), 0.5), torch.full((2, 4, 3), 0.5)),
        "ties": (torch.stack([grid, grid.flip(0)]), torch.stack([grid[:9] + 0.5, grid[:9] - 0.5])),
        "one_point": (torch.tensor([[[0.25, 0.5, -1.0]]]), torch.tensor([[[0.5, 0.5, 2.0]]])),
        "one_in_many": (small[:, :1], small[:, 3:8]),
        "empty_batch": (torch.zeros(0, 6, 3), torch.zeros(0, 4, 3)),
        "huge": (grid[None] * 2.0 ** 40, grid[None, 5:14] * 2.0 ** 40 + 2.0 ** 39),
        "far_off": (grid[None] / 64 + 8192, grid[None, ::4] / 64 + 8192 + 1 / 128),  # |a|² + |b|² − 2ab would fail
        "near_origin": (torch.cat([grid * 0.125 - 0.125, grid / 128, line, grid[:5] * 0])[None].repeat(2, 1, 1),
                        grid[None, :4].repeat(2, 1, 1) * 0),
        "all_at_origin": (torch.zeros(1, 6, 3), grid[None, :3] / 128),
    }


CLOUDS = _clouds()


def _of_pair(name, xyz, other):
    """Samples of the operators that take coordinates."""
    points = xyz.shape[1]
    for npoint in sorted({1, min(7, points), points, points + 2}):
        yield Sample(name, "furthest_point_sample", (xyz, npoint))
    yield Sample(name, "furthest_point_sample", (xyz, points, False))
    for k in sorted({1, min(4, points), points}):
        yield Sample(name, "knn", (xyz, other, k))
    yield Sample(name, "chamfer", (xyz, other))
    scale = 2.0 ** 40 if name == "huge" else 1 / 64 if name == "far_off" else 1.0
    for radius, nsample in ((0.1, 3), (1.0, 8), (9.0, points + 2)):
        yield Sample(name, "ball_query", (xyz, other, radius * scale, nsample))
    if points >= 3:
        yield Sample(name, "three_nn", (other, xyz))


def _of_features(name, batch, points, queries):
    """Samples of the operators that take features and indices, many of them repeated, and of all backwards."""
    random = torch.Generator().manual_seed(11)

    def draw(*shape):
        return torch.randn(batch, *shape, generator=random)

    def index(*shape):
        return torch.randint(points, (batch, *shape), generator=random)

    yield Sample(name, "gather_points", (draw(4, points), index(queries)))
    yield Sample(name, "gather_points_backward", (draw(4, queries), index(queries), points))
    yield Sample(name, "group_points", (draw(4, points), index(queries, 5)))
    yield Sample(name, "group_points_backward", (draw(4, queries, 5), index(queries, 5), points))
    yield Sample(name, "three_interpolate", (draw(4, points), index(queries, 3), draw(queries, 3)))
    yield Sample(name, "three_interpolate_backward",
                 (draw(4, queries), draw(4, points), index(queries, 3), draw(queries, 3)))
    yield Sample(name, "chamfer_backward", (draw(points), draw(queries), draw(points, 3), draw(queries, 3),
                                            torch.randint(queries, (batch, points), generator=random), index(queries)))
    weight, bias = torch.randn(5, 6, generator=random), torch.randn(5, generator=random)
    yield Sample(name, "max_points", (draw(points, 6),))
    yield Sample(name, "linear_max", (draw(points, 6), weight, bias))
    yield Sample(name, "linear_max_backward", (draw(5), index(5), draw(points, 6), weight))
    if batch * points > 1:
        norm = weight[0] + 2, weight[1]
        yield Sample(name, "norm_relu", (draw(points, 6), draw(6), *norm, 1e-5))
        yield Sample(name, "norm_relu_backward", (draw(points, 6), draw(points, 6), draw(6), *norm, bias.new_zeros(6),
                                                  bias.new_ones(6), 1e-5))


SAMPLES = [sample for name, pair in CLOUDS.items() for sample in _of_pair(name, *pair)]
SAMPLES += [sample for name, (xyz, other) in CLOUDS.items() if name in ("random", "one_in_many", "empty_batch")
            for sample in _of_features(name, *xyz.shape[:2], other.shape[1])]


def strided(value):
    """The same values in other memory: the last two axes swapped, every second element; others than matrices pass."""
    if not isinstance(value, torch.Tensor) or value.dim() < 2:
        return value
    spread = value.transpose(-1, -2).repeat_interleave(2, -2)
    return spread[..., ::2, :].transpose(-1, -2)


def one_of_each(name="random"):
    """The samples of one cloud, the first of each operator."""
    return list({sample.operator: sample for sample in reversed(SAMPLES) if sample.name == name}.values())


# operator, batch, points and what is asked: every path through the compiled kernels
SIZES = [
    ("furthest_point_sample", 3, 1000, 64), ("furthest_point_sample", 2, 5000, 300),
    ("furthest_point_sample", 2, 16384, 100), ("furthest_point_sample", 2, 20000, 100),
    ("furthest_point_sample", 1, 70001, 20), ("knn", 2, 1024, 32), ("knn", 2, 1000, 50), ("knn", 2, 500, 128),
    ("knn", 1, 1500, 600), ("knn", 1, 300, 300), ("knn", 2, 3000, 100), ("chamfer", 700, 32), ("chamfer", 2, 2048),
    ("chamfer", 3, 333), ("ball_query", 2, 2000, 0.2, 32), ("three_nn", 2, 700),
]


def large_sample(operator, batch, points, *asked):
    """A sample of one of SIZES; coordinates are multiples of 1/64, so that ties abound and all is exact."""
    random = torch.Generator().manual_seed(5)
    xyz, other = (torch.randint(-64, 65, (batch, count, 3), generator=random) / 64.0 for count in (points, points // 3))
    clouds = {"furthest_point_sample": (xyz,), "three_nn": (other, xyz)}.get(operator, (xyz, other))
    return Sample("large", operator, (*clouds, *asked))
