"""Losses of both stages; all are computed in float32."""
import math

import torch
import torch.nn.functional as F

from extensions.chamfer_dist import ChamferDistanceL1
from utils.errors import ConfigError


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


def nt_xent_loss(prediction, target, temperature=0.1):
    """NT-Xent (Chen et al. 2020): each token's own target must be told from all others of the batch by its cosine."""
    prediction, target = (F.normalize(tokens.float().flatten(0, 1), dim=-1) for tokens in (prediction, target))
    similarity = prediction @ target.T / temperature  # BN BN
    return F.cross_entropy(similarity, torch.arange(len(similarity), device=similarity.device))


def barlow_twins_loss(prediction, target, off_diagonal=0.005):
    """Barlow Twins (Zbontar et al. 2021): channels standardised over all tokens, their cross-correlation the identity.

    Divided by the number of channels, so that the loss does not grow with the width.
    """
    def standardise(tokens):
        tokens = tokens.float().flatten(0, 1)  # BN C
        return (tokens - tokens.mean(0)) / tokens.std(0).clamp_min(1e-6)

    prediction, target = standardise(prediction), standardise(target)
    correlation = prediction.T @ target / len(prediction)  # C C
    on = (correlation.diagonal() - 1).square().sum()
    off = correlation.square().sum() - correlation.diagonal().square().sum()
    return (on + off_diagonal * off) / len(correlation)


DISTILLATION_LOSSES = {"cosine": cosine_loss, "l2": l2_loss, "smoothl1": smooth_l1_loss, "ntxent": nt_xent_loss,
                       "barlowtwins": barlow_twins_loss}


def distillation_loss(name):
    """Return the loss called ``name`` in the config, one of ``DISTILLATION_LOSSES``."""
    if name not in DISTILLATION_LOSSES:
        raise ConfigError(f"loss '{name}' is not one of {', '.join(DISTILLATION_LOSSES)}")
    return DISTILLATION_LOSSES[name]
