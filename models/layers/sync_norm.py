"""Batch norm over the batches of all processes."""
import torch
import torch.distributed as dist
from torch import nn


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.BatchNorm1d):
    """A ``BatchNorm1d`` whose statistics in training are those of the whole batch; on any device.

    torch's own, which is faster, works on GPUs alone. Statistics are computed in float32.
    """

    def forward(self, x):
        """Normalise ``x`` (N, C); N may differ between processes."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        values = x.float()
        totals = SumOverProcesses.apply(torch.cat([values.sum(0), values.new_tensor([len(values)])]))
        mean, count = totals[:-1] / totals[-1], totals[-1].detach()  # C
        centred = values - mean
        variance = SumOverProcesses.apply(centred.square().sum(0)) / count  # C
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return (centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(x.dtype)


def synchronize_norms(model, device):
    """Replace, in place, every ``BatchNorm1d`` of ``model`` by one over all processes, with the same parameters."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm1d):
            kind = nn.SyncBatchNorm if device.type == "cuda" else SyncBatchNorm
            synchronized = kind(child.num_features, child.eps, child.momentum).to(device)
            for key, value in [*child._parameters.items(), *child._buffers.items()]:
                setattr(synchronized, key, value)
            setattr(model, name, synchronized.train(child.training))
        else:
            synchronize_norms(child, device)
