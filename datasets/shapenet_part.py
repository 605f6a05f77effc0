"""ShapeNetPart: objects of 16 categories whose points belong to 50 parts."""
import functools
import multiprocessing
import pathlib

import numpy as np
import torch
from tqdm import tqdm

from datasets.base import PointCloudDataset, Subset
from datasets.build import DATASETS
from datasets.clouds import normalize
from datasets.io.lists import listed_path, read_lines, refuse_absent
from utils.errors import DataError
from utils.key_types import PathLike, PositiveInt
from utils.text import parse_json, read_text

ADVICE = "see 'ShapeNetPart' in DATASET.md for the folders and where to get them"
MANY = 2000  # files, from which on several processes read them
# the parts of each category (Yi et al. 2016), in the order of the categories' numbers
PARTS = {"Airplane": (0, 1, 2, 3), "Bag": (4, 5), "Cap": (6, 7), "Car": (8, 9, 10, 11), "Chair": (12, 13, 14, 15),
         "Earphone": (16, 17, 18), "Guitar": (19, 20, 21), "Knife": (22, 23), "Lamp": (24, 25, 26, 27),
         "Laptop": (28, 29), "Motorbike": (30, 31, 32, 33, 34, 35), "Mug": (36, 37), "Pistol": (38, 39, 40),
         "Rocket": (41, 42, 43), "Skateboard": (44, 45, 46), "Table": (47, 48, 49)}


@DATASETS.register
class ShapeNetPart(PointCloudDataset):
    """Objects with a part label for each point; training uses the train and val lists, as published.

    ``data[i]`` is (points (npoints, 3), category, labels (npoints,)): random points of the file, with repetition,
    centred and scaled to the unit sphere.

    Keys:
        ROOT: the folder of ``synsetoffset2category.txt``.
        subset: train, or test (also called val).
        npoints: points a cloud.
    """

    source = "https://shapenet.cs.stanford.edu/media/shapenetcore_partanno_segmentation_benchmark_v0_normal.zip"

    def __init__(self, *, ROOT: PathLike, subset: Subset, npoints: PositiveInt = 2048) -> None:
        super().__init__(subset, npoints)
        self.folder, self.class_names = pathlib.Path(ROOT), list(PARTS)
        synsets = read_synsets(self.folder)
        names = ["train", "val"] if self.subset == "train" else ["test"]
        listed = [entry for name in names for entry in read_list(self.folder, name, synsets)]
        refuse_absent([path for path, _ in listed], ADVICE)
        self.ids = [f"{path.parent.name}/{path.stem}" for path, _ in listed]
        self.labels = np.array([number for _, number in listed], np.int64)
        tasks = [(path, self.class_names[number]) for path, number in listed]
        self.clouds = read_all(tasks, f"Reading {self.subset}")

    def __getitem__(self, index):
        points, parts = self.clouds[index]
        chosen = self.rng(index).integers(len(points), size=self.npoints)
        return (torch.from_numpy(normalize(points)[chosen]), int(self.labels[index]),
                torch.from_numpy(parts[chosen].astype(np.int64)))


def read_all(tasks, title):
    """Return ``read_object`` of every task (path, category), many at a time where there are many."""
    bar = functools.partial(tqdm, desc=title, total=len(tasks), unit="file", leave=False, disable=None)
    if len(tasks) < MANY:
        return [read_object(*task) for task in bar(tasks)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        return list(bar(pool.imap(_read_task, tasks, chunksize=64)))


def _read_task(task):
    return read_object(*task)


def read_synsets(folder):
    """Return a dict of synset → number of the category."""
    path = folder / "synsetoffset2category.txt"
    synsets = {}
    for line in read_lines(path, ADVICE):
        words = line.split()
        if len(words) != 2 or words[0] not in PARTS:
            raise DataError(f"{path}: '{line}' is not a line like 'Airplane 02691156' with one of the 16 categories")
        listed_path(folder, words[1], path)
        synsets[words[1]] = list(PARTS).index(words[0])
    return synsets


def read_list(folder, name, synsets):
    """Return [(path, category), …] of a split's list."""
    path = folder / "train_test_split" / f"shuffled_{name}_file_list.json"
    try:
        entries = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: {ADVICE}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or not a list: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} holds no list of files")
    result = []
    for entry in entries:
        parts = entry.split("/") if isinstance(entry, str) else []
        if isinstance(entry, str):
            listed_path(folder, entry, path)
        if len(parts) != 3 or parts[1] not in synsets:
            raise DataError(f"{path}: {str(entry)[:200]!r} is not a name like shape_data/<synset>/<id> of a known "
                            f"category")
        result.append((folder / parts[1] / f"{parts[2]}.txt", synsets[parts[1]]))
    return result


def read_object(path, category):
    """Return the points (N, 3) float32 and part labels (N,) uint8 of a file of lines ``x y z nx ny nz part``.

    Raises DataError, naming the file, where it is not of that form or has parts of another category.
    """
    try:
        text = read_text(path)
        table = np.loadtxt(text.split("\n"), dtype=np.float32, ndmin=2) if text.strip() else np.empty((0, 7))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a file of numbers: {' '.join(str(error).split())}") from error
    if not len(table) or table.shape[1] != 7:
        raise DataError(f"{path} holds {len(table)} lines of {table.shape[1]} numbers, not lines of 7: x y z nx ny nz "
                        f"part")
    if not np.isfinite(table).all():
        raise DataError(f"{path} holds NaN or infinite numbers")
    wrong = set(np.unique(table[:, 6]).tolist()) - set(PARTS[category])
    if wrong:
        names = ", ".join(f"{part:g}" for part in sorted(wrong))
        raise DataError(f"{path} has parts {names}, but those of the category {category} are {PARTS[category][0]} to "
                        f"{PARTS[category][-1]}")
    return table[:, :3].copy(), table[:, 6].astype(np.uint8)
