"""ModelNet40 as ``modelnet40_ply_hdf5_2048``: the HDF5 files of 2,048 points a cloud that PointNet introduced."""
import pathlib

import numpy as np

from datasets.base import SUBSETS, Subset
from datasets.build import DATASETS
from datasets.class_names import MODELNET40
from datasets.h5_clouds import H5Clouds
from datasets.io.folders import files_in
from datasets.io.lists import read_lines
from utils.errors import ConfigError, DataError
from utils.key_types import PathLike, PositiveInt

ADVICE = "see 'modelnet40_ply_hdf5_2048' in DATASET.md for the folder and where to get it"


@DATASETS.register
class ModelNetHDF5(H5Clouds):
    """All clouds of ``ply_data_train*.h5`` or ``ply_data_test*.h5``, the files in the order of their names.

    Clouds are given as they stand in the files, where they are centred and scaled to the unit sphere; training
    shuffles their points. ``shape_names.txt`` in the folder, where there is one, names the classes.

    Keys:
        DATA_PATH: the folder.
        subset: train, or test (also called val).
        npoints: keeps the first points of each cloud of 2,048, which are in random order.
    """

    source = ("https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip ('modelnet40_ply_hdf5_2048' in "
              "DATASET.md shows the folder)")

    def __init__(self, *, DATA_PATH: PathLike, subset: Subset, npoints: PositiveInt = 2048) -> None:
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
    """The same files under the name and keys of I2P-MAE.

    Keys:
        DATA_DIR: the folder.
        partition: train, or test (also called val).
        num_points: keeps the first points of each cloud of 2,048, which are in random order.
        subset, npoints: the same as ``partition`` and ``num_points``.
    """

    def __init__(self, *, DATA_DIR: PathLike, partition: Subset | None = None, num_points: PositiveInt = 2048,
                 subset: Subset | None = None, npoints: PositiveInt | None = None) -> None:
        if partition is None and subset is None:
            raise ConfigError("ModelNet40_SVM needs partition (or subset): train or test")
        if partition and subset and SUBSETS[partition] != SUBSETS[subset]:
            raise ConfigError(f"partition is {partition}, but subset is {subset}: give one of them")
        super().__init__(DATA_PATH=DATA_DIR, subset=subset or partition, npoints=npoints or num_points)
