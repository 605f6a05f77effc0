"""ShapeNet-55: lists of ``<taxonomy>-<model>.npy`` and one file a cloud."""
import os
import pathlib

import numpy as np
import torch

from datasets import pack
from datasets.base import PointCloudDataset, Subset
from datasets.build import DATASETS
from datasets.clouds import check_cloud, few_points, normalize, upright
from datasets.io.arrays import load_npy
from datasets.io.folders import has_suffix
from datasets.io.lists import absent_files, listed_path, read_lines
from datasets.shapenet_categories import NAMES
from utils.errors import DataError
from utils.key_types import Axis, PathLike, PositiveInt

ADVICE = "see 'ShapeNet-55' in DATASET.md for the folders and where to get them"


@DATASETS.register
class ShapeNet(PointCloudDataset):
    """Clouds of ``npoints`` random rows of each file, centred and scaled to the unit sphere.

    The files are those of ``PC_PATH``, or of the packed file there (``datasets.pack``).

    ``taxonomies`` are the categories' synsets, parallel to ``class_names``.

    Keys:
        DATA_PATH: the folder with ``train.txt`` and ``test.txt``.
        PC_PATH: the folder with the files.
        N_POINTS: points that files are said to have; any number from ``npoints`` on will do.
        subset: train, or test (also called val).
        npoints: points a cloud; null stands for ``N_POINTS``.
        whole: adds the test list to the training subset.
        up: the axis that points upwards in the files; clouds are turned so that y does.
    """

    source = "https://github.com/lulutang0608/Point-BERT/blob/master/DATASET.md ('ShapeNet-55' in DATASET.md here)"

    def __init__(self, *, DATA_PATH: PathLike, PC_PATH: PathLike, N_POINTS: PositiveInt = 8192, subset: Subset,
                 npoints: PositiveInt | None = None, whole: bool = False, up: Axis = "y") -> None:
        super().__init__(subset, npoints or N_POINTS)
        self.up, self.folder = up, pathlib.Path(PC_PATH)
        lists = ["train", "test"] if whole and self.subset == "train" else [self.subset]
        self.files = files = [file for name in lists
                              for file in self.read_list(pathlib.Path(DATA_PATH) / f"{name}.txt")]
        packed = self.folder / pack.NAME
        self.packed = pack.PackedClouds(packed) if packed.is_file() else None
        self.check_files(DATA_PATH)
        self.ids = [name[:-len(".npy")] for name in files]
        taxonomies = [name.split("-")[0] for name in files]
        self.taxonomies = sorted(set(taxonomies))
        self.class_names = [NAMES.get(taxonomy, taxonomy) for taxonomy in self.taxonomies]
        number = {taxonomy: index for index, taxonomy in enumerate(self.taxonomies)}
        self.labels = np.array([number[taxonomy] for taxonomy in taxonomies], np.int64)

    def read_list(self, path):
        """Return the file names in the list ``path``, checked."""
        names = read_lines(path, ADVICE)
        for name in names:
            listed_path(self.folder, name, path)
            if "/" in name or not has_suffix(name, [".npy"]) or "-" not in name:
                raise DataError(f"{path}: '{name}' is not a name like <taxonomy>-<model>.npy")
        return names

    def check_files(self, lists):
        """Raise DataError unless every listed name is a file of the folder; asks the folder once, not each file."""
        try:
            present = self.packed or {entry.name for entry in os.scandir(self.folder)}
        except OSError as error:
            raise DataError(f"{self.folder} cannot be read ({error.strerror}): {ADVICE}") from error
        absent = [name for name in self.files if name not in present]
        if absent and self.packed:
            raise DataError(f"{self.packed.path} lacks {absent[0]} and {len(absent) - 1} others of the "
                            f"{len(self.files)} files listed in {lists}: pack the folder again, or remove that file")
        if absent:
            raise absent_files(self.folder / absent[0], len(absent), len(self.files), ADVICE)

    def __getitem__(self, index):
        points = self.read(self.files[index])
        chosen = self.rng(index).choice(len(points), self.npoints, replace=False)
        return torch.from_numpy(upright(normalize(points.take(chosen, 0)), self.up)), int(self.labels[index])

    def read(self, name):
        """Return all points (N, 3) of file ``name``."""
        path = self.folder / name
        if self.packed is None:
            return check_cloud(load_npy(path), path, self.npoints)[:, :3]
        points = self.packed.read(name)  # whether it is a cloud was checked when it was packed
        if len(points) < self.npoints:
            raise few_points(path, len(points), self.npoints)
        return points
