"""Rooms of S3DIS, sorted by the cells of their floor and mapped into memory: a column is read in a millisecond."""
import json
import pathlib

import numpy as np

from datasets.io.arrays import NPY_ERRORS, load_npy
from utils.errors import DataError
from utils.files import replacing
from utils.text import parse_json

CELL = 0.25  # metres
EXTENT = 1000  # metres; no room is larger
CACHE = ".sorted"


class Room:
    """The points of a room, sorted by the cell of the floor that they stand on.

    Attributes: ``name``; ``xyz`` (N, 3) float32 in metres, the minimum at 0, a memory-mapped file; ``label`` (N,)
    uint8. The files are in ``.sorted/<name>/`` beside the room's ``.npy``, made at first use; where they cannot be
    written (``stored`` is False then) the arrays are kept in memory.
    """

    def __init__(self, path, num_classes):
        self.path, self.name = pathlib.Path(path), pathlib.Path(path).stem
        self.folder = self.path.parent / CACHE / self.name
        arrays = self.read_cache()
        if arrays is None:
            arrays = sort_room(self.path, *read_room(self.path, num_classes))
            if self.write_cache(arrays):
                arrays = self.read_cache() or arrays
        self.stored = isinstance(arrays[0], np.memmap)
        self.xyz, self.label, self._order, starts = arrays
        (self.rows, self.columns), self.starts = starts[:2].tolist(), starts[2:]

    def __len__(self):
        return len(self.label)

    def __getstate__(self):
        """A worker maps the files itself."""
        return {"path": self.path} if self.stored else self.__dict__

    def __setstate__(self, state):
        if "xyz" in state:
            self.__dict__.update(state)
        else:
            self.__init__(state["path"], 256)  # the labels were checked before

    @property
    def order(self):
        """Each point's row (N,) in the original file."""
        return load_npy(self.folder / "order.npy") if self._order is None else self._order

    def counts(self):
        """Return the number of points of each cell (rows, columns)."""
        return np.diff(self.starts).reshape(self.rows, self.columns)

    def column(self, low, high):
        """Return the indices of the points with ``low`` ≤ x, y ≤ ``high``, both (2,), in ascending order."""
        first = np.clip(np.floor(np.asarray(low) / CELL).astype(int), 0, None)
        last = np.minimum(np.floor(np.asarray(high) / CELL).astype(int), (self.rows - 1, self.columns - 1))
        if (last < first).any():
            return np.empty(0, np.int64)
        spans = [(self.starts[row * self.columns + first[1]], self.starts[row * self.columns + last[1] + 1])
                 for row in range(first[0], last[0] + 1)]
        index = np.concatenate([np.arange(start, end) for start, end in spans])
        xy = np.concatenate([self.xyz[start:end, :2] for start, end in spans])
        return index[((xy >= low) & (xy <= high)).all(1)]

    def stamp(self):
        stat = self.path.stat()
        return [stat.st_size, stat.st_mtime_ns, CELL]

    def read_cache(self):
        """Return the sorted arrays, the order of the points left where it is; None unless they are of this file.

        One file a room stays open: S3DIS has 272, and a process may often have no more than 1,024.
        """
        try:
            if parse_json((self.folder / "stamp.json").read_bytes()) != self.stamp():
                return None
            xyz = np.load(self.folder / "xyz.npy", mmap_mode="r")
            label, starts = (np.load(self.folder / f"{name}.npy") for name in ("label", "starts"))
            return [xyz, label, None, starts] if fit_together(xyz, label, starts) else None
        except NPY_ERRORS:  # absent, another user's or damaged: the room is sorted anew
            return None

    def write_cache(self, arrays):
        """Write the sorted arrays, the stamp last; return whether that was possible."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, array in zip(("xyz", "label", "order", "starts"), arrays, strict=True):
                with replacing(self.folder / f"{name}.npy") as file:
                    np.save(file, array)
            with replacing(self.folder / "stamp.json") as file:
                file.write(json.dumps(self.stamp()).encode())
        except OSError:
            return False
        return True


def fit_together(xyz, label, starts):
    """Whether the arrays of a cache are those of one room, and no index among them leads out of another."""
    if not isinstance(xyz, np.memmap) or xyz.ndim != 2 or xyz.shape[1] != 3 or xyz.dtype != np.float32:
        return False
    if not isinstance(label, np.ndarray) or label.shape != (len(xyz),) or label.dtype != np.uint8:
        return False
    if not isinstance(starts, np.ndarray) or starts.ndim != 1 or len(starts) < 4 or starts.dtype != np.int64:
        return False
    (rows, columns), starts = starts[:2].tolist(), starts[2:]
    return (min(rows, columns) > 0 and len(starts) == rows * columns + 1 and starts[0] == 0
            and starts[-1] == len(xyz) and (np.diff(starts) >= 0).all())


def read_room(path, num_classes):
    """Return the points (N, 3) float32, shifted to start at 0, and labels (N,) uint8 of a room's ``.npy`` (N, 7).

    Raises DataError, naming the file, where it is of another width, empty, not finite, or has labels outside 0 …
    ``num_classes`` - 1.
    """
    room = load_npy(path)
    if room.ndim != 2 or room.shape[1] != 7 or room.dtype.kind not in "fiu":
        raise DataError(f"{path} holds an array of shape {room.shape} and type {room.dtype}, not (N, 7): x y z r g b "
                        f"label; prepare it with semantic_segmentation/prepare_s3dis.py")
    if not len(room):
        raise DataError(f"{path} holds no points")
    if not np.isfinite(room).all():
        raise DataError(f"{path} holds NaN or infinite numbers")
    label = room[:, 6]
    if label.min() < 0 or label.max() >= num_classes or (label != np.floor(label)).any():
        raise DataError(f"{path} has labels from {label.min():g} to {label.max():g}, not whole numbers from 0 to "
                        f"{num_classes - 1}")
    xyz = room[:, :3]
    return (xyz - xyz.min(0)).astype(np.float32), label.astype(np.uint8)


def sort_room(path, xyz, label):
    """Return xyz, label and order sorted by cell, and the cells' starts behind their numbers of rows and columns."""
    if xyz.max() > EXTENT:
        raise DataError(f"{path} spans {xyz.max():.0f} m: coordinates must be in metres, without stray points")
    cells = np.floor(xyz[:, :2] / CELL).astype(np.int64)
    rows, columns = cells.max(0) + 1
    number = cells[:, 0] * columns + cells[:, 1]
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(rows * columns + 1))
    return xyz[order], label[order], order.astype(np.int32), np.concatenate([[rows, columns], starts])
