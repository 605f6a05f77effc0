"""Losses of both stages; all are computed in float32."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from extensions.chamfer_dist import ChamferDistanceL1
from utils.distributed import gather_batch, gather_batch_with_gradient, rank, world_size


def reconstruction_loss(coarse, fine, target):
    """Chamfer-L1 of the coarse and of the fine patches (B, G, ., 3) against ``target`` (B, G, K, 3), added."""
    chamfer = ChamferDistanceL1()
    target = target.flatten(0, 1).float()
    return sum(chamfer(patches.flatten(0, 1).float(), target) for patches in (coarse, fine))


def code_kl(logits):
    """KL divergence of the uniform distribution from each cloud's mean code distribution, averaged over clouds.

    ``logits`` (B, G, V). The direction, uniform against the mean, is the published one.
    """
    mean = logits.float().softmax(-1).mean(1)  # B V
    mean = mean.clamp_min(torch.finfo(mean.dtype).tiny)  # an unused code must not make the loss infinite
    return -math.log(mean.shape[-1]) - mean.log().mean()


def cosine_loss(prediction, target):
    """1 − cosine similarity of tokens (B, N, C), averaged: the loss of stage II (paper, section 4.2)."""
    return 1 - F.cosine_similarity(prediction.float(), target.float(), dim=-1).mean()


def l2_loss(prediction, target):
    """Mean squared error."""
    return F.mse_loss(prediction.float(), target.float())


def smooth_l1_loss(prediction, target):
    """Mean smooth L1 error."""
    return F.smooth_l1_loss(prediction.float(), target.float())


def nt_xent_loss(prediction: Tensor, target: Tensor, temperature: float = 0.1, limit: int = 4096) -> Tensor:
    """NT-Xent (Chen et al. 2020): each token's own target must be told from all others of the batch by its cosine.

    The others are those of all processes. Of more than ``limit`` tokens a random subset is compared, since the
    similarities are a matrix of tokens × tokens.

    Args:
        prediction, target: (B, N, C).
    """
    prediction, target = prediction.flatten(0, 1), target.flatten(0, 1)  # BN C
    share = limit // world_size()
    if len(prediction) > share:
        chosen = torch.randperm(len(prediction), device=prediction.device)[:share]
        prediction, target = prediction[chosen], target[chosen]
    prediction, target = F.normalize(prediction.float(), dim=-1), F.normalize(target.float(), dim=-1)
    own = torch.arange(len(prediction), device=prediction.device) + rank() * len(prediction)
    return F.cross_entropy(prediction @ gather_batch(target).T / temperature, own)


def barlow_twins_loss(prediction: Tensor, target: Tensor, off_diagonal: float = 0.005) -> Tensor:
    """Barlow Twins (Zbontar et al. 2021): channels standardised over all tokens, their cross-correlation the identity.

    Statistics are those of all processes. Divided by the number of channels, so that the loss does not grow with the
    width.

    Args:
        prediction, target: (B, N, C).
    """
    def standardise(tokens):
        return (tokens - tokens.mean(0)) / tokens.std(0).clamp_min(1e-6)

    prediction = standardise(gather_batch_with_gradient(prediction.float().flatten(0, 1)))  # BN C
    target = standardise(gather_batch(target.float().flatten(0, 1)))
    correlation = prediction.T @ target / len(prediction)  # C C
    on = (correlation.diagonal() - 1).square().sum()
    off = correlation.square().sum() - correlation.diagonal().square().sum()
    return (on + off_diagonal * off) / len(correlation)


DISTILLATION_LOSSES = {"cosine": cosine_loss, "l2": l2_loss, "smoothl1": smooth_l1_loss, "ntxent": nt_xent_loss,
                       "barlowtwins": barlow_twins_loss}
