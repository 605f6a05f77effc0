"""Point operators as Python functions; the one import for the rest of the code base.

Geometry is computed in float32 whatever the autocast mode: float16 and bfloat16 inputs are raised to it, float64 stays
float64. Coordinates may have any unit; distances come in the same one, or its square where said. Any strides will do.
Indices are int64; any integer type is accepted. Wrong shapes or types are a ValueError of one line that names them.
Which kernel runs is torch's dispatch alone, see ``extensions.backend``.
"""
import torch
import torch.nn.functional as F

import extensions


def furthest_point_sample(xyz, npoint, skip_origin=True):
    """Pick points of each cloud, each the furthest from those picked before it (PointNet++, Qi et al. 2017).

    Args:
        xyz: (B, N, 3), N at least 1.
        npoint: how many, at least 1; beyond N indices repeat.
        skip_origin: never pick a point whose squared norm is at most 1e-3, as pointnet2_ops does, with which the
            released weights were trained. Such a point is picked only as the first, which is always index 0, or
            where the cloud has no other.

    Returns: (B, npoint) indices; of equally far points the lowest. A point that is not finite is never picked but as
        the first, or where there is no other, and then changes no distance that it would make NaN.
    """
    xyz = _geometry(xyz, "xyz")
    _require(npoint >= 1 and xyz.shape[1] >= 1, "cannot pick {} points of xyz {}", npoint, xyz)
    return torch.ops.act_ops.furthest_point_sample(xyz.detach(), npoint, skip_origin)


def knn(ref, query, k):
    """Find the ``k`` nearest points of ``ref`` for each point of ``query``; not differentiable, as KNN_CUDA.

    Args:
        ref: (B, N, D), N at least ``k``, D at least 1.
        query: (B, M, D).
        k: at least 1.

    Returns: Euclidean distances (B, M, k), ascending, and indices (B, M, k) into ref; of equal distances the lowest
        index first. A distance that is not a number counts as infinite.
    """
    ref, query = _pair(ref, query, "ref", "query", None)
    _require(ref.shape[2] >= 1, "points without coordinates: ref {}, query {}", ref, query)
    _require(1 <= k <= ref.shape[1], "k = {} neighbours asked of ref {}; k must be from 1 to N", k, ref)
    return torch.ops.act_ops.knn(ref.detach(), query.detach(), k)


def chamfer(xyz1, xyz2):
    """Squared distance of each point to the nearest of the other cloud, both ways (Fan et al. 2017).

    Args:
        xyz1: (B, N, 3), N at least 1.
        xyz2: (B, M, 3), M at least 1.

    Returns: dist1 (B, N) and dist2 (B, M), squared, differentiable in both clouds (once); idx1 (B, N) into xyz2 and
        idx2 (B, M) into xyz1, of equally near points the lowest. A distance that is not a number is the least of
        all, as for ``torch.min``, so that it reaches the loss.
    """
    xyz1, xyz2 = _pair(xyz1, xyz2, "xyz1", "xyz2")
    _require(xyz1.shape[1] >= 1 and xyz2.shape[1] >= 1, "a cloud without points: xyz1 {}, xyz2 {}", xyz1, xyz2)
    return torch.ops.act_ops.chamfer(xyz1, xyz2)


def gather_points(features, idx):
    """Take columns of features: (B, C, N) and idx (B, M) → (B, C, M); differentiable in the features.

    An index outside 0 … N - 1 is an error of torch. Source: ``gather_operation`` of pointnet2_ops.
    """
    features, idx = _indexed(features, idx, 2)
    return torch.ops.act_ops.gather_points(features, idx)


def group_points(features, idx):
    """Take groups of columns: (B, C, N) and idx (B, M, K) → (B, C, M, K); differentiable in the features.

    An index outside 0 … N - 1 is an error of torch. Source: ``grouping_operation`` of pointnet2_ops.
    """
    features, idx = _indexed(features, idx, 3)
    return torch.ops.act_ops.group_points(features, idx)


def ball_query(xyz, new_xyz, radius, nsample):
    """Return the first points, in the order of their index, within a ball about each centre (PointNet++).

    Args:
        xyz: (B, N, 3), N at least 1.
        new_xyz: centres (B, M, 3).
        radius: of the ball; a point belongs to it where squared distance < radius².
        nsample: how many, at least 1.

    Returns: (B, M, nsample) indices into xyz; where fewer are found the first is repeated, where none is, all are 0.
    """
    xyz, new_xyz = _pair(xyz, new_xyz, "xyz", "new_xyz")
    _require(nsample >= 1 and xyz.shape[1] >= 1, "cannot find {} points in xyz {}", nsample, xyz)
    return torch.ops.act_ops.ball_query(xyz.detach(), new_xyz.detach(), radius, nsample)


def three_nn(unknown, known):
    """Find the three nearest of ``known`` (B, m, 3), m at least 3, for each of ``unknown`` (B, n, 3) (PointNet++).

    Returns: Euclidean distances (B, n, 3), ascending, not differentiable, and indices (B, n, 3), ties as in ``knn``.
    """
    unknown, known = _pair(unknown, known, "unknown", "known")
    _require(known.shape[1] >= 3, "three neighbours asked of known {}", known)
    return torch.ops.act_ops.three_nn(unknown.detach(), known.detach())


