"""The CUDA kernels, emulated, give the bits of the kernels in pure PyTorch: on both sides of every limit, in any order.

Coordinates named "grid" are multiples of 1/8, so that all is exact and ties abound.
"""
import contextlib
import os

import pytest
import torch

from extensions import kernels

DTYPES = [torch.float32, torch.float64]
# furthest point sampling: below, at and above what a thread, its registers and a block hold
FPS = [1, 2, 63, 64, 65, 128, 129, 256, 257, 300, 512, 513, 1024, 1025, 4095, 4096, 4097, 8192, 8193, 16384, 16385]
# points and k: lists of one to four registers, what is between their ends, and any k; k = N
KNN = [(1, 1), (2, 2), (31, 31), (33, 32), (33, 33), (64, 63), (64, 64), (65, 65), (100, 1), (100, 8), (97, 96),
       (128, 97), (128, 128), (129, 129), (300, 40), (160, 130), (700, 16)]
# batch and points of two clouds: patches of a warp, tiles, slices
CHAMFER = [(1, 1, 1), (5, 1, 64), (3, 64, 1), (9, 32, 32), (4, 33, 64), (2, 64, 65), (3, 65, 1), (3, 1, 65),
           (2, 255, 256), (1, 257, 300), (1, 7, 520), (1, 96, 7)]
# batch, channels, points, queries
FOLLOW = [(1, 1, 1, 1), (2, 3, 40, 17), (3, 5, 9, 100), (1, 1, 300, 700), (2, 65, 33, 31), (5, 4, 1, 64),
          (1, 7, 2, 300), (1, 2, 600, 33)]
BALLS = [(1, 1, 1, 1), (2, 31, 5, 4), (2, 32, 3, 32), (1, 33, 4, 40), (3, 64, 1, 7), (1, 300, 6, 33), (1, 65, 9, 1)]
ORDERS = [0, 1, 7]  # first come first, last come first, shuffled


@pytest.fixture(params=ORDERS, ids=lambda order: f"order{order}")
def order(emulator, request):
    """Run threads and blocks in different orders: none may matter."""
    emulator.set_order(request.param)
    yield request.param
    emulator.set_order(0)


def cloud(kind, *shape, dtype=torch.float32, seed=0):
    """A cloud in memory that is not aligned to more than its elements."""
    random = torch.Generator().manual_seed(seed + sum(shape))
    if kind == "random":
        x = torch.rand(shape, generator=random, dtype=torch.float64) * 2 - 1
    elif kind == "equal":
        x = torch.full(shape, 0.5, dtype=torch.float64)
    elif kind == "origin":  # most within the threshold of furthest point sampling
        x = torch.rand(shape, generator=random, dtype=torch.float64) * 0.06 - 0.03
    elif kind == "edge":  # what is furthest comes last
        x = torch.rand(shape, generator=random, dtype=torch.float64)
        x[:, -1], x[:, shape[1] // 2] = 9, -9
    else:
        large = 2.0 ** (100 if dtype == torch.float32 else 1000)
        scale = {"grid": 1 / 8, "zero": 0.0, "tiny": 2.0 ** -69, "overflow": large}[kind]
        x = torch.randint(-8, 9, shape, generator=random).double() * scale
    memory = torch.empty(1 + x.numel(), dtype=dtype)
    return memory[1:].view(shape).copy_(x)


def assert_same(results, expected, **tolerance):
    """Compare bits, or within a tolerance."""
    pair = (value if isinstance(value, tuple) else (value,) for value in (results, expected))
    for result, wanted in zip(*pair, strict=True):
        assert result.dtype == wanted.dtype
        torch.testing.assert_close(result, wanted, **({"rtol": 0, "atol": 0, "equal_nan": True} | tolerance))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("points", FPS)
def test_furthest_points(emulator, points, dtype):
    kinds = ("grid", "edge") if points > 600 else ("grid", "edge", "random", "equal", "origin", "zero")
    npoint = 3 if points > 2000 else min(points + 3, 10 if points > 70 else 70)
    for seed, kind in enumerate(kinds):
        emulator.set_order(seed)
        xyz = cloud(kind, 2 if points < 600 else 1, points, 3, dtype=dtype)
        for skip in (True, False)[:2 if points < 2000 else 1]:
            assert_same(emulator.call("furthest_point_sample", xyz, npoint, skip),
                        kernels.furthest_point_sample(xyz, npoint, skip))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("points", "k"), KNN)
