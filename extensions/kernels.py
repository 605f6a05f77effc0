"""Pure-PyTorch kernels of every operator, for any device and floating type."""
import torch
import torch.nn.functional as F

from extensions.schemas import LIBRARY

CHUNK = 1 << 19  # elements of a distance matrix held at once, so that it stays in the cache of a CPU
ORIGIN = 1e-3  # squared norm up to which pointnet2_ops takes a point for padding


def _kernel(function):
    LIBRARY.impl(function.__name__, function, "CompositeExplicitAutograd")
    return function


def _squared_distances(a, b):
    """Squared distances (B, M, N) of (B, M, D) and (B, N, D), the same bits wherever the same two points stand.

    Hence no |a|² + |b|² − 2ab, which cancels, and no fused multiply-add or library sum, whose rounding may depend on
    the place: coinciding points must tie exactly.
    """
    total = None
    for x, y in zip(a.movedim(-1, 0).contiguous(), b.movedim(-1, 0).contiguous(), strict=True):
        square = (x.unsqueeze(-1) - y.unsqueeze(-2)).square_()  # B M N
        total = square if total is None else total.add_(square)
    return total


def _chunks(batch, rows, columns):
    """Slices of batch and rows that cut a (batch, rows, columns) matrix into parts of about CHUNK elements."""
    clouds = max(1, CHUNK // max(1, rows * columns))
    height = max(1, CHUNK // max(1, columns))
    for i in range(0, batch, clouds):
        for j in range(0, rows, height):
            yield slice(i, i + clouds), slice(j, j + height)


def _smallest(distance, k):
    """Return the ``k`` smallest along the last axis, ascending, equal ones by index: (values, indices)."""
    if distance.dtype != torch.float32:
        values, index = distance.sort(dim=-1, stable=True)
        return values[..., :k], index[..., :k]
    # the bits of non-negative floats order like the floats; the index below them decides ties
    place = torch.arange(distance.shape[-1], device=distance.device)
    key = (distance.view(torch.int32).long() << 32).bitwise_or_(place)
    index = key.topk(k, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF
    return distance.gather(-1, index), index


@_kernel
def furthest_point_sample(xyz, npoint, skip_origin=True):
    axes = xyz.movedim(-1, 0).contiguous()  # 3 B N
    nearest = torch.full_like(axes[0], float("inf"))  # B N
    nearest.masked_fill_(~axes.isfinite().all(0), -1)
    if skip_origin:
        squares = axes.square()
        nearest.masked_fill_((squares[0] + squares[1]).add_(squares[2]) <= ORIGIN, -1)  # below every candidate
    picked = torch.zeros(xyz.shape[0], npoint, dtype=torch.int64, device=xyz.device)
    for step in range(1, npoint):
        last = picked[:, step - 1].view(1, -1, 1).expand(3, -1, -1)
        square = (axes - axes.gather(2, last)).square_()  # 3 B N
        # fmin: the first pick may be NaN
        torch.fmin(nearest, square[0].add_(square[1]).add_(square[2]), out=nearest)
        # the first of equal values; without a candidate all are -1 and that is index 0, as in pointnet2_ops
        picked[:, step] = nearest.argmax(1)
    return picked


@_kernel
def knn(ref, query, k):
    shape = (*query.shape[:2], k)
    distance, index = query.new_empty(shape), torch.empty(shape, dtype=torch.int64, device=query.device)
    for part in _chunks(query.shape[0], query.shape[1], ref.shape[1]):
        squares = _squared_distances(query[part], ref[part[0]]).nan_to_num_(nan=torch.inf, posinf=torch.inf)
        distance[part], index[part] = _smallest(squares, k)
    return distance.sqrt_(), index


@_kernel
def chamfer(xyz1, xyz2):
    one, two = xyz1.shape[:2], xyz2.shape[:2]
    dist1, idx1 = xyz1.new_empty(one), torch.empty(one, dtype=torch.int64, device=xyz1.device)
    dist2, idx2 = xyz2.new_full(two, float("inf")), torch.zeros(two, dtype=torch.int64, device=xyz2.device)
    for clouds, rows in _chunks(*one, two[1]):
        distance = _squared_distances(xyz1[clouds, rows], xyz2[clouds])  # B n M
        dist1[clouds, rows], idx1[clouds, rows] = distance.min(2)  # the first of equal values, or of NaN
        least, index = distance.min(1)
        known = (least >= dist2[clouds]) | dist2[clouds].isnan()
        dist2[clouds] = torch.where(known, dist2[clouds], least)
        idx2[clouds] = torch.where(known, idx2[clouds], index + rows.start)
    return dist1, dist2, idx1, idx2


@_kernel
def chamfer_backward(grad1, grad2, xyz1, xyz2, idx1, idx2):
    idx1, idx2 = idx1.unsqueeze(-1).expand_as(xyz1), idx2.unsqueeze(-1).expand_as(xyz2)
    pull1 = (xyz1 - xyz2.gather(1, idx1)).mul_(2 * grad1.unsqueeze(-1))  # B N 3
    pull2 = (xyz2 - xyz1.gather(1, idx2)).mul_(2 * grad2.unsqueeze(-1))  # B M 3
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
    points, found = xyz.shape[1], min(nsample, xyz.shape[1])
    limit = torch.full((), radius, dtype=xyz.dtype, device=xyz.device).square()  # rounded as pointnet2_ops does
    place = torch.arange(points, dtype=torch.int32, device=xyz.device)
    result = torch.empty(*new_xyz.shape[:2], nsample, dtype=torch.int64, device=xyz.device)
    for part in _chunks(new_xyz.shape[0], new_xyz.shape[1], points):
        inside = _squared_distances(new_xyz[part], xyz[part[0]]) < limit  # B M N
        first = torch.where(inside, place, points).topk(found, dim=-1, largest=False, sorted=True).values
        result[part][..., :found] = torch.where(first == points, first[..., :1], first)
        result[part][..., found:] = first[..., :1]
    return result.masked_fill_(result == points, 0)


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


@_kernel
def max_points(x):
    return x.max(1)


@_kernel
def linear_max(x, weight, bias):
    values, idx = torch.ops.act_ops.max_points(F.linear(x, weight))
    return values if bias is None else values + bias, idx  # the bias moves all points of a patch alike


@_kernel
def linear_max_backward(grad, idx, x, weight):
    dense = grad.new_zeros(*x.shape[:2], len(weight)).scatter_(1, idx.unsqueeze(1), grad.unsqueeze(1))  # P K C
    return dense @ weight, dense.flatten(0, 1).T @ x.flatten(0, 1)


@_kernel
def norm_relu(x, offset, weight, bias, eps):
    x = (x if offset is None else x + offset.unsqueeze(1)).contiguous()
    variance, mean = torch.var_mean(x, (0, 1), correction=0)
    return ((x - mean) * (weight * torch.rsqrt(variance + eps)) + bias).relu_(), mean, variance


@_kernel
def norm_relu_backward(grad, x, offset, weight, bias, mean, variance, eps):
    inverse = torch.rsqrt(variance + eps)
    centred = (x if offset is None else x + offset.unsqueeze(1)).contiguous() - mean  # P K C
    passed = grad.contiguous() * (centred * (weight * inverse) + bias > 0)
    by_bias, by_weight = passed.sum((0, 1)), (passed * centred).sum((0, 1)) * inverse
    count = x.shape[0] * x.shape[1]
    by_x = (passed - by_bias / count - centred * (by_weight * inverse / count)) * (weight * inverse)
    return by_x, by_x.new_empty(0, x.shape[2]) if offset is None else by_x.sum(1), by_weight, by_bias
