"""The operators' schemas, each written once, and the shapes of their results.

Clouds are (B, N, 3), features (B, C, N), those of layers (P, K, C), indices int64. Kernels are registered elsewhere:
whatever backend registers for a device serves it, and the pure-PyTorch kernels serve the rest.
"""
import torch
from torch.library import Library

SCHEMAS = (
    "furthest_point_sample(Tensor xyz, int npoint, bool skip_origin=True) -> Tensor",
    "knn(Tensor ref, Tensor query, int k) -> (Tensor, Tensor)",
    "chamfer(Tensor xyz1, Tensor xyz2) -> (Tensor, Tensor, Tensor, Tensor)",
    "chamfer_backward(Tensor grad1, Tensor grad2, Tensor xyz1, Tensor xyz2, Tensor idx1, Tensor idx2)"
    " -> (Tensor, Tensor)",
    "gather_points(Tensor features, Tensor idx) -> Tensor",
    "gather_points_backward(Tensor grad, Tensor idx, SymInt n) -> Tensor",
    "group_points(Tensor features, Tensor idx) -> Tensor",
    "group_points_backward(Tensor grad, Tensor idx, SymInt n) -> Tensor",
    "ball_query(Tensor xyz, Tensor new_xyz, float radius, int nsample) -> Tensor",
    "three_nn(Tensor unknown, Tensor known) -> (Tensor, Tensor)",
    "three_interpolate(Tensor features, Tensor idx, Tensor weight) -> Tensor",
    "three_interpolate_backward(Tensor grad, Tensor features, Tensor idx, Tensor weight) -> (Tensor, Tensor)",
    "max_points(Tensor x) -> (Tensor, Tensor)",
    "linear_max(Tensor x, Tensor weight, Tensor? bias) -> (Tensor, Tensor)",
    "linear_max_backward(Tensor grad, Tensor idx, Tensor x, Tensor weight) -> (Tensor, Tensor)",
    "norm_relu(Tensor x, Tensor? offset, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)",
    "norm_relu_backward(Tensor grad, Tensor x, Tensor? offset, Tensor weight, Tensor bias, Tensor mean,"
    " Tensor variance, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
)

NAMES = [schema.split("(")[0] for schema in SCHEMAS]
LIBRARY = Library("act_ops", "DEF")
for schema in SCHEMAS:
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))


def _fake(function):
    torch.library.register_fake(f"act_ops::{function.__name__}", function, lib=LIBRARY)
    return function


def _index(like, *shape):
    return like.new_empty(shape, dtype=torch.int64)


@_fake
def furthest_point_sample(xyz, npoint, skip_origin=True):
    return _index(xyz, xyz.shape[0], npoint)


@_fake
def knn(ref, query, k):
    shape = (*query.shape[:2], k)
    return query.new_empty(shape), _index(query, *shape)


@_fake
def chamfer(xyz1, xyz2):
    one, two = xyz1.shape[:2], xyz2.shape[:2]
    return xyz1.new_empty(one), xyz2.new_empty(two), _index(xyz1, *one), _index(xyz2, *two)


@_fake
def chamfer_backward(grad1, grad2, xyz1, xyz2, idx1, idx2):
    return xyz1.new_empty(xyz1.shape), xyz2.new_empty(xyz2.shape)


@_fake
def gather_points(features, idx):
    return features.new_empty((*features.shape[:2], idx.shape[1]))


@_fake
def gather_points_backward(grad, idx, n):
    return grad.new_empty((*grad.shape[:2], n))


@_fake
def group_points(features, idx):
    return features.new_empty((*features.shape[:2], *idx.shape[1:]))


@_fake
def group_points_backward(grad, idx, n):
    return grad.new_empty((*grad.shape[:2], n))


@_fake
def ball_query(xyz, new_xyz, radius, nsample):
    return _index(xyz, *new_xyz.shape[:2], nsample)


@_fake
def three_nn(unknown, known):
    shape = (*unknown.shape[:2], 3)
    return unknown.new_empty(shape), _index(unknown, *shape)


@_fake
def three_interpolate(features, idx, weight):
    return features.new_empty((*features.shape[:2], idx.shape[1]))


@_fake
def three_interpolate_backward(grad, features, idx, weight):
    return features.new_empty(features.shape), weight.new_empty(weight.shape)


@_fake
def max_points(x):
    shape = (x.shape[0], x.shape[2])
    return x.new_empty(shape), _index(x, *shape)


@_fake
def linear_max(x, weight, bias):
    shape = (x.shape[0], weight.shape[0])
    return x.new_empty(shape), _index(x, *shape)


@_fake
def linear_max_backward(grad, idx, x, weight):
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


@_fake
def norm_relu(x, offset, weight, bias, eps):
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


@_fake
def norm_relu_backward(grad, x, offset, weight, bias, mean, variance, eps):
    by_offset = x.new_empty((0 if offset is None else x.shape[0], x.shape[2]))
    return x.new_empty(x.shape), by_offset, weight.new_empty(weight.shape), weight.new_empty(weight.shape)
