"""What all data sets share: seeded sampling."""
from typing import Annotated

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.clouds import normalize
from utils.key_types import OneOf, PositiveInt

SUBSETS = {"train": "train", "test": "test", "val": "test"}
Subset = Annotated[str, OneOf(SUBSETS)]


class PointCloudDataset(Dataset):
    """Clouds with a label; ``data[i]`` is (points (npoints, C) float32, label).

    Attributes: ``class_names``, ``labels`` (int64 array, None where a cloud has no label of its own), ``ids``,
    ``npoints``, and ``source``, where to get it. What is random in a cloud depends on the seed, the epoch and its index
    alone, so neither the number of workers nor a restart changes it. Evaluation subsets stay at epoch 0 and so give the
    same points every time.
    """

    source = "it is made on the fly"

    def __init__(self, subset: Subset, npoints: PositiveInt) -> None:
        self.subset, self.npoints, self.seed = SUBSETS[subset], npoints, 0
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that live on

    @classmethod
    def classes_of(cls, keys: dict) -> list[str] | None:
        """Return the class names that the files of a data set with the config ``keys`` decide, None where they do not.

        It is quick: no cloud is read.
        """

    def __len__(self):
        return len(self.labels)

    def describe(self):
        """Return what there is, in a few words."""
        return f"{len(self)} clouds of {self.npoints} points, {len(self.class_names)} classes"

    def set_seed(self, seed):
        """Choose the seed of all sampling."""
        self.seed = seed

    def set_epoch(self, epoch):
        """Choose the epoch that ``rng`` depends on; no effect on evaluation subsets."""
        if self.subset == "train":
            self._epoch.fill_(epoch)

    def rng(self, index):
        """Return the random generator of cloud ``index`` in this epoch."""
        return np.random.default_rng((self.seed, int(self._epoch), index))


class CloudsInMemory(PointCloudDataset):
    """Data sets with ``clouds`` (arrays (N, C)) and ``labels`` in memory, of which the first ``channels`` are given.

    A sample is the first ``npoints`` points, centred and scaled; training shuffles their order.
    """

    def __getitem__(self, index):
        points = self.clouds[index][:self.npoints, :self.channels].copy()
        points[:, :3] = normalize(points[:, :3])
        if self.subset == "train":
            points = points[self.rng(index).permutation(len(points))]
        return torch.from_numpy(points), int(self.labels[index])
