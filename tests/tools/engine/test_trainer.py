"""The training step itself, on a model small enough to follow by hand."""
import types

import pytest
import torch
from easydict import EasyDict
from torch.utils.data import DataLoader

from tools.engine.trainer import Trainer
from utils.schema import Optimizer, Scheduler

POINTS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


class Regression:
    """Mean squared output of one linear layer."""

    def __init__(self):
        torch.manual_seed(1)
        self.model = torch.nn.Linear(3, 2)
        self.loader = DataLoader(list(POINTS), batch_size=8)

    def losses(self, model, batch, iteration):
        return {"loss": (model(batch[0]) ** 2).mean(), "step": iteration}


def trainer(every=1, clip=None):
    config = EasyDict(optimizer=Optimizer(type="AdamW", kwargs={"lr": 0.1}), step_per_update=every,
                      scheduler=Scheduler(type="CosLR", kwargs={"epochs": 1}), grad_norm_clip=clip)
    args = types.SimpleNamespace(amp="off", resume=False, compile=False, sync_bn=False, ema=None, seed=0)
    run = types.SimpleNamespace(config=config, args=args, device=torch.device("cpu"), folder=None, log=None,
                                autocast=lambda: torch.autocast("cpu", enabled=False))
    return Trainer(run, Regression())


def gradient_at_update(trainer, batches):
    """Take a step a batch, the optimizer's with the last; return the gradient it got, flattened."""
    seen = []
    trainer.optimizer.register_step_pre_hook(lambda *_: seen.append(
        torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])))
    for index, batch in enumerate(batches):
        trainer.step([batch], update=index + 1 == len(batches))
    assert len(seen) == 1
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    return seen[0]


@pytest.mark.parametrize("clip", [None, 0.1])
def test_accumulation_gives_the_gradient_of_the_whole_batch(clip):
    whole = gradient_at_update(trainer(1, clip), [POINTS])
    parts = gradient_at_update(trainer(4, clip), POINTS.split(2))
    torch.testing.assert_close(parts, whole)
    model = Regression().model
    (model(POINTS) ** 2).mean().backward()
    plain = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert plain.norm() > 0.1
    torch.testing.assert_close(whole, plain if clip is None else plain * (clip / plain.norm()))


def test_the_loss_is_reported_as_a_number():
    out = trainer().step([POINTS])
    model = Regression().model
    assert out["loss"] == pytest.approx((model(POINTS) ** 2).mean().item())
    assert out["step"] == 0
