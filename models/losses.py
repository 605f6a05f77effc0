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


DISTILLATION_LOSSES = {"cosine": cosine_loss, "l2": l2_loss, "smoothl1": smooth_l1_loss}


def distillation_loss(name):
    """Return the loss called ``name`` in the config: ``cosine``, ``l2`` or ``smoothl1``."""
    if name not in DISTILLATION_LOSSES:
        raise ConfigError(f"loss '{name}' is not one of {', '.join(DISTILLATION_LOSSES)}")
    return DISTILLATION_LOSSES[name]
