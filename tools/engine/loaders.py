"""From config sections to data loaders, optimizer, schedules and models in their place."""
import atexit

import torch
from torch.utils.data import DataLoader, Sampler

from datasets import build_dataset_from_cfg
from utils import distributed, signals
from utils.errors import ConfigError

LARGEST_EVALUATION_BATCH = 64


def build_dataset(run, split):
    """Build the data set of ``config.dataset.<split>``, or return None where the config has none."""
    section = run.config.dataset.get(split)
    if section is None:
        return None
    with distributed.local_rank_zero_first():  # some data sets write a cache
        dataset = build_dataset_from_cfg(section._base_, section.others, f"dataset.{split}")
    dataset.set_seed(run.args.seed)
    return dataset


class TrainingBatches(Sampler):
    """This process's share of every batch of ``total_bs`` clouds, in an order that seed and epoch decide.

    The clouds of a batch do not depend on the number of processes; the last batch, if not full, is dropped.
    ``set_epoch(epoch, start)`` chooses the epoch and from which batch on it is gone through.
    """

    def __init__(self, size, total_bs, seed):
        self.size, self.total_bs, self.seed, self.epoch, self.start = size, total_bs, seed, 0, 0
        self.share = distributed.local_batch_size(total_bs)

    def set_epoch(self, epoch, start=0):
        self.epoch, self.start = epoch, start

    def __len__(self):
        return self.size // self.total_bs

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator).tolist()
        for number in range(self.start, len(self)):
            first = number * self.total_bs + distributed.rank() * self.share
            yield order[first:first + self.share]


class EvaluationBatches(Sampler):
    """This process's share of the batches of ``batch_size`` clouds in order, the last of which may be smaller.

    Processes share out whole batches, the first process the first ones, so that each batch is computed alike whatever
    their number, and no cloud twice. ``first`` is the number of the first batch here.
    """

    def __init__(self, size, batch_size):
        self.size, self.batch_size = size, batch_size
        batches = -(-size // batch_size)
        rank, count = distributed.rank(), distributed.world_size()
        self.first, self.last = rank * batches // count, (rank + 1) * batches // count

    def __len__(self):
        return self.last - self.first

    def __iter__(self):
        for number in range(self.first, self.last):
            yield list(range(number * self.batch_size, min((number + 1) * self.batch_size, self.size)))


def build_loader(run, dataset, batch_size, train=False):
    """Return a loader of ``dataset`` that gives this process its share of batches of ``batch_size`` clouds.

    For training they are shuffled, and the last one is dropped if it is not full.
    """
    if train and len(dataset) < batch_size:
        raise ConfigError(f"total_bs is {batch_size}, but the training set has only {len(dataset)} clouds")
    workers = run.args.num_workers
    if workers:
        atexit.register(signals.end_workers)  # before multiprocessing's own, which would wait for them without a limit
    batches = (TrainingBatches(len(dataset), batch_size, run.args.seed) if train else
               EvaluationBatches(len(dataset), min(batch_size, LARGEST_EVALUATION_BATCH)))
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0,
                      pin_memory=run.device.type == "cuda", worker_init_fn=_start_worker)


def _start_worker(number):
    signals.ignore()
