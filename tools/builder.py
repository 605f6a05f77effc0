"""From config sections to data loaders, optimizer, schedules and models in their place."""
import math

import torch
from torch.utils.data import DataLoader

from datasets import build_dataset_from_cfg
from utils.errors import ConfigError

WARMUP_LR = 1e-6


def build_dataset(experiment, split):
    """Build the data set of ``config.dataset.<split>``, or return None where the config has none."""
    section = experiment.config.dataset.get(split)
    if section is None:
        return None
    if "_base_" not in section:
        raise ConfigError(f"{experiment.args.config}: key 'dataset.{split}._base_' is missing")
    dataset = build_dataset_from_cfg(section._base_, section.get("others", {}), f"dataset.{split}")
    dataset.set_seed(experiment.args.seed)
    return dataset


def build_loader(experiment, dataset, batch_size, train=False):
    """Return a loader of ``dataset``; for training it shuffles and drops the last batch that is not full."""
    if train and len(dataset) < batch_size:
        raise ConfigError(f"total_bs is {batch_size}, but the training set has only {len(dataset)} clouds")
    workers = experiment.args.num_workers
    return DataLoader(
        dataset, batch_size=batch_size, shuffle=train, drop_last=train, num_workers=workers,
        persistent_workers=workers > 0, pin_memory=experiment.device.type == "cuda",
        generator=torch.Generator().manual_seed(experiment.args.seed))


def set_epoch(loader, epoch, seed):
    """Make what ``loader`` yields next, order and samples, a function of ``seed`` and ``epoch`` alone."""
    loader.dataset.set_epoch(epoch)
    loader.generator.manual_seed(seed * 1_000_003 + epoch)


def build_optimizer(config, model):
    """Build the optimizer; no weight decay for 1-D parameters, biases and tokens."""
    if config.type != "AdamW":
        raise ConfigError(f"optimizer.type '{config.type}' is not known; give 'AdamW'")
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = parameter.dim() == 1 or name.endswith(".bias") or "token" in name
            (plain if exempt else decayed).append(parameter)
    kwargs = dict(config.kwargs)
    decay = kwargs.pop("weight_decay", 0.0)
    return torch.optim.AdamW([{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": decay}],
                             fused=True, **kwargs)


def build_scheduler(config, optimizer):
    """Build the learning rate schedule, stepped with the epoch that has ended: warm-up from 1e-6, then cosine."""
    from timm.scheduler import CosineLRScheduler

    if config.type != "CosLR":
        raise ConfigError(f"scheduler.type '{config.type}' is not known; give 'CosLR'")
    kwargs = config.kwargs
    return CosineLRScheduler(optimizer, t_initial=kwargs.epochs, lr_min=kwargs.get("lr_min", 1e-7),
                             warmup_lr_init=WARMUP_LR, warmup_t=kwargs.get("initial_epochs", 0))


def cosine_ramp(config, iteration):
    """Return the value at ``iteration`` of a half cosine from ``start`` to ``target`` over ``ntime`` iterations.

    It begins after ``offset`` iterations. Temperature and KL weight of stage I follow it.
    """
    share = min(max(iteration - config.get("offset", 0), 0) / config.ntime, 1)
    return config.target + (config.start - config.target) * (1 + math.cos(math.pi * share)) / 2
