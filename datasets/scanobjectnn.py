"""ScanObjectNN: scanned objects of 15 classes, in the HDF5 files of its authors."""
import pathlib

import h5py
import numpy as np
import torch

from datasets.base import PointCloudDataset
from datasets.build import DATASETS
from utils.errors import ConfigError, DataError

LARGEST = 4e9  # bytes of an array; the published ones have 0.3e9

CLASS_NAMES = ("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow",
               "sink", "sofa", "toilet")


@DATASETS.register
class ScanObjectNN(PointCloudDataset):
    """The objects as scanned: OBJ_BG where ``ROOT`` is ``main_split``, OBJ_ONLY where it is ``main_split_nobg``.

    Keys: ``ROOT``, the folder of the ``.h5`` files; ``npoints`` keeps the first points of each cloud of 2,048. Clouds
    are not normalised, as published; training shuffles their points.

    ``h5_files/`` in ``ROOT`` may stand there or not, whichever way the archive was unpacked.
    """

    suffix = ""
    source = "https://hkust-vgd.github.io/scanobjectnn ('ScanObjectNN' in DATASET.md shows the folders)"

    def __init__(self, *, ROOT, subset, npoints=2048):
        super().__init__(subset, npoints)
        prefix = "training" if self.subset == "train" else "test"
        self.path = find_folder(ROOT) / f"{prefix}_objectdataset{self.suffix}.h5"
        self.class_names = list(CLASS_NAMES)
        self.clouds, self.labels = self.read()
        self.ids = [f"{self.path.stem}-{index}" for index in range(len(self.labels))]

    def read(self):
        """Return the clouds (N, 2048, 3) float32 and labels (N,) of the file, checked."""
        clouds, labels = read_h5(self.path, f"get it from {self.source}")
        if clouds.shape[1] < self.npoints:
            raise ConfigError(f"npoints is {self.npoints}, but the clouds of {self.path} have {clouds.shape[1]} points")
        if labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
            raise DataError(f"{self.path} has labels from {labels.min()} to {labels.max()}, but there are "
                            f"{len(CLASS_NAMES)} classes")
        return clouds[:, :self.npoints], labels

    def __getitem__(self, index):
        points = self.clouds[index]
        if self.subset == "train":
            points = points[self.rng(index).permutation(len(points))]
        return torch.from_numpy(points), int(self.labels[index])


@DATASETS.register
class ScanObjectNN_hardest(ScanObjectNN):
    """PB_T50_RS, the hardest variant: objects with background, shifted, turned and scaled."""

    suffix = "_augmentedrot_scale75"


def find_folder(name):
    """Return the folder ``name``, or where it is absent the one that is spelled with or without ``h5_files``."""
    folder = pathlib.Path(name)
    other = (folder.parent.parent if folder.parent.name == "h5_files" else folder.parent / "h5_files") / folder.name
    return other if other.is_dir() and not folder.is_dir() else folder


def read_dataset(file, name):
    """Return the array ``name`` of an open HDF5 file.

    Raises ValueError where it stands in another file, which an HDF5 file can name, or unpacks to too much.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink | None):
        raise ValueError(f"'{name}' is a link")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"'{name}' is no array of this file")
    if data.nbytes > LARGEST:
        raise ValueError(f"'{name}' would take {data.nbytes / 1e9:.3g} GB")
    return np.asarray(data)


def read_h5(path, advice):
    """Return ``data`` (N, P, 3) float32 and ``label`` (N,) int64 of an HDF5 file.

    Raises DataError, with ``advice`` where the file is absent, unless both are there, finite and of one length.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist: {advice}")
    try:
        with h5py.File(path) as file:
            clouds, labels = read_dataset(file, "data"), read_dataset(file, "label")
    except KeyError as error:
        raise DataError(f"{path} lacks 'data' or 'label'; is it another file? {advice}") from error
    except (OSError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} is damaged or not an HDF5 file ({reason}): {advice}") from error
    labels = labels.reshape(-1) if labels.size == len(labels) else labels
    if clouds.ndim != 3 or clouds.shape[2] != 3 or clouds.dtype.kind not in "fiu" or not len(clouds):
        raise DataError(f"{path} holds 'data' of shape {clouds.shape} and type {clouds.dtype}, not (N, points, 3)")
    if labels.shape != (len(clouds),) or labels.dtype.kind not in "iu":
        raise DataError(f"{path} holds 'label' of shape {labels.shape} and type {labels.dtype}, not one whole number "
                        f"for each of the {len(clouds)} clouds")
    clouds = clouds.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(clouds).all((1, 2)))
    if len(bad):
        raise DataError(f"{path} holds NaN or infinite coordinates in cloud {bad[0]} and {len(bad) - 1} others")
    return clouds, labels.astype(np.int64)
