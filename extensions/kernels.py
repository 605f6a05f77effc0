"""Pure-PyTorch kernels of every operator, for any device and floating type."""
import torch

from extensions.schemas import LIBRARY

CHUNK = 1 << 25  # elements of a distance matrix held at once
ORIGIN = 1e-3  # squared norm up to which pointnet2_ops takes a point for padding


def _kernel(function):
    LIBRARY.impl(function.__name__, function, "CompositeExplicitAutograd")
    return function


def _squared_distances(a, b):
    """Exact squared distances (B, M, N) of (B, M, D) and (B, N, D): no |a|² + |b|² − 2ab, which cancels."""
    return sum((a[..., i, None] - b[..., None, :, i]).square() for i in range(a.shape[-1]))


def _smallest(distance, k):
    """Return the ``k`` smallest along the last axis, ascending, equal ones by index: (values, indices)."""
    if distance.dtype != torch.float32:
        values, index = distance.sort(dim=-1, stable=True)
        return values[..., :k].contiguous(), index[..., :k].contiguous()
    # the bits of non-negative floats order like the floats; the index below them decides ties
    place = torch.arange(distance.shape[-1], device=distance.device)
    key = (distance.contiguous().view(torch.int32).to(torch.int64) << 32) | place
    index = key.topk(k, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF
    return distance.gather(-1, index), index


@_kernel
def furthest_point_sample(xyz, npoint, skip_origin=True):
    batch = xyz.shape[0]
    axes = xyz.movedim(-1, 0).contiguous()  # 3 B N
    nearest = torch.full(xyz.shape[:2], float("inf"), dtype=xyz.dtype, device=xyz.device)
    if skip_origin:
        nearest.masked_fill_(axes.square().sum(0) <= ORIGIN, -1)  # stays below every candidate
    picked = torch.zeros(batch, npoint, dtype=torch.int64, device=xyz.device)
    last = picked[:, :1]  # B 1
    for step in range(1, npoint):
        point = axes.gather(2, last.expand(3, -1, -1))  # 3 B 1
        torch.minimum(nearest, (axes - point).square_().sum(0), out=nearest)
        # all-skipped clouds have no candidate, and the first index of equal values is 0
        last = nearest.argmax(1, keepdim=True)
        picked[:, step:step + 1] = last
    return picked


@_kernel
def knn(ref, query, k):
    batch, queries, points = ref.shape[0], query.shape[1], ref.shape[1]
    step = max(1, CHUNK // max(1, queries * points))
    results = [_smallest(_squared_distances(query[i:i + step], ref[i:i + step]), k) for i in range(0, batch, step)]
    if not results:
        return query.new_empty(0, queries, k), torch.empty(0, queries, k, dtype=torch.int64, device=query.device)
    distance, index = (torch.cat(parts) for parts in zip(*results, strict=True))
    return distance.sqrt_(), index


@_kernel
def chamfer(xyz1, xyz2):
    batch, n, m = xyz1.shape[0], xyz1.shape[1], xyz2.shape[1]
    result = (xyz1.new_empty(batch, n), xyz2.new_empty(batch, m),
              torch.empty(batch, n, dtype=torch.int64, device=xyz1.device),
              torch.empty(batch, m, dtype=torch.int64, device=xyz1.device))
    step = max(1, CHUNK // max(1, n * m))
    for i in range(0, batch, step):
        distance = _squared_distances(xyz1[i:i + step], xyz2[i:i + step])
        part = slice(i, i + step)
        torch.min(distance, 2, out=(result[0][part], result[2][part]))
        torch.min(distance, 1, out=(result[1][part], result[3][part]))
    return result


@_kernel
def chamfer_backward(grad1, grad2, xyz1, xyz2, idx1, idx2):
    idx1, idx2 = idx1.unsqueeze(-1).expand_as(xyz1), idx2.unsqueeze(-1).expand_as(xyz2)
    pull1 = 2 * grad1.unsqueeze(-1) * (xyz1 - xyz2.gather(1, idx1))
    pull2 = 2 * grad2.unsqueeze(-1) * (xyz2 - xyz1.gather(1, idx2))
    return pull1.scatter_add(1, idx2, -pull2), pull2.scatter_add(1, idx1, -pull1)


@_kernel
def gather_points(features, idx):
    return features.gather(2, idx.unsqueeze(1).expand(-1, features.shape[1], -1))


@_kernel
def gather_points_backward(grad, idx, n):
    zeros = grad.new_zeros(*grad.shape[:2], n)
    return zeros.scatter_add_(2, idx.unsqueeze(1).expand(-1, grad.shape[1], -1), grad)


@_kernel
def group_points(features, idx):
    return gather_points(features, idx.flatten(1)).view(*features.shape[:2], *idx.shape[1:])


@_kernel
def group_points_backward(grad, idx, n):
    return gather_points_backward(grad.flatten(2), idx.flatten(1), n)


@_kernel
def ball_query(xyz, new_xyz, radius, nsample):
    inside = _squared_distances(new_xyz, xyz) < radius ** 2  # B M N
    points = xyz.shape[1]
    place = torch.arange(points, device=xyz.device).masked_fill(~inside, points)  # B M N
    first = place.topk(min(nsample, points), dim=-1, largest=False, sorted=True).values
    first = torch.nn.functional.pad(first, (0, nsample - first.shape[-1]), value=points)
    first = torch.where(first == points, first[..., :1], first)
    return first.masked_fill(first == points, 0)


@_kernel
def three_nn(unknown, known):
    return knn(known, unknown, 3)


@_kernel
def three_interpolate(features, idx, weight):
    return (group_points(features, idx) * weight.unsqueeze(1)).sum(-1)


@_kernel
def three_interpolate_backward(grad, features, idx, weight):
    spread = grad.unsqueeze(-1) * weight.unsqueeze(1)  # B C n 3
    by_weight = (group_points(features, idx) * grad.unsqueeze(-1)).sum(1)  # B n 3
    return group_points_backward(spread, idx, features.shape[2]), by_weight