def test_nearest_neighbours(emulator, points, k, dtype):
    for seed, kind in enumerate(("grid", "random", "equal", "overflow", "tiny")):
        emulator.set_order(seed)
        for dimensions, queries in ((3, 5), (1, 3), (7, 4))[:3 if kind == "grid" and points < 200 else 1]:
            ref, query = (cloud(kind, 2, count, dimensions, dtype=dtype) for count in (points, queries))
            distance, index = emulator.call("knn", ref, query, k)
            expected = kernels.knn(ref, query, k)
            assert index.equal(expected[1])
            assert_same(distance, expected[0], rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "n", "m"), CHAMFER)
def test_chamfer(emulator, batch, n, m, dtype):
    for seed, kind in enumerate(("grid", "random", "equal", "overflow")[:4 if n * m < 20000 else 1]):
        emulator.set_order(seed)
        xyz1, xyz2 = cloud(kind, batch, n, 3, dtype=dtype), cloud(kind, batch, m, 3, dtype=dtype, seed=1)
        found = emulator.call("chamfer", xyz1, xyz2)
        assert_same(found, kernels.chamfer(xyz1, xyz2))
        if kind != "overflow":
            grads = cloud("grid", batch, n, dtype=dtype), cloud("grid", batch, m, dtype=dtype, seed=1)
            arguments = *grads, xyz1, xyz2, *found[2:]
            near = 20 * (n + m) * torch.finfo(dtype).eps
            assert_same(emulator.call("chamfer_backward", *arguments), kernels.chamfer_backward(*arguments), atol=near)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "channels", "points", "queries"), FOLLOW)
def test_what_follows_indices(emulator, batch, channels, points, queries, dtype):
    emulator.set_order(queries % 5)
    random = torch.Generator().manual_seed(queries)
    idx = torch.randint(points, (batch, queries), generator=random)
    groups = torch.randint(points, (batch, queries, 3), generator=random)
    groups[:, :, 0] = 0  # many queries of one point, as where a ball is filled up
    features = cloud("random", batch, channels, points, dtype=dtype)
    weight = cloud("random", batch, queries, 3, dtype=dtype)
    grad, grad3 = (cloud("random", batch, channels, queries, *more, dtype=dtype) for more in ((), (3,)))
    near = {"rtol": 1e-5, "atol": 20 * (queries + channels) * torch.finfo(dtype).eps}
    for operator, arguments, tolerance in (
            ("gather_points", (features, idx), {}), ("group_points", (features, groups), {}),
            ("gather_points_backward", (grad, idx, points), near),
            ("group_points_backward", (grad3, groups, points), near),
            ("three_interpolate", (features, groups, weight), near),
            ("three_interpolate_backward", (grad, features, groups, weight), near)):
        assert_same(emulator.call(operator, *arguments), getattr(kernels, operator)(*arguments), **tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "points", "queries", "nsample"), BALLS)
def test_balls(emulator, batch, points, queries, nsample, dtype):
    for seed, kind in enumerate(("grid", "random", "equal", "overflow")):
        emulator.set_order(seed)
        xyz, centres = (cloud(kind, batch, count, 3, dtype=dtype, seed=i) for i, count in enumerate((points, queries)))
        for radius in (0.0, 0.5, 1e3):
            assert_same(emulator.call("ball_query", xyz, centres, radius, nsample),
                        kernels.ball_query(xyz, centres, radius, nsample))


