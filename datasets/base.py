"""What all data sets share: seeded sampling, and the checks that every cloud passes."""
import json
import os
import pathlib
import tokenize
import warnings

import numpy as np
import torch
from torch.utils.data import Dataset

from utils.errors import ConfigError, DataError
from utils.text import read_text

SUBSETS = {"train": "train", "test": "test", "val": "test"}


class PointCloudDataset(Dataset):
    """Clouds with a label; ``data[i]`` is (points (npoints, C) float32, label).

    Attributes: ``class_names``, ``labels`` (int64 array, None where a cloud has no label of its own), ``ids``,
    ``npoints``, and ``source``, where to get it. What is random in a cloud depends on the seed, the epoch and its index
    alone, so neither the number of workers nor a restart changes it. Evaluation subsets stay at epoch 0 and so give the
    same points every time.
    """

    source = "it is made on the fly"

    def __init__(self, subset, npoints):
        if subset not in SUBSETS:
            raise ConfigError(f"subset '{subset}' is not one of {', '.join(SUBSETS)}")
        if isinstance(npoints, bool) or not isinstance(npoints, int) or npoints < 1:
            raise ConfigError(f"npoints is {npoints}; it must be a whole number of at least 1")
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


def normalize(points):
    """Centre a cloud (N, 3) on its mean and divide it by its largest radius; a single point goes to the origin."""
    points = points - points.mean(0)
    radius = np.sqrt(np.einsum("nc,nc->n", points, points).max())
    return points / radius if radius > 0 else points


def upright(points, up):
    """Turn points (N, 3), whose axis ``up`` (``y`` or ``z``) points upwards, so that y does, as in ModelNet40.

    Models, augmentations (rotation is about y) and pictures take y for up.
    """
    return points if up == "y" else points[:, [0, 2, 1]] * np.array([1, 1, -1], points.dtype)


def check_up(up):
    """Return ``up``, or raise ConfigError unless it names an axis that ``upright`` knows."""
    if up not in ("y", "z"):
        raise ConfigError(f"up '{up}' is not y or z, the axis that points upwards in the files")
    return up


# what numpy lets through when it reads a damaged file
NPY_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TypeError, MemoryError, OverflowError, tokenize.TokenError)


def load_npy(path):
    """Read an array of numbers from a ``.npy`` file; DataError where it is damaged or holds anything else."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except NPY_ERRORS as error:
        raise DataError(f"{path} is damaged or not a .npy file of numbers: {' '.join(str(error).split())}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is damaged or not a .npy file of numbers: it is an archive of several; name it .npz")
    return array


def check_cloud(points, path, npoints):
    """Return ``points`` as float32 (N, C ≥ 3), or raise DataError naming ``path`` if it is not a usable cloud."""
    if not isinstance(points, np.ndarray):  # lists within lists of a pickle can stand for more than memory holds
        raise DataError(f"{path} holds a {type(points).__name__}, not points (N, 3)")
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise DataError(f"{path} holds an array of shape {points.shape} and type {points.dtype}, not points (N, 3)")
    if len(points) < npoints:
        raise few_points(path, len(points), npoints)
    points = points.astype(np.float32)
    if not np.isfinite(points).all():
        raise DataError(f"{path} holds NaN or infinite coordinates: repair the file or take it out of the list")
    return points


def few_points(path, points, npoints):
    """Return the error of a cloud that is too small."""
    return DataError(f"{path} has {points} points, but {npoints} are asked for: lower npoints or remove it")


def read_every(items, read, named=10, allowed=0, advice=""):
    """Return ``read(item)`` of all ``items``.

    Those that raise a DataError are gathered into one DataError, which says how many there are and what the first
    ``named`` say, and ends with ``advice``. Up to ``allowed`` of them are a warning instead, and None in the result.
    """
    results, errors = [], []
    for item in items:
        try:
            results.append(read(item))
        except DataError as error:
            errors.append(str(error))
            results.append(None)
    more = f"; and {len(errors) - named} more" if len(errors) > named else ""
    reasons = "; ".join(errors[:named]) + more
    if len(errors) > allowed:
        raise DataError((reasons if len(errors) == 1 else f"{len(errors)} clouds are damaged: {reasons}") + advice)
    if errors:
        warnings.warn(f"{len(errors)} of {len(results)} clouds are left out: {reasons}", stacklevel=2)
    return results


def absent_files(first, absent, total, advice):
    """Return the error of ``absent`` listed files that are not there, of which ``first`` is one."""
    return DataError(f"{first} does not exist ({absent} of {total} listed files {'is' if absent == 1 else 'are'} "
                     f"missing): {advice}")


def listed_path(folder, name, listing):
    """Return ``folder / name``, where ``name`` is an entry of the file ``listing``.

    Raises DataError where the name, as it is written, leads out of the folder or is none; links are followed.
    """
    parts = name.replace("\\", "/").split("/")
    if {"", ".", ".."} & set(parts) or pathlib.PureWindowsPath(name).drive or not name.isprintable():
        raise DataError(f"{listing}: {name[:200]!r} is not a name inside {folder}: correct that entry, or get the list "
                        f"again from where it is published")
    return pathlib.Path(folder) / name


def refuse_absent(paths, advice):
    """Raise DataError, which names the first, where some of the listed ``paths`` are no files."""
    absent = [path for path in paths if not os.path.isfile(path)]  # False, too, for names that no file can have
    if absent:
        raise absent_files(absent[0], len(absent), len(paths), advice)


def parse_json(text):
    """Return what a JSON ``text`` says; ValueError where it is damaged."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("lists within lists too deeply nested") from error


def read_lines(path, advice):
    """Return the lines of the list ``path`` that are neither blank nor comments (``#``), stripped.

    Raises DataError, with ``advice``, if there are none.
    """
    path = pathlib.Path(path)
    try:
        lines = [line.strip() for line in read_text(path).split("\n")]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: {advice}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path} is empty: {advice}")
    return lines
