"""What the student is asked to predict, and how much there is in it to learn."""
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.distributed import mean_all, std_all, sum_all, world_size
from utils.errors import ConfigError

SMALLEST_STD = 1e-4  # a channel that varies less carries nothing


def standardise(target: Tensor) -> Tensor:
    """Give every channel of ``target`` mean 0 and standard deviation 1 over the tokens of all processes' batches.

    The common mean of a teacher's features holds most of their energy; the cosine loss is then satisfied by
    predicting it.

    Args:
        target: (B, N, C), all processes of the same B and N.

    Returns:
        (B, N, C) float32.
    """
    flat = target.float().flatten(0, 1)  # BN C
    return ((flat - mean_all(flat.mean(0))) / std_all(flat).clamp_min(SMALLEST_STD)).view(target.shape)


def cloud_target(target: Tensor) -> Tensor:
    """Return what tells a cloud from the others: the mean ‖ maximum of its tokens, standardised over the clouds.

    Args:
        target: (B, N, C).

    Returns:
        (B, 1, 2C) float32.

    Raises ConfigError where all processes together have a single cloud.
    """
    if len(target) * world_size() < 2:
        raise ConfigError("model.cloud_loss compares the clouds of a step: total_bs must be at least 2")
    return standardise(torch.cat([target.float().mean(1), target.float().amax(1)], -1).unsqueeze(1))


def constant_prediction(target: Tensor, loss: str) -> Tensor:
    """Return the vector (1, 1, C) that, predicted for every token of ``target`` (B, N, C), gives the least ``loss``.

    It is the mean of the directions for ``cosine``, and the mean for ``l2`` and (nearly) ``smoothl1``. For ``ntxent``
    any vector that is as near to one target as to another will do, such as 0; for ``barlowtwins`` any constant.
    """
    target = target.float()
    if loss == "ntxent":
        return torch.zeros_like(target[:1, :1])
    if loss == "cosine":
        target = F.normalize(target, dim=-1)
    return mean_all(target.mean((0, 1))).view(1, 1, -1)


@torch.no_grad()
def spread(tokens: Tensor) -> dict[str, Tensor]:
    """Return how tokens (B, N, C) vary over the batches of all processes.

    Returns a dict of scalars: ``common``, the share of their energy that is in the common mean; ``between``, the share
    of their variance that lies between the means of clouds, the rest lying within clouds; ``rank``, the effective
    number of directions in which standardised channels vary: (Σ λ)² / Σ λ² of the eigenvalues λ of their correlation
    matrix (the participation ratio), from 1 to C.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        tokens = tokens.float()
        flat = tokens.flatten(0, 1)  # BN C
        mean = mean_all(flat.mean(0))  # C
        centred = flat - mean
        variance = mean_all(centred.square().mean(0)).clamp_min(torch.finfo(torch.float32).tiny)  # C
        clouds = mean_all((tokens.mean(1) - mean).square().mean(0))  # C
        scaled = centred / variance.sqrt()
        correlation = sum_all(scaled.T @ scaled)  # C C, times the number of tokens
        return {"common": mean.square().sum() / (mean.square() + variance).sum(),
                "between": clouds.sum() / variance.sum(),
                "rank": correlation.diagonal().sum().square() / correlation.square().sum()}
