"""S3DIS: six areas of rooms; a sample is a column of 1 m × 1 m of one of them."""
import pathlib
import re
import warnings
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from tqdm import tqdm

from datasets.base import PointCloudDataset, Subset
from datasets.build import DATASETS
from datasets.io.folders import files_in
from datasets.s3dis_room import Room
from utils.errors import DataError
from utils.key_types import PathLike, PositiveFloat, PositiveInt

CLASS_NAMES = ("ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase",
               "board", "clutter")
BLOCK = 1.0  # metres
DENSE = 1024  # a block must have more points than this
TRIES = 200


@DATASETS.register
class S3DIS(PointCloudDataset):
    """Blocks around random points of the rooms of five areas, or of the sixth, ``test_area``, for testing.

    ``data[i]`` is (points (npoints, 3), labels (npoints,)), x and y relative to the block's centre, z above the
    floor of the room. A room gives as many blocks as it has points, divided by ``npoints`` (times ``sample_rate``).

    Keys:
        ROOT: the folder of ``Area_<n>_<room>.npy``.
        subset: train, or test (also called val).
        npoints: points a block.
        test_area: the area for testing.
        sample_rate: how many points all blocks have together, relative to the rooms.

    A room without a block of more than 1,024 points is left out of the samples, with a warning. Attributes: ``rooms``,
    and ``all_rooms``, with those that were left out; ``test_area``; ``class_weights`` (13,), from the labels of
    ``rooms``.
    """

    source = ("http://buildingparser.stanford.edu/dataset.html (Stanford3dDataset_v1.2_Aligned_Version; 'S3DIS' in "
              "DATASET.md says how to prepare it)")

    def __init__(self, *, ROOT: PathLike, subset: Subset, npoints: PositiveInt = 2048,
                 test_area: Annotated[int, Ge(1), Le(6)] = 5, sample_rate: PositiveFloat = 1.0) -> None:
        super().__init__(subset, npoints)
        self.class_names, self.test_area = list(CLASS_NAMES), test_area
        paths = find_rooms(ROOT, self.subset, test_area)
        rooms = [Room(path, len(CLASS_NAMES)) for path in tqdm(paths, f"Rooms {self.subset}", unit="room", leave=False,
                                                               disable=None)]
        unstored = [room.name for room in rooms if not room.stored]
        if unstored:
            warnings.warn(f"{ROOT} cannot be written: {len(unstored)} rooms are kept in memory and will be sorted "
                          f"again next time", stacklevel=2)
        self.all_rooms, self.eligible = rooms, [eligible_cells(room) for room in rooms]
        sparse = [room.name for room, cells in zip(rooms, self.eligible, strict=True) if not len(cells)]
        if sparse:
            names = ", ".join(sparse[:5]) + (" …" if len(sparse) > 5 else "")
            warnings.warn(f"{ROOT}: {len(sparse)} rooms without a block of 1 m × 1 m with more than {DENSE} points are "
                          f"left out: {names}", stacklevel=2)
        self.rooms = [room for room, cells in zip(rooms, self.eligible, strict=True) if len(cells)]
        self.eligible = [cells for cells in self.eligible if len(cells)]
        if not self.rooms:
            raise DataError(f"{ROOT}: no room for '{self.subset}' has a block with more than {DENSE} points")
        counts = sum(np.bincount(room.label, minlength=len(CLASS_NAMES)) for room in self.rooms)
        self.class_weights = torch.from_numpy(class_weights(counts))
        sizes = np.array([len(room) for room in self.rooms])
        blocks = np.maximum(np.round(sizes / sizes.sum() * int(sizes.sum() * sample_rate / npoints)), 1).astype(int)
        self.labels, self.blocks = None, np.repeat(np.arange(len(self.rooms)), blocks)  # the number of each one's room
        self.ids = [self.rooms[number].name for number in self.blocks]

    def __len__(self):
        return len(self.blocks)

    def describe(self):
        return (f"{len(self)} blocks of {self.npoints} points from {len(self.rooms)} rooms, {len(self.class_names)} "
                f"classes")

    def __getitem__(self, index):
        rng, number = self.rng(index), self.blocks[index]
        room = self.rooms[number]
        centre, inside = draw_block(room, self.eligible[number], rng)
        chosen = rng.choice(inside, self.npoints, replace=len(inside) < self.npoints)
        points = np.array(room.xyz[chosen])
        points[:, :2] -= centre
        return torch.from_numpy(points), torch.from_numpy(room.label[chosen].astype(np.int64))


def find_rooms(root, subset, test_area):
    """Return the paths of the rooms of ``subset``; DataError where an area or the folder is missing."""
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: see 'S3DIS' in DATASET.md for how to prepare it")
    areas = {}
    for path in files_in(root, [".npy"]):
        match = re.match(r"Area_(\d)_", path.name)
        if match:
            areas.setdefault(int(match[1]), []).append(path)
    if subset == "test":
        if test_area not in areas:
            raise DataError(f"{root} holds no rooms of Area {test_area}, which is to be tested; there are "
                            f"{describe(areas)}")
        return areas[test_area]
    others = {area: paths for area, paths in areas.items() if area != test_area}
    paths = [path for paths in others.values() for path in paths]
    if not paths:
        raise DataError(f"{root} holds no rooms to train on, beside Area {test_area}; there are {describe(areas)}")
    missing = sorted(set(range(1, 7)) - {test_area} - set(others))
    if missing:
        warnings.warn(f"{root} lacks Area {', '.join(map(str, missing))}: training on {describe(others)}", stacklevel=2)
    return paths


def describe(areas):
    return ", ".join(f"Area {area} ({len(paths)} rooms)" for area, paths in sorted(areas.items())) or "none at all"


def class_weights(counts):
    """Return the weights (most frequent / frequency)^(1/3) of classes; 1 for those that don't occur."""
    share = counts / counts.sum()
    return np.where(counts > 0, (share.max() / np.where(counts > 0, share, 1)) ** (1 / 3), 1).astype(np.float32)


def eligible_cells(room):
    """Return the cells that may hold the centre of a dense block, as rows (first point, end).

    A block of 1 m around a point of a cell of 0.25 m lies within five by five cells. Whether there is such a block is
    tried then; where none is found no cells are returned.
    """
    counts = np.pad(room.counts(), 2)
    around = sum(counts[row:row + room.rows, column:column + room.columns] for row in range(5) for column in range(5))
    cells = np.flatnonzero((around > DENSE).ravel() & (room.counts().ravel() > 0))
    cells = np.stack([room.starts[cells], room.starts[cells + 1]], 1)
    dense = len(cells) and len(draw_block(room, cells, np.random.default_rng(0))[1]) > DENSE
    return cells if dense else cells[:0]


def draw_block(room, cells, rng):
    """Return the centre (2,) of a block around a random point, and the indices of the more than 1,024 points in it.

    After many tries in vain, the densest block tried is returned.
    """
    ends = np.cumsum(cells[:, 1] - cells[:, 0])
    best = None
    for _ in range(TRIES):
        draw = rng.integers(ends[-1])
        cell = np.searchsorted(ends, draw, side="right")
        centre = np.array(room.xyz[cells[cell, 1] - (ends[cell] - draw), :2])
        inside = room.column(centre - BLOCK / 2, centre + BLOCK / 2)
        if best is None or len(inside) > len(best[1]):
            best = centre, inside
        if len(inside) > DENSE:
            break
    return best
