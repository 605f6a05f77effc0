"""Derivatives of the differentiable operators, in terms of the library's own backward operators."""
import torch

from extensions.schemas import LIBRARY


def _derivative(name, setup, backward):
    torch.library.register_autograd(f"act_ops::{name}", backward, setup_context=setup, lib=LIBRARY)


def _chamfer_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output[2:])
    ctx.mark_non_differentiable(*output[2:])


def _chamfer_backward(ctx, grad1, grad2, *_):
    return torch.ops.act_ops.chamfer_backward(grad1, grad2, *ctx.saved_tensors)


def _index_setup(ctx, inputs, output):
    features, idx = inputs
    ctx.save_for_backward(idx)
    ctx.points = features.shape[2]


def _gather_backward(ctx, grad):
    return torch.ops.act_ops.gather_points_backward(grad, *ctx.saved_tensors, ctx.points), None


def _group_backward(ctx, grad):
    return torch.ops.act_ops.group_points_backward(grad, *ctx.saved_tensors, ctx.points), None


def _interpolate_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _interpolate_backward(ctx, grad):
    by_features, by_weight = torch.ops.act_ops.three_interpolate_backward(grad, *ctx.saved_tensors)
    return by_features, None, by_weight


def _linear_max_setup(ctx, inputs, output):
    x, weight, bias = inputs
    ctx.save_for_backward(output[1], x, weight)
    ctx.has_bias = bias is not None
    ctx.mark_non_differentiable(output[1])


def _linear_max_backward(ctx, grad, _):
    by_x, by_weight = torch.ops.act_ops.linear_max_backward(grad, *ctx.saved_tensors)
    return by_x, by_weight, grad.sum(0) if ctx.has_bias else None


def _norm_relu_setup(ctx, inputs, output):
    x, offset, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(x, offset, weight, bias, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _norm_relu_backward(ctx, grad, *_):
    by_x, by_offset, by_weight, by_bias = torch.ops.act_ops.norm_relu_backward(grad, *ctx.saved_tensors, ctx.eps)
    return by_x, None if ctx.saved_tensors[1] is None else by_offset, by_weight, by_bias, None


_derivative("chamfer", _chamfer_setup, _chamfer_backward)
_derivative("gather_points", _index_setup, _gather_backward)
_derivative("group_points", _index_setup, _group_backward)
_derivative("three_interpolate", _interpolate_setup, _interpolate_backward)
_derivative("linear_max", _linear_max_setup, _linear_max_backward)
_derivative("norm_relu", _norm_relu_setup, _norm_relu_backward)
