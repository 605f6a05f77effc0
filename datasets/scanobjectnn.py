"""ScanObjectNN: scanned objects of 15 classes, in the HDF5 files of its authors."""
import pathlib

from datasets.build import DATASETS
from datasets.h5_files import H5Clouds

CLASS_NAMES = ("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow",
               "sink", "sofa", "toilet")


@DATASETS.register
class ScanObjectNN(H5Clouds):
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
        path = find_folder(ROOT) / f"{prefix}_objectdataset{self.suffix}.h5"
        self.class_names = list(CLASS_NAMES)
        self.clouds, self.labels = self.read(path, f"get it from {self.source}")
        self.ids = [f"{path.stem}-{index}" for index in range(len(self.labels))]


@DATASETS.register
class ScanObjectNN_hardest(ScanObjectNN):
    """PB_T50_RS, the hardest variant: objects with background, shifted, turned and scaled."""

    suffix = "_augmentedrot_scale75"


def find_folder(name):
    """Return the folder ``name``, or where it is absent the one that is spelled with or without ``h5_files``."""
    folder = pathlib.Path(name)
    other = (folder.parent.parent if folder.parent.name == "h5_files" else folder.parent / "h5_files") / folder.name
    return other if other.is_dir() and not folder.is_dir() else folder
