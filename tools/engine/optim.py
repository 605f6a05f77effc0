"""Optimizer and schedules from config sections."""
import math

import torch

from utils.errors import ConfigError

WARMUP_LR = 1e-6


def build_optimizer(config, model):
    """Build the optimizer; no weight decay for 1-D parameters, biases and tokens.

    With ``layer_decay`` below 1 a layer's learning rate is that of the layer above it times that (Clark et al. 2020,
    ELECTRA); ``model.layer_of(name)`` gives (number of a parameter's layer from the input, number of the last one).
    """
    kwargs, layer_decay = dict(config.kwargs), config.layer_decay
    if layer_decay < 1 and not hasattr(model, "layer_of"):
        raise ConfigError(f"optimizer.layer_decay is for fine-tuning a PointTransformer; a {type(model).__name__} does "
                          f"not have it")
    decay, groups = kwargs.pop("weight_decay"), {}
    if layer_decay == 1:
        groups = {(True, 1): [], (False, 1): []}  # in the order of published optimizers, whose state so fits
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.dim() == 1 or name.endswith(".bias") or "token" in name
            layer, last = model.layer_of(name) if layer_decay < 1 else (0, 0)
            groups.setdefault((exempt, layer_decay ** (last - layer)), []).append(parameter)
    return torch.optim.AdamW([{"params": parameters, "weight_decay": 0.0 if exempt else decay, "lr_scale": scale}
                              for (exempt, scale), parameters in groups.items()], fused=True, **kwargs)


def build_scheduler(config, optimizer):
    """Build the learning rate schedule, stepped with the epoch that has ended: warm-up from 1e-6, then cosine.

    A parameter group's rate is scaled by its ``lr_scale``.
    """
    from timm.scheduler import CosineLRScheduler

    kwargs = config.kwargs
    return CosineLRScheduler(optimizer, t_initial=kwargs.epochs, lr_min=kwargs.lr_min,
                             warmup_lr_init=WARMUP_LR, warmup_t=kwargs.initial_epochs)


def cosine_ramp(config, iteration):
    """Return the value at ``iteration`` of a half cosine from ``start`` to ``target`` over ``ntime`` iterations.

    It begins after ``offset`` iterations, where the section has that key. Temperature and KL weight of stage I follow
    it.
    """
    share = min(max(iteration - config.get("offset", 0), 0) / config.ntime, 1)
    return config.target + (config.start - config.target) * (1 + math.cos(math.pi * share)) / 2
