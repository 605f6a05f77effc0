"""Point operators as Python functions; the one import for the rest of the code base.

Geometry is computed in float32 (float64 stays float64) whatever the autocast mode. Indices are int64. Wrong shapes
are a ValueError that names them.
"""
import torch

import extensions  # noqa: F401 - registers the operators


def furthest_point_sample(xyz, npoint, skip_origin=True):
    """Pick ``npoint`` points of each cloud, each the furthest from those before it (Qi et al. 2017, PointNet++).

    Args:
        xyz: (B, N, 3).
        npoint: how many, from 1 to any number; beyond N indices repeat.
        skip_origin: never pick a point whose squared norm is at most 1e-3, as pointnet2_ops does, with which the
            released weights were trained. Such a point is picked only as the first, which is always index 0.

    Returns (B, npoint) indices. Of equally far points the lowest index is picked.
    """
    _cloud("xyz", xyz)
    _require(npoint >= 1 and (xyz.shape[1] >= 1), f"cannot pick {npoint} points of clouds of shape {tuple(xyz.shape)}")
    return torch.ops.act_ops.furthest_point_sample(_geometry(xyz), npoint, skip_origin)


def knn(ref, query, k):
    """Find the ``k`` nearest of ``ref`` (B, N, D) for each of ``query`` (B, M, D).

    Returns Euclidean distances (B, M, k), ascending, and indices (B, M, k); equal distances by index.
    """
    _pair("ref", ref, "query", query)
    _require(1 <= k <= ref.shape[1], f"k = {k} neighbours asked of ref of shape {tuple(ref.shape)}")
    return torch.ops.act_ops.knn(_geometry(ref), _geometry(query), k)


def chamfer(xyz1, xyz2):
    """Squared distance of every point to the nearest of the other cloud, both ways; differentiable.

    Args: xyz1 (B, N, 3) and xyz2 (B, M, 3). Returns dist1 (B, N), dist2 (B, M), and the nearest points' indices
    idx1 (B, N), idx2 (B, M).
    """
    _pair("xyz1", xyz1, "xyz2", xyz2)
    _require(xyz1.shape[1] and xyz2.shape[1], f"no points in xyz1 {tuple(xyz1.shape)} or xyz2 {tuple(xyz2.shape)}")
    return torch.ops.act_ops.chamfer(_geometry(xyz1), _geometry(xyz2))


def gather_points(features, idx):
    """Take the columns ``idx`` (B, M) of ``features`` (B, C, N): (B, C, M); differentiable in the features."""
    _indexed(features, idx, 2)
    return torch.ops.act_ops.gather_points(features, idx.long())


def group_points(features, idx):
    """Take the columns ``idx`` (B, M, K) of ``features`` (B, C, N): (B, C, M, K); differentiable in the features."""
    _indexed(features, idx, 3)
    return torch.ops.act_ops.group_points(features, idx.long())


def ball_query(xyz, new_xyz, radius, nsample):
    """Return the first ``nsample`` points of ``xyz`` (B, N, 3) nearer than ``radius`` to each of ``new_xyz`` (B, M, 3).

    Returns (B, M, nsample) indices, ascending; where fewer are found the first is repeated, where none is, 0.
    """
    _pair("xyz", xyz, "new_xyz", new_xyz)
    return torch.ops.act_ops.ball_query(_geometry(xyz), _geometry(new_xyz), radius, nsample)


def three_nn(unknown, known):
    """Three nearest of ``known`` (B, m, 3) for each of ``unknown`` (B, n, 3): distances and indices (B, n, 3)."""
    _pair("unknown", unknown, "known", known)
    _require(known.shape[1] >= 3, f"three neighbours asked of known of shape {tuple(known.shape)}")
    return torch.ops.act_ops.three_nn(_geometry(unknown), _geometry(known))


def three_interpolate(features, idx, weight):
    """Mix three columns of ``features`` (B, C, m) for each point: idx and weight (B, n, 3) → (B, C, n).

    Differentiable in features and weight.
    """
    _indexed(features, idx, 3)
    _require(weight.shape == idx.shape, f"weight {tuple(weight.shape)} and idx {tuple(idx.shape)} differ in shape")
    return torch.ops.act_ops.three_interpolate(features, idx.long(), weight.to(features.dtype))


def _geometry(xyz):
    return xyz.float() if xyz.dtype in (torch.float16, torch.bfloat16) else xyz


def _require(condition, message):
    if not condition:
        raise ValueError(message)


def _cloud(name, xyz):
    _require(xyz.dim() == 3 and xyz.shape[-1] == 3, f"{name} must be (B, N, 3), not {tuple(xyz.shape)}")


def _pair(name1, one, name2, two):
    _require(one.dim() == 3 and two.dim() == 3 and one.shape[0] == two.shape[0] and one.shape[2] == two.shape[2],
             f"{name1} {tuple(one.shape)} and {name2} {tuple(two.shape)} must be (B, N, D) and (B, M, D)")


def _indexed(features, idx, dims):
    _require(features.dim() == 3 and idx.dim() == dims and features.shape[0] == idx.shape[0],
             f"features {tuple(features.shape)} must be (B, C, N) and idx {tuple(idx.shape)} of {dims} axes, from B")
