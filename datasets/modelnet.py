"""ModelNet10 and ModelNet40 with normals: text files, processed once into the published pickles."""
import pathlib
import pickle
import warnings
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from datasets.base import CloudsInMemory, Subset
from datasets.build import DATASETS
from datasets.clouds import check_cloud, read_every
from datasets.io.lists import listed_path, read_lines, refuse_absent
from datasets.io.safe_pickle import load_pickle, whole_number
from extensions.ops import furthest_point_sample
from utils import text
from utils.errors import ConfigError, DataError
from utils.files import replacing, why_not_writable
from utils.key_types import PathLike, PositiveInt

ADVICE = "see 'ModelNet' in DATASET.md for the folders and where to get them"


@DATASETS.register
class ModelNet(CloudsInMemory):
    """Clouds of ``N_POINTS`` furthest-point-sampled points, centred and scaled; training shuffles their order.

    Keys:
        DATA_PATH: the folder.
        N_POINTS: points a cloud in the cache.
        NUM_CATEGORY: ModelNet10 or ModelNet40.
        USE_NORMALS: keeps the normals as channels 3 to 5.
        subset: train, or test (also called val).
        npoints: takes the first points alone, which furthest point sampling has spread over the object.

    The cache ``modelnet<C>_<subset>_<N_POINTS>pts_fps.dat`` is read where it is, otherwise made of the text files.
    """

    source = ("https://shapenet.cs.stanford.edu/media/modelnet40_normal_resampled.zip ('ModelNet40' in DATASET.md "
              "shows the folders)")

    def __init__(self, *, DATA_PATH: PathLike, N_POINTS: PositiveInt = 8192, NUM_CATEGORY: Literal[10, 40] = 40,
                 USE_NORMALS: bool = False, subset: Subset, npoints: PositiveInt | None = None) -> None:
        super().__init__(subset, npoints or N_POINTS)
        if self.npoints > N_POINTS:
            raise ConfigError(f"npoints is {npoints}, but N_POINTS, what the cache holds, is {N_POINTS}")
        folder = pathlib.Path(DATA_PATH)
        self.channels = 6 if USE_NORMALS else 3
        self.class_names = read_lines(folder / f"modelnet{NUM_CATEGORY}_shape_names.txt", ADVICE)
        listing = folder / f"modelnet{NUM_CATEGORY}_{self.subset}.txt"
        self.ids = read_lines(listing, ADVICE)
        cache = folder / f"modelnet{NUM_CATEGORY}_{self.subset}_{N_POINTS}pts_fps.dat"
        content = load_pickle(cache) if cache.exists() else self.make_cache(cache, folder, N_POINTS, listing)
        self.clouds, self.labels = self.checked(content, cache, N_POINTS)

    def make_cache(self, path, folder, points, listing):
        """Return [clouds, labels], sampled from the text files, and write them to ``path`` where that is possible."""
        problem = why_not_writable(path)
        if problem:  # said before the sampling, which takes long
            warn_unwritten(path, problem)
        content = self.process(folder, points, listing)
        if not problem:
            write_cache(path, content)
        return content

    def checked(self, content, path, points):
        """Return the clouds and labels in ``content``, of the pickle ``path``, checked."""
        if (not isinstance(content, list) or len(content) != 2 or not all(isinstance(part, list) for part in content)
                or len(content[0]) != len(content[1])):
            raise DataError(f"{path} is not a pickle of [clouds, labels]")
        if len(content[0]) != len(self.ids):
            raise DataError(f"{path} holds {len(content[0])} clouds, but the list names {len(self.ids)}")
        clouds = read_every(enumerate(content[0]), lambda entry: check_cloud(entry[1], f"{path}, cloud {entry[0]}",
                                                                             points))
        if clouds[0].shape[1] < self.channels:
            raise DataError(f"{path} holds no normals; set USE_NORMALS to false")
        try:
            labels = np.array([whole_number(label) for label in content[1]], np.int64)
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{path} has labels that are not whole numbers") from error
        if labels.min() < 0 or labels.max() >= len(self.class_names):
            raise DataError(f"{path} has labels from {labels.min()} to {labels.max()}, but there are "
                            f"{len(self.class_names)} classes")
        return clouds, labels

    def process(self, folder, points, listing):
        """Read the text files of ``listing`` and sample each to ``points`` points; returns [clouds, labels]."""
        number = {name: index for index, name in enumerate(self.class_names)}
        categories = [name.rsplit("_", 1)[0] for name in self.ids]
        for name, category in zip(self.ids, categories, strict=True):
            if category not in number:
                raise DataError(f"{listing}: the list names '{name}', which is of none of the classes")
        paths = [listed_path(folder, f"{category}/{name}.txt", listing)
                 for name, category in zip(self.ids, categories, strict=True)]
        refuse_absent(paths, ADVICE)
        clouds, labels = [], []
        bar = tqdm(paths, f"Processing ModelNet {self.subset}", unit="cloud", disable=None)
        for index, (path, category) in enumerate(zip(bar, categories, strict=True)):
            cloud = check_cloud(read_text(path), path, points)
            start = np.random.default_rng(index).integers(len(cloud))
            cloud = np.roll(cloud, -start, axis=0)  # sampling starts at the first point
            xyz = torch.from_numpy(np.ascontiguousarray(cloud[:, :3])).unsqueeze(0)
            clouds.append(cloud[furthest_point_sample(xyz, points, skip_origin=False)[0].numpy()])
            labels.append(np.array([number[category]], np.int32))
        return [clouds, labels]


def read_text(path):
    """Read a file of lines ``x,y,z,nx,ny,nz``; DataError names the file and what is wrong in it."""
    try:
        return np.loadtxt(text.read_text(path).split("\n"), delimiter=",", dtype=np.float32, ndmin=2)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: {ADVICE}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a file of comma-separated numbers: {' '.join(str(error).split())}") from error


def write_cache(path, content):
    """Pickle ``content`` to ``path`` by way of a temporary file; where that cannot be done, say so and go on."""
    try:
        with replacing(path) as file:
            pickle.dump(content, file)
    except OSError as error:
        warn_unwritten(path, error.strerror)


def warn_unwritten(path: pathlib.Path, reason: str) -> None:
    """Warn that the cache ``path`` is not kept, and why."""
    warnings.warn(f"the cache {path} cannot be written ({reason}): the clouds will be sampled again next time",
                  stacklevel=2)
