"""ModelNet40 as ``modelnet40_ply_hdf5_2048``: the HDF5 files of 2,048 points a cloud that PointNet introduced."""
import pathlib

import numpy as np

from datasets.base import SUBSETS
from datasets.build import DATASETS
from datasets.class_names import MODELNET40
from datasets.h5_clouds import H5Clouds
from datasets.io.folders import files_in
from datasets.io.lists import read_lines
from utils.errors import ConfigError, DataError

ADVICE = "see 'modelnet40_ply_hdf5_2048' in DATASET.md for the folder and where to get it"


@DATASETS.register
class ModelNetHDF5(H5Clouds):
    """All clouds of ``ply_data_train*.h5`` or ``ply_data_test*.h5``, the files in the order of their names.

    Keys: ``DATA_PATH``, the folder; ``npoints`` keeps the first points of each cloud of 2,048, which are in random
    order. Clouds are given as they stand in the files, where they are centred and scaled to the unit sphere; training
    shuffles their points. ``shape_names.txt`` in the folder, where there is one, names the classes.
    """

    source = ("https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip ('modelnet40_ply_hdf5_2048' in "
              "DATASET.md shows the folder)")

    def __init__(self, *, DATA_PATH, subset, npoints=2048):
        super().__init__(subset, npoints)
        folder = pathlib.Path(DATA_PATH)
        names = folder / "shape_names.txt"
        self.class_names = read_lines(names, ADVICE) if names.exists() else list(MODELNET40)
        paths = [path for path in files_in(folder, [".h5"]) if path.name.startswith(f"ply_data_{self.subset}")]
        if not paths:
            raise DataError(f"{folder} holds no file ply_data_{self.subset}*.h5: {ADVICE}")
        parts = [self.read(path, ADVICE) for path in paths]
        self.clouds, self.labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        self.ids = [f"{path.stem}-{index}" for path, (_, labels) in zip(paths, parts, strict=True)
                    for index in range(len(labels))]


@DATASETS.register
class ModelNet40_SVM(ModelNetHDF5):
    """The same files under the name and keys of I2P-MAE: ``DATA_DIR``, ``partition`` (a subset) and ``num_points``."""

    def __init__(self, *, DATA_DIR, partition=None, num_points=2048, subset=None, npoints=None):
        if partition is None and subset is None:
            raise ConfigError("ModelNet40_SVM needs partition (or subset): train or test")
        if partition and subset and SUBSETS.get(partition, partition) != SUBSETS.get(subset, subset):
            raise ConfigError(f"partition is {partition}, but subset is {subset}: give one of them")
        super().__init__(DATA_PATH=DATA_DIR, subset=subset or partition, npoints=npoints or num_points)