@pytest.mark.usefixtures("order")
def test_gradients_are_the_same_every_time(emulator):
    """In whatever order threads and blocks run: sums are in the order of the queries, which is also the CPU's."""
    idx = torch.randint(50, (2, 400), generator=torch.Generator().manual_seed(0))
    grad = cloud("random", 2, 6, 400)
    assert emulator.call("gather_points_backward", grad, idx, 50).equal(kernels.gather_points_backward(grad, idx, 50))
    xyz1, xyz2 = cloud("random", 2, 300, 3), cloud("random", 2, 200, 3, seed=1)
    found = emulator.call("chamfer", xyz1, xyz2)
    gradients = emulator.call("chamfer_backward", *found[:2], xyz1, xyz2, *found[2:])
    emulator.set_order(3)
    assert_same(emulator.call("chamfer_backward", *found[:2], xyz1, xyz2, *found[2:]), gradients)


@pytest.mark.usefixtures("order")
def test_every_kernel_runs(emulator):
    """Each instantiation of each template, as the operators choose them, is executed here."""
    emulator.count(accesses=False)
    for dtype in DTYPES:
        for points in (40, 100, 200, 500, 8190, 16384, 16390):
            xyz = cloud("grid", 1, points, 3, dtype=dtype)
            emulator.call("furthest_point_sample", xyz, 2, True)
        for k in (5, 40, 70, 100, 130):
            emulator.call("knn", xyz[:, :140], xyz[:, :3], k)
        emulator.call("three_nn", xyz[:, :3], xyz[:, :40])
        emulator.call("ball_query", xyz[:, :40], xyz[:, :3], 0.5, 3)
        for points in (30, 70):
            one, two = xyz[:, :points], xyz[:, 100:130]
            found = emulator.call("chamfer", one, two)
            emulator.call("chamfer_backward", *found[:2], one, two, *found[2:])
        features, idx, weight = xyz[:, :40].mT, torch.arange(12).view(1, 4, 3), xyz[:, :4]
        out = emulator.call("three_interpolate", features, idx, weight)
        emulator.call("three_interpolate_backward", out, features, idx, weight)
        emulator.call("gather_points_backward", emulator.call("gather_points", features, idx[0]), idx[0], 40)
    ran = set(emulator.counts())
    assert ran == emulator.kernels()
    assert len(ran) >= 41


def test_many_clouds(emulator):
    """More than the 65,535 that a grid's second axis holds."""
    xyz, other = cloud("grid", 66001, 3, 3), cloud("grid", 66001, 2, 3, seed=1)
    assert_same(emulator.call("furthest_point_sample", xyz[:, :2], 2, True),
                kernels.furthest_point_sample(xyz[:, :2], 2, True))
    found = emulator.call("chamfer", other[:, :1], xyz[:, :1])
    assert_same(found, kernels.chamfer(other[:, :1], xyz[:, :1]))


def test_nothing_to_do(emulator):
    """No clouds, no queries, no channels: an empty grid would be an error."""
    e, call = torch.empty, emulator.call

    def i(*shape):
        return torch.zeros(shape, dtype=torch.int64)

    assert call("furthest_point_sample", e(0, 5, 3), 2, True).shape == (0, 2)
    for shape in ((0, 2, 3), (2, 0, 3)):
        assert call("knn", e(shape[0], 5, 3), e(shape), 2)[0].shape == (*shape[:2], 2)
        assert call("ball_query", e(shape[0], 5, 3), e(shape), 1.0, 3).shape == shape
    assert call("chamfer", e(0, 5, 3), e(0, 2, 3))[0].shape == (0, 5)
    assert call("chamfer_backward", e(0, 5), e(0, 2), e(0, 5, 3), e(0, 2, 3), i(0, 5), i(0, 2))[0].shape == (0, 5, 3)
    for shape in ((2, 0), (2, 3)):
        assert call("gather_points", e(*shape, 5), i(2, 0)).shape == (*shape, 0)
        assert call("gather_points_backward", e(*shape, 0), i(2, 0), 5).equal(torch.zeros(*shape, 5))
        assert call("group_points", e(*shape, 5), i(2, 0, 4)).shape == (*shape, 0, 4)
    assert call("gather_points_backward", e(2, 0, 4), i(2, 4), 5).shape == (2, 0, 5)
    assert call("three_interpolate", e(2, 0, 5), i(2, 4, 3), e(2, 4, 3)).shape == (2, 0, 4)
    by_features, by_weight = call("three_interpolate_backward", e(2, 0, 4), e(2, 0, 5), i(2, 4, 3), e(2, 4, 3))
    assert (by_features.shape, by_weight.equal(torch.zeros(2, 4, 3))) == ((2, 0, 5), True)
    by_features, by_weight = call("three_interpolate_backward", e(2, 3, 0), e(2, 3, 5), i(2, 0, 3), e(2, 0, 3))
    assert (by_features.equal(torch.zeros(2, 3, 5)), by_weight.shape) == (True, (2, 0, 3))


