"""Several processes as one. torchrun starts them; in a single process every function here is trivially right."""
import contextlib
import datetime
import os

import torch
import torch.distributed as dist

from utils import environment
from utils.environment import launched
from utils.errors import ConfigError, one_line

# what the libraries say when another process is gone
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting",
        "remote process exited")
TIMEOUT = datetime.timedelta(hours=1)  # for one process to wait for another; a dead one is noticed at once


def restarts():
    """Return how often torchrun has started the processes again after one of them failed (``--max_restarts``)."""
    return environment.whole_number("TORCHELASTIC_RESTART_COUNT", 0) if launched() else 0


def local_rank():
    """Return the number of this process on its machine."""
    return environment.whole_number("LOCAL_RANK", 0) if launched() else 0


def planned() -> int:
    """Return how many processes were started, whether they have joined yet or not."""
    return environment.whole_number("WORLD_SIZE", 1, least=1) if launched() else 1


def start(device):
    """Join the other processes, if there are any: through gloo for tensors on the CPU, NCCL for those on a GPU."""
    environment.check_launch()
    if planned() == 1 or dist.is_initialized():
        return
    try:
        store, number, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
    except (RuntimeError, ValueError, OverflowError) as error:  # a port in use, say
        raise ConfigError(f"the processes cannot meet at MASTER_ADDR {os.environ['MASTER_ADDR']}, MASTER_PORT "
                          f"{os.environ['MASTER_PORT']}: {one_line(error)[:160]}") from error
    if environment.whole_number("LOCAL_WORLD_SIZE", 0, least=1) == count:
        # after a restart on one machine the store holds addresses of the processes before, which would be waited for
        store = dist.PrefixStore(f"start-{restarts()}", store)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT, store=store,
                            rank=number, world_size=count)


def check_alone(command):
    """Raise ConfigError where torchrun has started ``command`` in several processes."""
    if planned() > 1:
        raise ConfigError(f"{command} runs many small trainings one after the other: start it without torchrun")


def stop():
    """Leave the other processes, all at the same time: one that they still talk to may abort if it leaves alone."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank():
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size():
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main():
    """Whether this is the process that writes files and reports."""
    return rank() == 0


def local_batch_size(total_bs):
    """Return how many of the ``total_bs`` clouds of a step are this process's; ConfigError unless all get as many."""
    if total_bs % world_size():
        raise ConfigError(f"total_bs is {total_bs}, the clouds of a step of all processes together; {world_size()} "
                          f"processes cannot share them: give a multiple of {world_size()}")
    return total_bs // world_size()


def gather_batch(tensor):
    """Return the tensors (B, …) of all processes, joined along the batch.

    All must be of the same shape. Gradients do not pass.
    """
    return tensor if world_size() == 1 else torch.cat(_gather(tensor.detach().contiguous()))


def gather_batch_with_gradient(tensor):
    """Return what ``gather_batch`` does; the gradient passes to this process's own part.

    It is multiplied by the number of processes, over which gradients are averaged: where every process computes the
    same loss of the whole batch, the average is then that loss's gradient.
    """
    if world_size() == 1:
        return tensor
    return _ScaledGradient.apply(torch.cat([tensor if index == rank() else part for index, part in
                                            enumerate(_gather(tensor.detach().contiguous()))]), world_size())


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


@torch.compiler.disable
def _gather(tensor):
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor)
    return parts


def gather_list(items):
    """Return the lists of all processes, which may be of different lengths, joined in the order of the processes."""
    if world_size() == 1:
        return items
    parts = [None] * world_size()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def sum_all(tensor):
    """Return the sum of ``tensor`` over all processes. Gradients do not pass."""
    return tensor.detach() if world_size() == 1 else _sum(tensor.detach().clone())


@torch.compiler.disable
def _sum(tensor):
    dist.all_reduce(tensor)
    return tensor


def mean_all(tensor):
    """Return the mean of ``tensor`` over all processes. Gradients do not pass."""
    return sum_all(tensor) / world_size()


def std_all(x):
    """Return the standard deviations (C,) of the columns of ``x`` (N, C) over all processes, all of the same N."""
    if world_size() == 1:
        return x.detach().std(0)
    squares = (x - mean_all(x.mean(0))).square().sum(0)
    return (sum_all(squares) / (len(x) * world_size() - 1)).sqrt()


def reduce_loss_and_signal(loss, number):
    """Return the mean of the processes' ``loss`` (a scalar tensor) and the highest ``number``, in one exchange."""
    if world_size() == 1:
        return loss.item(), number
    mine = torch.stack([loss.float(), torch.tensor(float(number), device=loss.device)])
    losses, numbers = gather_batch(mine.view(1, 2)).cpu().unbind(1)
    return losses.mean().item(), int(numbers.max())


def all_reduce_max(number):
    """Return the highest ``number`` of all processes."""
    return reduce_loss_and_signal(torch.zeros(()), number)[1]


def broadcast_from_main(make):
    """Return what ``make()`` returns in the main process; the others wait for it, and end where it raises."""
    if world_size() == 1:
        return make()
    value = [make() if is_main() else None]
    dist.broadcast_object_list(value, device=torch.device("cpu"))
    return value[0]


@contextlib.contextmanager
def local_rank_zero_first():
    """Let one process of every machine go through the block before the others, which find its files made."""
    if world_size() > 1 and local_rank():
        dist.barrier()
    yield
    if world_size() > 1 and not local_rank():
        dist.barrier()


def broadcast_buffers(model):
    """Give the buffers of ``model`` (batch-norm statistics) in every process the main process's values."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


class Synchronized(torch.nn.parallel.DistributedDataParallel):
    """The model whose gradients are averaged over the processes while they are computed.

    Parameters that the model calls ``unused_parameters`` (prefixes of names) never get a gradient and do not take part,
    so that no search for them is needed; ``replicated_buffers`` are alike in every process by themselves. All other
    buffers are the main process's at every step, so one copy in a checkpoint is the whole truth.
    """

    def __init__(self, model, device):
        for name, parameter in model.named_parameters():
            if name.startswith(tuple(getattr(model, "unused_parameters", ()))):
                parameter.requires_grad_(False)
        same = [name for name, _ in model.named_buffers()
                if name.startswith(tuple(getattr(model, "replicated_buffers", ())))]
        for name in same:
            dist.broadcast(model.get_buffer(name), 0)  # their random start
        self._set_params_and_buffers_to_ignore_for_model(model, same)
        super().__init__(model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True)


def synchronized(model, device):
    """Return what to call in a training step: ``model``, or, with several processes, a ``Synchronized`` of it."""
    return model if world_size() == 1 else Synchronized(model, device)


def accumulating(model):
    """Return a context in which gradients stay in their process, for steps without an update."""
    return model.no_sync() if isinstance(model, Synchronized) else contextlib.nullcontext()


def lost_another(error):
    """Whether ``error`` (a RuntimeError) says that another process is gone."""
    if world_size() == 1:
        return False
    return any(sign in str(error) for sign in LOST)
