"""ScanObjectNN: scanned objects of 15 classes, in the HDF5 files of its authors."""
import os
import pathlib
import re
from typing import Annotated

from datasets.base import Subset
from datasets.build import DATASETS
from datasets.h5_clouds import H5Clouds
from utils.errors import ConfigError
from utils.key_types import OneOf, PathLike, PositiveInt

CLASS_NAMES = ("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow",
               "sink", "sofa", "toilet")
HARDEST = "_augmentedrot_scale75"  # in the names of the files of PB_T50_RS
# SPLIT in I2P-MAE's files → the folder and the ending of the files' names
SPLITS = {"OBJ": ("main_split_nobg", ""), "OBJ_BG": ("main_split", ""), "PB": ("main_split", HARDEST)}
FOLDER = re.compile(r"(main_)?split\d*(_nobg)?")  # names of the splits' own folders


@DATASETS.register
class ScanObjectNN(H5Clouds):
    """The objects as scanned: OBJ_BG where ``ROOT`` is ``main_split``, OBJ_ONLY where it is ``main_split_nobg``.

    Clouds are not normalised, as published; training shuffles their points. ``h5_files/`` in ``ROOT`` may stand there
    or not, whichever way the archive was unpacked.

    Keys:
        ROOT: the folder of the ``.h5`` files.
        SPLIT: as I2P-MAE has it: ``OBJ`` (OBJ_ONLY), ``OBJ_BG`` or ``PB`` (PB_T50_RS), with which ``ROOT`` may also be
            the folder of ``main_split`` and ``main_split_nobg``.
        N_POINTS: points a cloud in the files.
        subset: train, or test (also called val).
        npoints: keeps the first points of each cloud; null keeps all.
    """

    suffix = ""
    source = "https://hkust-vgd.github.io/scanobjectnn ('ScanObjectNN' in DATASET.md shows the folders)"

    def __init__(self, *, ROOT: PathLike, SPLIT: Annotated[str, OneOf(SPLITS)] | None = None,
                 N_POINTS: PositiveInt = 2048, subset: Subset, npoints: PositiveInt | None = None) -> None:
        super().__init__(subset, N_POINTS if npoints is None else npoints)
        if self.npoints > N_POINTS:
            raise ConfigError(f"npoints is {npoints}, but N_POINTS, what the files are said to hold, is {N_POINTS}")
        folder, suffix = find_folder(ROOT), self.suffix
        if SPLIT is not None:
            name, suffix = SPLITS[SPLIT]
            if self.suffix not in ("", suffix):
                raise ConfigError(f"SPLIT is {SPLIT}, but {type(self).__name__} is PB: give NAME: ScanObjectNN")
            folder = folder_of_split(ROOT, SPLIT, name)
        path = folder / f"{'training' if self.subset == 'train' else 'test'}_objectdataset{suffix}.h5"
        self.class_names = list(CLASS_NAMES)
        self.clouds, self.labels = self.read(path, f"get it from {self.source}")
        self.ids = [f"{path.stem}-{index}" for index in range(len(self.labels))]


@DATASETS.register
class ScanObjectNN_hardest(ScanObjectNN):
    """PB_T50_RS, the hardest variant: objects with background, shifted, turned and scaled."""

    suffix = HARDEST


def find_folder(name):
    """Return the folder ``name``, or where it is absent the one that is spelled with or without ``h5_files``."""
    folder = pathlib.Path(name)
    other = (folder.parent.parent if folder.parent.name == "h5_files" else folder.parent / "h5_files") / folder.name
    return other if other.is_dir() and not folder.is_dir() else folder


def folder_of_split(root: str | os.PathLike, split: str, name: str) -> pathlib.Path:
    """Return the folder of ``split``: ``root`` itself, or the folder ``name`` in it.

    Raises ConfigError where ``root`` is the folder of other objects, or holds both files and folders of splits.
    """
    root = find_folder(root)
    real = root.resolve().name
    if FOLDER.fullmatch(real):
        if real.endswith("_nobg") != name.endswith("_nobg"):
            raise ConfigError(f"SPLIT is {split}, which is in {name}, but ROOT is {root}: correct one of them")
        return root
    parents = [root, root / "h5_files", *([root.parent] if root.name == "h5_files" and not root.is_dir() else [])]
    folders = [parent / name for parent in parents if (parent / name).is_dir()]
    folders += [root] if any(root.glob("*_objectdataset*.h5")) else []
    if len(folders) > 1:
        raise ConfigError(f"SPLIT is {split}, but ROOT does not tell which files are meant, those of "
                          f"{' or '.join(map(str, folders))}: give the split's own folder as ROOT")
    return folders[0] if folders else root / name
