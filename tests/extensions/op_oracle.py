"""The operators as plain loops over numpy float64: what every backend is compared with."""
import numpy as np


def squared(p, q):
    """Squared distance of two points."""
    return float(((p - q) ** 2).sum())


def ranked(cloud, point):
    """Pairs (squared distance, index) of a cloud's points, nearest first, equal ones by index."""
    return sorted((squared(other, point), index) for index, other in enumerate(cloud))


def furthest_point_sample(xyz, npoint, skip_origin=True):
    result = np.zeros((len(xyz), npoint), np.int64)
    for cloud, picked in zip(xyz, result, strict=True):
        for step in range(1, npoint):
            best = -1.0
            for index, point in enumerate(cloud):
                if skip_origin and (point ** 2).sum() <= 1e-3:
                    continue
                gap = min(squared(point, cloud[i]) for i in picked[:step])
                if gap > best:
                    best, picked[step] = gap, index
    return result


def knn(ref, query, k):
    shape = (*query.shape[:2], k)
    distance, index = np.zeros(shape), np.zeros(shape, np.int64)
    for b, i in np.ndindex(*query.shape[:2]):
        for j, (square, neighbour) in enumerate(ranked(ref[b], query[b, i])[:k]):
            distance[b, i, j], index[b, i, j] = np.sqrt(square), neighbour
    return distance, index


def chamfer(xyz1, xyz2):
    (dist1, idx1), (dist2, idx2) = knn(xyz2, xyz1, 1), knn(xyz1, xyz2, 1)
    return dist1[..., 0] ** 2, dist2[..., 0] ** 2, idx1[..., 0], idx2[..., 0]


def chamfer_backward(grad1, grad2, xyz1, xyz2, idx1, idx2):
    result1, result2 = np.zeros(xyz1.shape), np.zeros(xyz2.shape)
    for b, i in np.ndindex(*idx1.shape):
        pull = 2 * grad1[b, i] * (xyz1[b, i] - xyz2[b, idx1[b, i]])
        result1[b, i] += pull
        result2[b, idx1[b, i]] -= pull
    for b, i in np.ndindex(*idx2.shape):
        pull = 2 * grad2[b, i] * (xyz2[b, i] - xyz1[b, idx2[b, i]])
        result2[b, i] += pull
        result1[b, idx2[b, i]] -= pull
    return result1, result2


def group_points(features, idx):
    result = np.zeros((*features.shape[:2], *idx.shape[1:]))
    for b, *place in np.ndindex(*idx.shape):
        result[(b, slice(None), *place)] = features[b, :, idx[(b, *place)]]
    return result


def group_points_backward(grad, idx, n):
    result = np.zeros((*grad.shape[:2], n))
    for b, *place in np.ndindex(*idx.shape):
        result[b, :, idx[(b, *place)]] += grad[(b, slice(None), *place)]
    return result


gather_points, gather_points_backward = group_points, group_points_backward  # the same but for the axes of idx


def ball_query(xyz, new_xyz, radius, nsample):
    limit = float(np.float32(radius) * np.float32(radius))
    result = np.zeros((*new_xyz.shape[:2], nsample), np.int64)
    for b, i in np.ndindex(*new_xyz.shape[:2]):
        inside = [j for j, point in enumerate(xyz[b]) if squared(point, new_xyz[b, i]) < limit]
        for j in range(nsample if inside else 0):
            result[b, i, j] = inside[j] if j < len(inside) else inside[0]
    return result


def three_nn(unknown, known):
    return knn(known, unknown, 3)


def three_interpolate(features, idx, weight):
    return (group_points(features, idx) * weight[:, None]).sum(-1)


def three_interpolate_backward(grad, features, idx, weight):
    spread = grad[..., None] * weight[:, None]
    by_weight = (group_points(features, idx) * grad[..., None]).sum(1)
    return group_points_backward(spread, idx, features.shape[2]), by_weight


def max_points(x):
    return x.max(1), x.argmax(1)


def linear_max(x, weight, bias):
    return (x @ weight.T + bias).max(1)


def linear_max_backward(grad, idx, x, weight):
    by_x, by_weight = np.zeros_like(x), np.zeros_like(weight)
    for patch in range(len(x)):
        for channel, point in enumerate(idx[patch]):
            by_x[patch, point] += grad[patch, channel] * weight[channel]
            by_weight[channel] += grad[patch, channel] * x[patch, point]
    return by_x, by_weight


def norm_relu(x, offset, weight, bias, eps):
    x = x + offset[:, None]
    mean, variance = x.mean((0, 1)), x.var((0, 1))
    return np.maximum((x - mean) / np.sqrt(variance + eps) * weight + bias, 0), mean, variance


def norm_relu_backward(grad, x, offset, weight, bias, mean, variance, eps):
    normed = (x + offset[:, None] - mean) / np.sqrt(variance + eps)
    passed = grad * (normed * weight + bias > 0)
    by_bias, by_weight = passed.sum((0, 1)), (passed * normed).sum((0, 1))
    count = x.shape[0] * x.shape[1]
    by_x = (passed - by_bias / count - normed * by_weight / count) * weight / np.sqrt(variance + eps)
    return by_x, by_x.sum(1), by_weight, by_bias
