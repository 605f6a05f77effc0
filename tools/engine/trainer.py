"""The only epoch loop. ``tools.engine.task.Task`` says what it asks of a task; nothing here knows which one it is."""
import contextlib
import math
import time

import torch
from tqdm import tqdm

from tools.engine.checkpoints import LAST, SavedRun
from tools.engine.meters import AverageMeter
from tools.engine.metrics import better
from tools.engine.profiler import StepProfile
from tools.engine.run import seed_step
from tools.engine.train_state import TrainState
from utils import checkpoint, distributed, signals
from utils.errors import NonFiniteLossError
from utils.files import saying_what


class Trainer(TrainState):
    """A training that goes on epoch by epoch, and is saved and resumed."""

    def __init__(self, run, task):
        super().__init__(run, task)
        self.request = signals.StopRequest()
        self.stop_signal = 0  # the signal, sent to any process, that ends the run; 0 is none
        self.saved = SavedRun(run.folder, run.log)
        self.saved_at = 0  # the iteration of its last checkpoint
        if run.args.resume:
            self.resume()
        if run.args.compile:
            self.model.compile()
        self.parallel = distributed.synchronized(self.model, run.device)

    def fit(self):
        """Train from the current epoch to ``max_epoch``, which is included, as published."""
        last, progress = self.run.config.max_epoch, self.progress
        with self.request, StepProfile(self.run) as profile:
            if progress.iteration == 0:
                self.saved.archive_previous_run()
                self.run.records.rewind(0)
                self.evaluate(-1, "Before training")
            while progress.epoch <= last:
                epoch = progress.epoch
                self.train_epoch(epoch, last, profile)
                self.scheduler.step(epoch)
                progress.epoch, progress.step = epoch + 1, 0
                files = []
                if epoch == last or (epoch and epoch % self.run.args.val_freq == 0):
                    files = self.evaluate(epoch, f"Epoch {epoch}/{last}")
                for name in (*files, LAST):  # the last one knows that the best is written
                    self.save(name)
                self.stop_if_signalled(distributed.all_reduce_max(self.request.number))
        return progress

    def train_epoch(self, epoch, last, profile):
        """Go through the training data once, or through what is left of it in a run that was interrupted."""
        task, progress, args = self.task, self.progress, self.run.args
        task.loader.dataset.set_epoch(epoch)
        task.loader.batch_sampler.set_epoch(epoch, progress.step)
        self.model.train()
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        begun, start = progress.step, time.perf_counter()
        with tqdm(task.loader, f"Epoch {epoch}/{last}", len(task.loader), initial=begun, unit="batch", leave=False,
                  dynamic_ncols=True, disable=None if distributed.is_main() else True) as bar:
            for batch in bar:
                update = (progress.step + 1) % self.run.config.step_per_update == 0
                update = update or progress.step + 1 == len(task.loader)
                losses = self.step(batch, update)
                self.means.add(losses, len(batch[0]))
                progress.step += 1
                bar.set_postfix(loss=f"{losses['loss']:.4f}")
                profile.step()
                if update and args.save_every and progress.iteration - self.saved_at >= args.save_every:
                    self.save(LAST)
                if update:
                    self.stop_if_signalled(self.stop_signal)
        clouds = (progress.step - begun) * self.run.config.total_bs
        self.report(epoch, last, rate, clouds / (time.perf_counter() - start))

    def step(self, batch, update=True):
        """Train on one batch: losses, gradients and, with ``update``, the optimizer; return the losses as reported.

        There ``loss`` is a number, the mean over all processes, read once, which is the only wait for a GPU; with it
        comes the signal that any of them was sent: ``stop_signal``.
        """
        run, progress = self.run, self.progress
        batch = [part.to(run.device, non_blocking=True) for part in batch]
        seed_step(run.args.seed, progress.iteration)
        with contextlib.nullcontext() if update else distributed.accumulating(self.parallel):
            with run.autocast():
                losses = self.task.losses(self.parallel, batch, progress.iteration)
            self.scaler.scale(losses["loss"] / run.config.step_per_update).backward()
        value, self.stop_signal = distributed.reduce_loss_and_signal(losses["loss"].detach(), self.request.number)
        if not math.isfinite(value):
            self.end_nonfinite(losses["loss"].item(), batch)
        if update:
            self.update()
        progress.iteration += 1
        return {**losses, "loss": value}

    def report(self, epoch, last, rate, speed):
        """Log and write down the means of an epoch's losses, and begin new ones."""
        values = self.means.values()
        self.means = AverageMeter()
        self.run.log.info("Epoch %d/%d  %s  lr %.2e  %.0f clouds/s", epoch, last,
                          "  ".join(f"{name} {value:.5g}" for name, value in values.items()), rate, speed)
        self.run.records.add("train", epoch, self.progress.iteration, {**values, "lr": rate})
        self.task.watch(epoch, values)

    def evaluate(self, epoch, title):
        """Evaluate, report, and return the names of the checkpoints whose metric is now the best so far."""
        self.model.eval()
        distributed.broadcast_buffers(self.model)
        progress = self.progress
        averaged = self.ema.applied(self.model) if self.ema else contextlib.nullcontext()
        with averaged, torch.inference_mode(), self.run.autocast():
            metrics = self.task.evaluate(epoch, progress.best)
        if metrics is None:
            return []
        self.run.log.info("%s  %s", title, "  ".join(f"{name} {value:.5g}" for name, value in metrics.items()))
        self.run.records.add("val", epoch, progress.iteration, metrics)
        if epoch < 0:
            return []
        progress.metrics = metrics
        improved = distributed.broadcast_from_main(lambda: [name for name in self.task.metrics if name in metrics and (
            name not in progress.best or better(name, metrics[name], progress.best[name][name]))])
        progress.best.update(dict.fromkeys(improved, metrics))
        return [self.task.metrics[name] for name in improved]

    def end_nonfinite(self, loss, batch):
        """End the run for a loss that is NaN or infinite in one process, which saves its batch and weights."""
        progress, mine = self.progress, not math.isfinite(loss)
        path = self.run.folder / f"nonfinite-step{f'-{distributed.rank()}' if distributed.rank() else ''}.pth"
        if mine:
            with saying_what(path):
                checkpoint.save({"batch": [part.cpu() for part in batch], "base_model": self.model.state_dict(),
                                 "epoch": progress.epoch, "iteration": progress.iteration, "loss": loss}, path)
        where = f"its batch and weights are in {path}" if mine else "in another process, which has saved its batch"
        raise NonFiniteLossError(f"the loss is {loss if mine else 'not finite'} in epoch {progress.epoch}, step "
                                 f"{progress.iteration}; {where}. Lower optimizer.kwargs.lr or look at that data")

    def stop_if_signalled(self, number):
        """End the run, saved, if it was told to stop by signal ``number``; 0 is none."""
        if not number:
            return
        if self.saved_at < self.progress.iteration:
            self.save(LAST)
        path = self.run.folder / LAST
        raise signals.stopped(number, f"{path} holds all {self.progress.iteration} steps; go on with --resume")

    def save(self, name):
        """Write the checkpoint ``name``."""
        state = self.state()
        if name == LAST:
            self.saved_at = self.progress.iteration
        self.saved.write(name, state)

    def resume(self):
        """Go on with the training that the folder holds."""
        path, state = self.saved.read()
        self.load(state, path)
        self.saved_at = self.progress.iteration
        self.say_resumed(path, state)

    def say_resumed(self, path, state):
        """Log where the run goes on, and what cannot be as it would have been."""
        progress, log = self.progress, self.run.log
        within = f" and {progress.step} steps of the next" if progress.step else ""
        log.info("Resuming after epoch %d%s of %s", progress.epoch - 1, within, path)
        before, now = state.get("processes", 1), distributed.world_size()
        if before != now:
            log.warning("The run had %d process%s and has %d now. The clouds of each step stay the same; what is drawn "
                        "at random for them and, without --sync_bn, the statistics of batch norm do not",
                        before, "es" * (before > 1), now)


def fit(run, task):
    """Train ``task`` in ``run``; returns its Progress, with the last and best metrics."""
    return Trainer(run, task).fit()
