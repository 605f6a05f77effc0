"""Several processes as one."""
import torch
import torch.distributed as dist


def gather_batch(tensor):
    """Return the tensors (B, …) of all processes, joined along the batch; without processes, ``tensor`` itself.

    Gradients do not pass.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)