@pytest.mark.parametrize("wrong", [-1, 5, 2 ** 40])
def test_a_wrong_index_ends_the_launch(emulator, wrong):
    idx = torch.tensor([[wrong]])
    z = torch.zeros
    for operator, *arguments in (
            ("gather_points", z(1, 2, 5), idx), ("gather_points_backward", z(1, 2, 1), idx, 5),
            ("three_interpolate", z(1, 2, 5), idx[..., None].expand(1, 1, 3), z(1, 1, 3)),
            ("three_interpolate_backward", z(1, 2, 1), z(1, 2, 5), idx[..., None].expand(1, 1, 3), z(1, 1, 3)),
            ("chamfer_backward", z(1, 1), z(1, 5), z(1, 1, 3), z(1, 5, 3), idx, idx.new_zeros(1, 5))):
        with pytest.raises(RuntimeError, match="assertion failed: index >= 0 && index < points"):
            emulator.call(operator, *arguments)


@pytest.mark.slow
def test_random_sizes(emulator):
    """Random calls of any size and data, in any order: 60, or as many as ACT_RANDOM_CALLS says."""
    random = torch.Generator().manual_seed(0)

    def draw(*values):
        return values[torch.randint(len(values), (), generator=random)]

    def size(most):
        near = 32 * draw(*range(1, 9)) + draw(-1, 0, 1)
        return min(most, near) if draw(True, False) else draw(*range(1, most + 1))

    for call in range(int(os.environ.get("ACT_RANDOM_CALLS", 60))):
        emulator.set_order(call)
        dtype, n, m = draw(*DTYPES), size(700), size(260)
        kind = draw("grid", "random", "equal", "origin", "tiny", "overflow", "zero")
        one = cloud(kind, draw(1, 2, 5), n, 3, dtype=dtype, seed=call)
        two = cloud(kind, len(one), m, 3, dtype=dtype, seed=call + 1)
        k = draw(*range(1, min(n, draw(8, 33, 64, 130, 700)) + 1))
        idx = torch.randint(n, (len(one), m, 3), generator=random)
        operator, *arguments = draw(
            ("furthest_point_sample", one, draw(*range(1, 13)), draw(True, False)),
            ("knn", one, two[:, :5], k), ("chamfer", one, two),
            ("ball_query", one, two, draw(0.0, 0.1, 0.25, 0.5, 1.0, 3.0), draw(*range(1, 81))),
            ("group_points_backward", cloud("grid", len(one), draw(1, 3, 40), m, 3, dtype=dtype), idx, n))
        tolerance = {"rtol": 2 * torch.finfo(dtype).eps} if operator == "knn" else {}
        with named(f"{operator} of {kind} {tuple(one.shape)}, {tuple(two.shape)}, {dtype}, call {call}"):
            assert_same(emulator.call(operator, *arguments), getattr(kernels, operator)(*arguments), **tolerance)


@contextlib.contextmanager
def named(what):
    """Say what was being computed where it fails."""
    try:
        yield
    except Exception as error:
        raise AssertionError(what) from error
