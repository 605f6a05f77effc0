"""What points that are NaN or infinite do: the same on every backend, as extensions/ops.py says."""
import itertools

import numpy as np
import pytest
import torch

from extensions import ops

NAN, INF = float("nan"), float("inf")
# coordinates of one point each: NaN in part and in whole, infinite both ways, both at once
STRANGE = [(NAN, 0.5, 0.25), (NAN, NAN, NAN), (INF, 0.5, 0.25), (-INF, INF, 0), (INF, NAN, 0)]


def cloud(points, *strange, seed=0):
    """A cloud on a grid of 1/8, so that all is exact and ties abound, with ``strange`` as (place, point)."""
    random = torch.Generator().manual_seed(seed + points)
    xyz = torch.randint(-8, 9, (2, points, 3), generator=random) / 8.0
    for place, point in strange:
        xyz[0, place] = torch.tensor(point)
    return xyz


def squares(queries, others):
    """Squared distances (B, M, N), NaN where they are."""
    with np.errstate(invalid="ignore"):
        return ((queries.double().numpy()[:, :, None] - others.double().numpy()[:, None]) ** 2).sum(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("points", "k"), [(20, 3), (20, 20), (70, 33), (70, 70), (200, 150), (600, 40)])
def test_knn(points, k, dtype):
    """A distance that is not a number counts as infinite: by index among those that are."""
    strange = [(1 + 3 * i, point) for i, point in enumerate(STRANGE)]
    ref, query = cloud(points, *strange).to(dtype), cloud(8, *strange[:2], seed=1).to(dtype)
    distance, index = ops.knn(ref, query, k)
    exact = squares(query, ref)
    exact[np.isnan(exact)] = INF
    order = exact.argsort(-1, kind="stable")[..., :k]
    assert index.tolist() == order.tolist()
    np.testing.assert_allclose(distance, np.sqrt(np.take_along_axis(exact, order, -1)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("points", "others"), [(20, 17), (64, 64), (70, 300), (600, 20)])
def test_chamfer(points, others, dtype):
    """A distance that is not a number is the least of all, the first of several: as for ``torch.min``."""
    for point in STRANGE:
        xyz1, xyz2 = cloud(points, (points - 3, point)).to(dtype), cloud(others, seed=1).to(dtype)
        check_chamfer(xyz1, xyz2)
        check_chamfer(xyz2, xyz1)
    check_chamfer(cloud(points, (2, STRANGE[0]), (7, STRANGE[1]), (points - 1, STRANGE[2])).to(dtype),
                  cloud(others, (5, STRANGE[3]), (11, STRANGE[2]), seed=1).to(dtype))


def check_chamfer(xyz1, xyz2):
    found = ops.chamfer(xyz1, xyz2)
    exact = squares(xyz1, xyz2)
    for result, index, distance in ((found[0], found[2], exact), (found[1], found[3], exact.swapaxes(1, 2))):
        assert index.tolist() == distance.argmin(-1).tolist()  # numpy's has NaN first as well
        np.testing.assert_array_equal(result, distance.min(-1))


def test_nan_reaches_the_gradient():
    xyz1, xyz2 = cloud(20, (3, STRANGE[0])).requires_grad_(), cloud(17, seed=1).requires_grad_()
    dist1, dist2, *_ = ops.chamfer(xyz1, xyz2)
    grads = torch.autograd.grad(dist1.sum() + dist2.sum(), (xyz1, xyz2))
    assert grads[0][0, 3, 0].isnan()
    assert grads[1][0, :, 0].isnan().all()
    assert not grads[0][1].isnan().any()
    assert not grads[1][1].isnan().any()


def picks(xyz, npoint, skip_origin):
    """Furthest points by their definition, in the words of extensions/ops.py."""
    result = np.zeros((len(xyz), npoint), np.int64)
    for b, points in enumerate(xyz.double().numpy()):
        allowed = np.isfinite(points).all(1) & ~(skip_origin & ((points ** 2).sum(1) <= 1e-3))
        nearest = np.where(allowed, INF, -1)
        for step in range(1, npoint):
            with np.errstate(invalid="ignore"):
                nearest = np.fmin(nearest, ((points - points[result[b, step - 1]]) ** 2).sum(1))
            result[b, step] = nearest.argmax()
    return result


@pytest.mark.parametrize("points", [20, 64, 300, 1100, 5000, 20000])
def test_furthest_points(points):
    """They are picked only as the first or where there is no other; the distances of others stay numbers."""
    for place, skip in itertools.product((0, 1, points - 1), (True, False)):
        for point in STRANGE if points < 2000 else STRANGE[:1]:
            xyz = cloud(points, (place, point), (points // 2, STRANGE[1]))
            assert ops.furthest_point_sample(xyz, 12, skip).tolist() == picks(xyz, 12, skip).tolist()
    nothing = torch.full((1, points, 3), NAN)
    assert ops.furthest_point_sample(nothing, 4).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("radius", [0.5, INF])
def test_balls(radius):
    """A point that is not finite lies in no ball, a centre that is not finite has none."""
    xyz, centres = cloud(40, *enumerate(STRANGE)), cloud(6, (2, STRANGE[1]), (3, STRANGE[2]), seed=1)
    found = ops.ball_query(xyz, centres, radius, 4)
    exact = squares(centres, xyz)
    for b, q in np.ndindex(*found.shape[:2]):
        inside = np.flatnonzero(exact[b, q] < radius ** 2).tolist() or [0]
        assert found[b, q].tolist() == (inside + 4 * inside[:1])[:4]
