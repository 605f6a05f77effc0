"""Data sets in HDF5 files."""
import torch

from datasets.base import PointCloudDataset
from datasets.io.h5_files import read_h5
from utils.errors import ConfigError, DataError


class H5Clouds(PointCloudDataset):
    """Data sets with ``clouds`` (N, npoints, 3) float32 and ``labels`` from HDF5 files, points in random order.

    Clouds are given as they stand in the files; training shuffles their points.
    """

    def read(self, path, advice):
        """Return the first ``npoints`` of each cloud (N, npoints, 3) float32 and the labels (N,) of a file, checked."""
        clouds, labels = read_h5(path, advice)
        if clouds.shape[1] < self.npoints:
            raise ConfigError(f"npoints is {self.npoints}, but the clouds of {path} have {clouds.shape[1]} points")
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise DataError(f"{path} has labels from {labels.min()} to {labels.max()}, but there are "
                            f"{len(self.class_names)} classes")
        return clouds[:, :self.npoints], labels

    def __getitem__(self, index):
        points = self.clouds[index]
        if self.subset == "train":
            points = points[self.rng(index).permutation(len(points))]
        return torch.from_numpy(points), int(self.labels[index])