def three_interpolate(features, idx, weight):
    """Mix three columns of features for each point: (B, C, m), idx and weight (B, n, 3) → (B, C, n) (PointNet++).

    Differentiable in features and weight. An index outside 0 … m - 1 is an error of torch.
    """
    features, idx = _indexed(features, idx, 3)
    _require(weight.shape == idx.shape and idx.shape[2] == 3, "idx {} and weight {} must be (B, n, 3)", idx, weight)
    _one_device(features, weight, "features", "weight")
    return torch.ops.act_ops.three_interpolate(features, idx, weight.to(features.dtype))


def linear_max(x, weight, bias=None):
    """Apply a linear layer to the points of patches and take the maximum over them (PointNet, Qi et al. 2017).

    Args:
        x: (P, K, D), K at least 1.
        weight: (C, D).
        bias: (C).

    Returns: (P, C), differentiable in all three (once); of equal values one point gets the gradient. Where ``fused``
        says so, the backward pass visits that point alone, which is a K-th of the products.
    """
    _require(x.dim() == 3 and x.shape[1] >= 1, "x must be (P, K, D), K at least 1, not {}", x)
    _require(weight.dim() == 2 and weight.shape[1] == x.shape[2], "weight {} must be (C, {})", weight, x.shape[2])
    if fused(x, weight):
        return torch.ops.act_ops.linear_max(x, weight, bias)[0]
    product = F.linear(x, weight, bias)  # P K C
    if not _compiled_for_cpu(x):
        return product.max(1).values
    raised = product.detach().to(torch.promote_types(product.dtype, torch.float32))
    idx = torch.ops.act_ops.max_points(raised)[1]  # sooner than torch's maximum, the same choice
    return product.gather(1, idx.unsqueeze(1)).squeeze(1)


def norm_relu(x, offset, weight, bias, eps):
    """Normalise features over all points, as batch norm does in training, and apply a ReLU (Ioffe and Szegedy 2015).

    Args:
        x: (P, K, C), at least two points in all.
        offset: (P, C), added to all points of a patch first; or None.
        weight, bias: (C).
        eps: added to the variance.

    Returns: (P, K, C), differentiable in all but ``eps`` (once); mean and variance (C) before normalising, of all
        points and not corrected for their number, without a gradient.
    """
    _require(x.dim() == 3 and x.shape[0] * x.shape[1] > 1, "x must be (P, K, C) of two points or more, not {}", x)
    _require(offset is None or offset.shape == (x.shape[0], x.shape[2]), "offset of x {} must be (P, C)", x)
    _require(weight.shape == bias.shape == x.shape[2:], "weight {} and bias {} must be (C)", weight, bias)
    return torch.ops.act_ops.norm_relu(x, offset, weight, bias, eps)


def fused(x, weight):
    """Whether layers with this input and weight have kernels of their own: on a CPU, compiled, in full precision."""
    return (_compiled_for_cpu(x) and x.dtype in (torch.float32, torch.float64) and x.dtype == weight.dtype
            and not torch.is_autocast_enabled("cpu"))


def _compiled_for_cpu(x):
    return x.device.type == "cpu" and extensions.backend("cpu") == "compiled C++"


def _require(condition, message, *values):
    """Raise a ValueError unless ``condition``; tensors among ``values`` stand for their shapes."""
    if not condition:
        shown = (tuple(value.shape) if isinstance(value, torch.Tensor) else value for value in values)
        raise ValueError(message.format(*shown))


def _floating(tensor, name):
    _require(tensor.is_floating_point(), "{} {} must be floating-point, not {}", name, tensor, tensor.dtype)
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _geometry(xyz, name, axes=3):
    _require(xyz.dim() == 3 and (axes is None or xyz.shape[2] == axes), "{} must be (B, N, {}), not {}",
             name, axes or "D", xyz)
    return _floating(xyz, name)


def _pair(one, two, name1, name2, axes=3):
    """Check two clouds that belong together: batch, coordinates and type agree."""
    one, two = _geometry(one, name1, axes), _geometry(two, name2, axes)
    _one_device(one, two, name1, name2)
    _require(one.shape[0] == two.shape[0] and one.shape[2] == two.shape[2],
             "{} {} and {} {} differ in batch or coordinates", name1, one, name2, two)
    _require(one.dtype == two.dtype, "{} is {} and {} is {}", name1, one.dtype, name2, two.dtype)
    return one, two


def _one_device(one, two, name1, name2):
    _require(one.device == two.device, "{} is on {} and {} is on {}", name1, one.device, name2, two.device)


def _indexed(features, idx, axes):
    """Check features and the index into their columns, which has ``axes`` axes."""
    _require(features.dim() == 3 and idx.dim() == axes and features.shape[0] == idx.shape[0],
             "features {} must be (B, C, N) and idx {} must have {} axes, B the first", features, idx, axes)
    _require(not idx.is_floating_point(), "idx {} must hold integers, not {}", idx, idx.dtype)
    _one_device(features, idx, "features", "idx")
    return _floating(features, "features"), idx.long()
