"""Clouds and meshes of one's own, in a folder for each class."""
import pathlib
import warnings

import numpy as np
import torch
from tqdm import tqdm

from datasets.base import PointCloudDataset, check_up, few_points, normalize, read_every, upright
from datasets.build import DATASETS
from datasets.point_files import FORMATS, is_cloud_file, read_points
from utils.errors import ConfigError, DataError
from utils.files import replacing


@DATASETS.register
class PointFolder(PointCloudDataset):
    """Files of any format in ``point_files.FORMATS``, in one of these arrangements, found by itself::

        DATA_PATH/train/<class>/<file>   DATA_PATH/test/<class>/<file>
        DATA_PATH/<class>/train/<file>   DATA_PATH/<class>/test/<file>     (as ModelNet is distributed)
        DATA_PATH/<class>/<file>         every class split at random, ``test_share`` of it for testing

    Keys: ``DATA_PATH``; ``N_POINTS``, how many points are sampled on a mesh or kept of a large cloud; ``npoints``, how
    many of these make a sample (training draws others each epoch); ``up``, ``y`` or ``z``, the axis that points
    upwards in the files; ``test_share``.

    Classes are sorted by name. What was read is kept in ``.points_<subset>_<N_POINTS>.npz`` in the folder, until a
    file changes. Clouds are centred and scaled to the unit sphere.
    """

    source = "'Your own clouds' in DATASET.md shows how the folder must look"

    def __init__(self, *, DATA_PATH, subset, npoints=2048, N_POINTS=8192, up="y", test_share=0.2):
        super().__init__(subset, npoints)
        if not 0 < test_share < 1:
            raise ConfigError(f"test_share is {test_share}; it must be between 0 and 1")
        if npoints > N_POINTS:
            raise ConfigError(f"npoints is {npoints}, but N_POINTS, what is kept of a file, is {N_POINTS}")
        self.up, self.folder = check_up(up), pathlib.Path(DATA_PATH)
        self.class_names, files = list_classes(self.folder, self.subset, test_share)
        self.files = [file for name in self.class_names for file in files[name]]
        self.labels = np.repeat(np.arange(len(self.class_names)), [len(files[name]) for name in self.class_names])
        self.ids = [file.relative_to(self.folder).as_posix() for file in self.files]
        self.clouds = self.load(N_POINTS)
        read_every(zip(self.files, self.clouds, strict=True), lambda pair: check_size(*pair, npoints))

    def load(self, samples):
        """Return the points of all files, from the cache where it is of these very files."""
        cache = self.folder / f".points_{self.subset}_{samples}.npz"
        stamp = [f"{name} {(stat := file.stat()).st_size} {stat.st_mtime_ns}"
                 for name, file in zip(self.ids, self.files, strict=True)]
        clouds = read_cache(cache, stamp)
        if clouds is None:
            bar = tqdm(self.files, f"Reading {self.subset}", unit="file", disable=None)
            clouds = read_every(bar, lambda file: centred(read_points(file, samples)))
            write_cache(cache, stamp, clouds)
        return clouds

    def __getitem__(self, index):
        points = self.clouds[index]
        points = points[self.rng(index).permutation(len(points))[:self.npoints]]
        return torch.from_numpy(upright(normalize(points), self.up)), int(self.labels[index])


def centred(points):
    """Return points (N, 3) about their mean as float32, so that those far from the origin lose nothing by it."""
    return (points - points.mean(0)).astype(np.float32)


def check_size(file, cloud, npoints):
    """Raise DataError where ``cloud``, of ``file``, has fewer than ``npoints`` points."""
    if len(cloud) < npoints:
        raise few_points(file, len(cloud), npoints)


def list_classes(folder, subset, test_share):
    """Return the class names and a dict of class → files of ``subset``; DataError where there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: {PointFolder.source}")
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        names = sorted({entry.name for part in ("train", "test") for entry in subfolders(folder / part)})
        files = {name: list_files(folder / subset / name) for name in names}
    else:
        names = sorted(entry.name for entry in subfolders(folder))
        files = {name: of_subset(folder / name, subset, test_share) for name in names}
    if not any(files.values()):
        raise DataError(f"{folder} holds no class folders with files for '{subset}' ({' '.join(FORMATS)}): "
                        f"{PointFolder.source}")
    return names, files


def of_subset(folder, subset, test_share):
    """Return the files of one class that belong to ``subset``."""
    if (folder / "train").is_dir() or (folder / "test").is_dir():
        return list_files(folder / subset)
    files = list_files(folder)
    order = np.random.default_rng(0).permutation(len(files))
    tests = set(order[:round(test_share * len(files))].tolist())
    return [file for index, file in enumerate(files) if (index in tests) == (subset == "test")]


def subfolders(folder):
    """Return the folders in ``folder`` that are not hidden."""
    return [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def list_files(folder):
    """Return the files of a known format in ``folder``, sorted; none where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(filter(is_cloud_file, folder.iterdir()))


def read_cache(path, stamp):
    """Return the clouds in the cache ``path``, or None where it is absent, damaged or of other files."""
    try:
        with np.load(path, allow_pickle=False) as content:
            if content["stamp"].tolist() != stamp:
                return None
            return np.split(content["points"], content["ends"][:-1])
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the files themselves are there
        return None


def write_cache(path, stamp, clouds):
    """Write the cache by way of a temporary file; where that can't be done, say so and go on."""
    try:
        with replacing(path) as file:
            np.savez(file, stamp=np.array(stamp), points=np.concatenate(clouds),
                     ends=np.cumsum([len(cloud) for cloud in clouds]))
    except OSError as error:
        warnings.warn(f"{path} cannot be written ({error.strerror}): the files will be read again next time",
                      stacklevel=2)
