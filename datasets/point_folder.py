"""Clouds and meshes of one's own, in a folder for each class."""
import pathlib
import warnings

import numpy as np
import torch
from tqdm import tqdm

from datasets.base import PointCloudDataset, Subset
from datasets.build import DATASETS
from datasets.clouds import few_points, normalize, read_every, upright
from datasets.io.folders import files_in, subfolders
from datasets.io.point_files import FORMATS, read_points
from utils.errors import ConfigError, DataError
from utils.files import replacing
from utils.key_types import Axis, NonNegativeInt, PathLike, PositiveInt, ProperFraction

SUBSETS = ("train", "test")


@DATASETS.register
class PointFolder(PointCloudDataset):
    """Files of any format in ``point_files.FORMATS``, in one of these arrangements, found by itself::

        DATA_PATH/train/<class>/<file>   DATA_PATH/test/<class>/<file>
        DATA_PATH/<class>/train/<file>   DATA_PATH/<class>/test/<file>     (as ModelNet is distributed)
        DATA_PATH/<class>/<file>         every class split at random, ``test_share`` of it for testing

    Classes are the folders that hold such files, sorted by name; links are followed. What was read is kept in
    ``.points_<subset>_<N_POINTS>.npz`` in the folder, until a file changes. Clouds are centred and scaled to the unit
    sphere.

    Keys:
        DATA_PATH: the folder.
        subset: train, or test (also called val).
        npoints: how many of the ``N_POINTS`` points make a sample; training draws others each epoch.
        N_POINTS: how many points are sampled on a mesh or kept of a large cloud.
        up: the axis that points upwards in the files.
        test_share: the share of a class that is for testing where the folders do not tell.
        allow_bad: how many files of the subset may be left out, with a warning, because they are damaged or have too
            few points.
    """

    source = "docs/own_data.md shows how the folder must look"

    def __init__(self, *, DATA_PATH: PathLike, subset: Subset, npoints: PositiveInt = 2048,
                 N_POINTS: PositiveInt = 8192, up: Axis = "y", test_share: ProperFraction = 0.2,
                 allow_bad: NonNegativeInt = 0) -> None:
        super().__init__(subset, npoints)
        if npoints > N_POINTS:
            raise ConfigError(f"npoints is {npoints}, but N_POINTS, what is kept of a file, is {N_POINTS}")
        self.up, self.folder = up, pathlib.Path(DATA_PATH)
        files = list_classes(self.folder, test_share)
        self.class_names = list(files)
        found = [(file, label) for label, name in enumerate(files) for file in files[name][self.subset]]
        if not found:
            raise DataError(f"{self.folder} holds no class folders with files for '{self.subset}' "
                            f"({' '.join(FORMATS)}): {self.source}")
        clouds = self.load([file for file, _ in found], N_POINTS, allow_bad)
        good = [(file, label, cloud) for (file, label), cloud in zip(found, clouds, strict=True) if cloud is not None]
        if not good:
            raise DataError(f"{self.folder}: none of the {len(found)} files for '{self.subset}' can be used")
        self.files, labels, self.clouds = map(list, zip(*good, strict=True))
        self.labels, self.ids = np.array(labels, np.int64), [self.name_of(file) for file in self.files]

    @classmethod
    def classes_of(cls, keys: dict) -> list[str] | None:
        """Return the names of the class folders."""
        return list(list_classes(pathlib.Path(keys["DATA_PATH"]), keys["test_share"]))

    def name_of(self, file):
        return file.relative_to(self.folder).as_posix()

    def load(self, files, samples, allow_bad):
        """Return the points of all ``files``, None for the bad ones, from the cache where it is of these very files."""
        cache = self.folder / f".points_{self.subset}_{samples}.npz"
        stamp = [f"{self.name_of(file)} {(stat := file.stat()).st_size} {stat.st_mtime_ns}" for file in files]
        stored = read_cache(cache, stamp)
        kept = stored or [None] * len(files)

        def read(index):
            if kept[index] is None:
                kept[index] = centred(read_points(files[index], samples))
            check_size(files[index], kept[index], self.npoints)
            return kept[index]

        bar = tqdm(range(len(files)), f"Reading {self.subset}", unit="file", disable=None)
        clouds = read_every(bar, read, allowed=allow_bad, advice="" if allow_bad else
                            ": repair or remove what is bad, or let --allow_bad N leave out up to N files")
        if stored is None:
            write_cache(cache, stamp, kept)
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


def list_classes(folder: pathlib.Path, test_share: float) -> dict[str, dict[str, list[pathlib.Path]]]:
    """Return a dict of class → subset → files, of the classes that have files in one of the subsets."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: {PointFolder.source}")
    try:
        if all((folder / subset).is_dir() for subset in SUBSETS):
            names = {entry.name for subset in SUBSETS for entry in subfolders(folder / subset)}
            classes = {name: {subset: files_in(folder / subset / name, FORMATS) for subset in SUBSETS}
                       for name in names}
        else:
            classes = {entry.name: files_of(entry, test_share) for entry in subfolders(folder)}
    except OSError as error:
        raise DataError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    return {name: classes[name] for name in sorted(classes) if any(classes[name].values())}


def files_of(folder: pathlib.Path, test_share: float) -> dict[str, list[pathlib.Path]]:
    """Return a dict of subset → files of the class in ``folder``."""
    if any((folder / subset).is_dir() for subset in SUBSETS):
        return {subset: files_in(folder / subset, FORMATS) for subset in SUBSETS}
    files = files_in(folder, FORMATS)
    order = np.random.default_rng(0).permutation(len(files))
    tests = set(order[:round(test_share * len(files))].tolist())
    return {subset: [file for index, file in enumerate(files) if (index in tests) == (subset == "test")]
            for subset in SUBSETS}


def read_cache(path, stamp):
    """Return the clouds in the cache ``path``, None for bad files; None where it is absent, damaged or of others."""
    try:
        with np.load(path, allow_pickle=False) as content:
            if content["stamp"].tolist() != stamp:
                return None
            return [cloud if len(cloud) else None for cloud in np.split(content["points"], content["ends"][:-1])]
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the files themselves are there
        return None


def write_cache(path, stamp, clouds):
    """Write the cache by way of a temporary file; where that can't be done, say so and go on."""
    clouds = [np.empty((0, 3), np.float32) if cloud is None else cloud for cloud in clouds]
    try:
        with replacing(path) as file:
            np.savez(file, stamp=np.array(stamp), points=np.concatenate(clouds),
                     ends=np.cumsum([len(cloud) for cloud in clouds]))
    except OSError as error:
        warnings.warn(f"{path} cannot be written ({error.strerror}): the files will be read again next time",
                      stacklevel=2)
