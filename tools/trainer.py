"""The only epoch loop. A task says what one step and one evaluation are; nothing here knows which task it is.

A task has ``model``; ``loader``, of training batches; ``losses(batch, iteration)`` → a dict with ``loss`` and
scalars to report; ``evaluate(epoch, best)`` → a dict of metrics, or None where the config gives no data for it;
``metrics``, a dict of names in it → the checkpoint of the epoch that is best by them, the first of which counts; and
``notes``, plain values that its checkpoints are to carry for those who use them.
"""
import dataclasses
import math
import time

import torch
from tqdm import tqdm

from tools.builder import build_optimizer, build_scheduler, set_epoch
from utils import checkpoint
from utils.errors import CheckpointError, NonFiniteLossError
from utils.metrics import better


@dataclasses.dataclass
class Progress:
    """How far a training is: the next epoch, steps done, the last metrics, and those best by each name."""

    epoch: int = 0
    iteration: int = 0
    metrics: dict = dataclasses.field(default_factory=dict)
    best: dict = dataclasses.field(default_factory=dict)


class Trainer:
    """Model, optimizer, schedule and progress of one training."""

    def __init__(self, experiment, task):
        self.experiment, self.task, self.model = experiment, task, task.model
        config = experiment.config
        self.optimizer = build_optimizer(config.optimizer, self.model)
        self.scheduler = build_scheduler(config.scheduler, self.optimizer)
        self.scaler = torch.amp.GradScaler(experiment.device.type, enabled=experiment.args.amp == "fp16")
        self.progress = Progress()
        if experiment.args.resume:
            self.resume()
        if experiment.args.compile:
            self.model.compile()

    def fit(self):
        """Train from the current epoch to ``max_epoch``, which is included, as published."""
        if self.progress.epoch == 0:
            self.evaluate(-1, "Before training")
        last = self.experiment.config.max_epoch
        for epoch in range(self.progress.epoch, last + 1):
            self.train_epoch(epoch, last)
            self.scheduler.step(epoch)
            self.progress.epoch = epoch + 1
            files = []
            if epoch == last or (epoch and epoch % self.experiment.args.val_freq == 0):
                files = self.evaluate(epoch, f"Epoch {epoch}/{last}")
            for name in ("ckpt-last.pth", *files):
                self.save(name)
        return self.progress

    def train_epoch(self, epoch, last):
        """One pass over the training data."""
        task = self.task
        set_epoch(task.loader, epoch, self.experiment.args.seed)
        self.model.train()
        means = Means()
        rate = self.optimizer.param_groups[0]["lr"]
        every = self.experiment.config.step_per_update
        start = time.perf_counter()
        with tqdm(task.loader, f"Epoch {epoch}/{last}", unit="batch", leave=False, dynamic_ncols=True,
                  disable=None) as bar:
            for index, batch in enumerate(bar):
                losses = self.step(batch, (index + 1) % every == 0 or index + 1 == len(task.loader))
                means.add(losses, len(batch[0]))
                bar.set_postfix(loss=f"{losses['loss']:.4f}")
        speed = len(task.loader) * task.loader.batch_size / (time.perf_counter() - start)
        values = means.values()
        self.experiment.log.info("Epoch %d/%d  %s  lr %.2e  %.0f clouds/s", epoch, last,
                                 "  ".join(f"{name} {value:.5g}" for name, value in values.items()), rate, speed)
        for name, value in {**values, "lr": rate}.items():
            self.experiment.board.add_scalar(f"train/{name}", value, epoch)

    def step(self, batch, update=True):
        """Train on one batch: losses, gradients and, with ``update``, the optimizer; return the losses as reported.

        ``loss`` is a number there, read once, which is the only wait for a GPU.
        """
        batch = [part.to(self.experiment.device, non_blocking=True) for part in batch]
        with self.experiment.autocast():
            losses = self.task.losses(batch, self.progress.iteration)
        self.scaler.scale(losses["loss"] / self.experiment.config.step_per_update).backward()
        value = losses["loss"].item()
        if not math.isfinite(value):
            self.stop(value, batch)
        if update:
            self.update()
        self.progress.iteration += 1
        return {**losses, "loss": value}

    def update(self):
        """Clip the gradients and take one optimizer step."""
        limit = self.experiment.config.get("grad_norm_clip")
        if limit:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def evaluate(self, epoch, title):
        """Evaluate, report, and return the names of the checkpoints whose metric is now the best so far."""
        self.model.eval()
        progress = self.progress
        with torch.inference_mode(), self.experiment.autocast():
            metrics = self.task.evaluate(epoch, progress.best)
        if metrics is None:
            return []
        self.experiment.log.info("%s  %s", title, "  ".join(f"{name} {value:.5g}" for name, value in metrics.items()))
        for name, value in metrics.items():
            self.experiment.board.add_scalar(f"val/{name}", value, max(epoch, 0))
        if epoch < 0:
            return []
        progress.metrics = metrics
        improved = [name for name in self.task.metrics if name in metrics and (
            name not in progress.best or better(name, metrics[name], progress.best[name][name]))]
        progress.best.update(dict.fromkeys(improved, metrics))
        return [self.task.metrics[name] for name in improved]

    def stop(self, loss, batch):
        """End the run for a loss that is NaN or infinite, after saving the batch and the weights that gave it."""
        path, progress = self.experiment.folder / "nonfinite-step.pth", self.progress
        checkpoint.save({"batch": [part.cpu() for part in batch], "base_model": self.model.state_dict(),
                         "epoch": progress.epoch, "iteration": progress.iteration, "loss": loss}, path)
        raise NonFiniteLossError(f"the loss is {loss} in epoch {progress.epoch}, step {progress.iteration}; its batch "
                                 f"and weights are in {path}. Lower optimizer.kwargs.lr or look at that data")

    def save(self, name):
        """Write a checkpoint into the experiment's folder."""
        progress = self.progress
        checkpoint.save({
            "base_model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "epoch": progress.epoch - 1, "metrics": progress.metrics,
            "best_metrics": progress.best.get(next(iter(self.task.metrics)), {}), "best": progress.best,
            "notes": self.task.notes, "iteration": progress.iteration, "scaler": self.scaler.state_dict(),
            "random_state": checkpoint.random_state(),
        }, self.experiment.folder / name)

    def resume(self):
        """Take up the training that ``ckpt-last.pth`` holds."""
        path = self.experiment.folder / "ckpt-last.pth"
        state = checkpoint.read(path)
        if not isinstance(state, dict) or "base_model" not in state or "optimizer" not in state:
            raise CheckpointError(f"checkpoint {path} holds no training to resume; give it as --start_ckpts")
        checkpoint.load_model(self.model, checkpoint.weights_in(state, path), path, complete=True)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"checkpoint {path} is of a training of other parameters ({error}): resume with the "
                                  f"config that it was started with") from error
        self.scheduler.step(state["epoch"])
        metric, best = next(iter(self.task.metrics)), state["best_metrics"]
        best = {metric: best} if metric in best else {}  # a published file names its metrics otherwise
        self.progress = Progress(state["epoch"] + 1, state.get("iteration", 0), state["metrics"],
                                 state.get("best", best))
        if "random_state" in state:
            self.scaler.load_state_dict(state["scaler"])
            checkpoint.set_random_state(state["random_state"])
        self.experiment.log.info("Resuming after epoch %d of %s", state["epoch"], path)


class Means:
    """Means over an epoch of the scalars that a step reports, weighted by batch size; summed on the device."""

    def __init__(self):
        self.sums, self.count = {}, 0

    def add(self, values, weight):
        self.count += weight
        for name, value in values.items():
            if not isinstance(value, torch.Tensor) or value.dim() == 0:
                self.sums[name] = self.sums.get(name, 0) + torch.as_tensor(value).detach() * weight

    def values(self):
        return {name: (total / self.count).item() for name, total in self.sums.items()}


def fit(experiment, task):
    """Train ``task`` in ``experiment``; returns its Progress, with the last and best metrics."""
    return Trainer(experiment, task).fit()
