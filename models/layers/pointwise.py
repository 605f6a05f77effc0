"""Point-wise layers in channels-last order.

The published networks are built of ``Conv1d`` and ``Conv2d`` with kernel 1, which are matrix products over the last
axis of a channels-last tensor. The modules stay convolutions, so that checkpoints keep their shapes; the functions
here apply them without a transpose.
"""
import torch
import torch.nn.functional as F
from torch import nn

from extensions import ops


def pointwise(conv, x):
    """Apply a kernel-1 convolution to ``x`` (..., C_in) and return (..., C_out)."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def pointwise_split(conv, *parts):
    """Apply ``conv`` to the concatenation of ``parts`` along the last axis, without forming it.

    A part that is the same for a whole patch, of shape (B, 1, C), is multiplied once a patch instead of once a
    point; the results are added by broadcasting. Returns (B, N, C_out).
    """
    return _added(_products(conv, parts))


def pointwise_split_norm_relu(conv, norm, patch, *parts):
    """Apply ``conv`` to ``patch`` ‖ ``parts`` as ``pointwise_split`` does, then a ``BatchNorm1d`` and a ReLU.

    ``patch`` (B, 1, C) is the same for a whole patch. Returns (B, N, C_out).
    """
    offset, *products = _products(conv, (patch, *parts))
    return _offset_norm_relu(norm, _added(products), offset)


def composed_split_norm_relu(inner, conv, norm, patch, x):
    """Apply ``conv`` to ``patch`` ‖ ``inner(x)``, then a ``BatchNorm1d`` and a ReLU, without forming ``inner(x)``.

    Two linear layers with nothing between them are one, whose weight is the product of theirs.
    ``patch`` (B, 1, C), ``x`` (B, N, C_in). Returns (B, N, C_out).
    """
    with torch.autocast(x.device.type, enabled=False):
        by_patch, by_point = conv.weight.flatten(1).split([patch.shape[-1], inner.out_channels], dim=1)
        weight, bias = by_point @ inner.weight.flatten(1), by_point @ inner.bias + conv.bias
    return _offset_norm_relu(norm, F.linear(x, weight), F.linear(patch, by_patch, bias))


def _offset_norm_relu(norm, x, offset):
    """Apply norm and ReLU to ``x`` (B, N, C) + ``offset`` (B, 1, C)."""
    if _fused(norm, x):
        return _fused_norm_relu(norm, x, offset.squeeze(1))
    return norm_relu(norm, _added((x, offset)))


def _products(conv, parts):
    weights = conv.weight.flatten(1).split([part.shape[-1] for part in parts], dim=1)
    biases = [conv.bias, *[None] * (len(parts) - 1)]
    return [F.linear(part, weight, bias) for part, weight, bias in zip(parts, weights, biases, strict=True)]


def _added(products):
    shape = torch.broadcast_shapes(*(product.shape for product in products))
    whole = next((product for product in products if product.shape == shape), None)
    if whole is None:
        return sum(products)
    for product in products:
        if product is not whole:
            whole += product  # in place: nothing needs the product itself again
    return whole


def norm_relu(norm, x):
    """Apply a ``BatchNorm1d`` and a ReLU to ``x`` (..., C), the statistics over all leading axes."""
    if _fused(norm, x):
        return _fused_norm_relu(norm, x.reshape(-1, 1, x.shape[-1])).view(x.shape)
    return F.relu_(norm(x.flatten(0, -2))).view(x.shape)


def _fused(norm, x):
    """Whether norm and ReLU of ``x`` are one operator: in training, and where torch.compile does not join them."""
    return (norm.training and type(norm) is nn.BatchNorm1d and norm.affine and ops.fused(x, norm.weight)
            and x.numel() > x.shape[-1] and not torch.compiler.is_compiling())


def _fused_norm_relu(norm, x, offset=None):
    y, mean, variance = ops.norm_relu(x, offset, norm.weight, norm.bias, norm.eps)
    with torch.no_grad():
        count = x.shape[0] * x.shape[1]
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    return y
