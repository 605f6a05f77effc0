"""What is trained, how, and how far: all that a checkpoint of a training holds."""
import dataclasses

import torch

from models.layers.sync_norm import synchronize_norms
from tools.engine.ema import Ema
from tools.engine.meters import AverageMeter
from tools.engine.optim import build_optimizer, build_scheduler
from utils import checkpoint, distributed
from utils.errors import CheckpointError


@dataclasses.dataclass
class Progress:
    """How far a training is.

    ``epoch`` is the current one, of which ``step`` batches are done, and ``iteration`` counts all steps; ``metrics``
    are the last ones, ``best`` those at the best value of each name.
    """

    epoch: int = 0
    step: int = 0
    iteration: int = 0
    metrics: dict = dataclasses.field(default_factory=dict)
    best: dict = dataclasses.field(default_factory=dict)


class TrainState:
    """Model, optimizer, schedule and progress of one training, which ``state`` gives and ``load`` takes up again."""

    def __init__(self, run, task):
        self.run, self.task, self.model = run, task, task.model
        args, config = run.args, run.config
        if args.sync_bn and distributed.world_size() > 1:
            synchronize_norms(self.model, run.device)
        self.optimizer = build_optimizer(config.optimizer, self.model)
        self.scheduler = build_scheduler(config.scheduler, self.optimizer)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=args.amp == "fp16")
        self.ema = Ema(self.model, args.ema) if args.ema else None
        self.progress, self.means = Progress(), AverageMeter()

    def update(self):
        """Clip the gradients and take one optimizer step."""
        limit = self.run.config.grad_norm_clip
        if limit:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model)

    def state(self):
        """Return all that the training goes on from; every process takes part."""
        progress = self.progress
        state = {
            "base_model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "epoch": progress.epoch - 1, "step": progress.step, "iteration": progress.iteration,
            "metrics": progress.metrics, "best_metrics": progress.best.get(next(iter(self.task.metrics)), {}),
            "best": progress.best, "notes": self.task.notes, "scaler": self.scaler.state_dict(),
            "means": distributed.gather_list([self.means.state()]), "records": self.run.records.lines,
            "processes": distributed.world_size(),
        }
        if self.ema:  # what a checkpoint is used for are the averages; training goes on with its own weights
            state |= {"base_model": self.ema.state_dict(self.model), "trained_model": state["base_model"],
                      "ema_updates": self.ema.updates}
        if self.model.published_key:  # the same tensors, which are written once
            state[self.model.published_key] = state["base_model"]
        return state

    def load(self, state, path):
        """Take up the training whose ``state`` the checkpoint ``path`` holds."""
        self.load_model(state, path)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"checkpoint {path} is of a training of other parameters ({error}): resume with the "
                                  f"config that it was started with") from error
        if state["epoch"] >= 0:
            self.scheduler.step(state["epoch"])
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        metric, best = next(iter(self.task.metrics)), state.get("best_metrics", {})
        best = {metric: best} if metric in best else {}  # a published file names its metrics otherwise
        epoch = state["epoch"] + 1
        self.progress = Progress(epoch, state.get("step", 0), state.get("iteration", epoch * len(self.task.loader)),
                                 state.get("metrics", {}), state.get("best", best))
        self.means = AverageMeter.of(state.get("means", []))
        self.run.records.rewind(state.get("records"))

    def load_model(self, state, path):
        """Load the weights of a training's ``state``, and their averages where ``--ema`` asks for them."""
        weights = checkpoint.weights_in(state, path)
        checkpoint.load_model(self.model, state.get("trained_model", weights), path, complete=True)
        if self.ema:
            self.ema = Ema(self.model, self.ema.decay)
            if "trained_model" in state:
                self.ema.load(weights, state["ema_updates"])
        elif "trained_model" in state:
            self.run.log.warning("The run had --ema and goes on without: its averages are given up")
