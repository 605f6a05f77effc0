"""Arrays of numpy: .npy and .npz."""
import re
import tokenize
import zipfile

import numpy as np

from datasets.io import UnreadableError
from utils.errors import DataError

UNPACKED = 4e9  # bytes of an array in a .npz file
# how people call the array of the points, without underscores; then names that do not say much
NAMES = {"xyz", "points", "point", "pts", "pos", "position", "positions", "coord", "coords", "coordinate",
         "coordinates", "vertices", "vertex", "verts", "pointcloud", "pointclouds", "cloud", "pc", "pcd", "pcl"}
PLAIN_NAMES = {"data", *(f"arr{index}" for index in range(100))}
# what stands beside points and has three columns or more
OTHER_NAMES = {"faces", "face", "triangles", "tri", "tris", "cells", "edges", "edge", "edgeindex", "indices", "index",
               "color", "colors", "colour", "colours", "rgb", "rgba", "normal", "normals", "vertexnormals",
               "vertexcolors", "facenormals", "n", "labels", "label", "segment", "semantic", "instance", "features",
               "feature", "feat", "feats", "uv", "uvs", "texcoords", "flow", "velocity", "velocities", "bbox", "boxes",
               "pose", "poses", "rotation", "transform", "intrinsics", "extrinsics", "mask", "voxels"}
MOST_COLUMNS = 16  # of an array with an unknown name that may be points; embeddings have more
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


def read_npy(path) -> np.ndarray:
    """Return the array of a .npy file; DataError where it holds none of numbers."""
    return load_npy(path)


def read_npz(path) -> np.ndarray:
    """Return the array of the points of a .npz file.

    That is the one called xyz, points, pos, coord, vertices or the like; or ``data``, or ``arr_0``, as numpy calls an
    array without a name; or, where there is only one of shape (N, ≥ 3) whose name is not known to mean something else,
    such as faces, normals or colours, that one. Raises ValueError where several are equally likely. Arrays of objects
    are not read.
    """
    with np.load(path, allow_pickle=False) as content:
        arrays, others = {}, {}
        for name in content.files:
            if (size := content.zip.getinfo(entry_of(content, name)).file_size) > UNPACKED:
                raise ValueError(f"'{name}' would take {size / 1e9:.3g} GB")
            try:
                array = content[name]
            except (ValueError, zipfile.BadZipFile) as error:
                if isinstance(error, zipfile.BadZipFile) or "allow_pickle" not in str(error):
                    raise
                others[name] = "of objects"
                continue
            fits = array.ndim == 2 and array.shape[1] >= 3 and array.dtype.kind in "fiu"
            (arrays if fits else others)[name] = array if fits else array.shape
    likely = likeliest(arrays)
    if len(likely) > 1:
        raise UnreadableError(f"any of its arrays {', '.join(sorted(likely))} may be the points: keep one")
    if not likely:
        shapes = [f"{name} {getattr(array, 'shape', array)}" for name, array in {**arrays, **others}.items()]
        raise UnreadableError(f"it holds no array of shape (N, 3) that could be points; its arrays: "
                              f"{', '.join(shapes) or 'none'}")
    return arrays[likely[0]]


def entry_of(content, name: str) -> str:
    """Return what the array ``name`` of an open .npz file is called in the archive."""
    return name if name in content.zip.namelist() else f"{name}.npy"


def likeliest(arrays: dict[str, np.ndarray]) -> list[str]:
    """Return the names of the arrays that may be the points, all of one rank."""
    plain = {name: name.lower().replace("_", "").replace("-", "").replace(" ", "") for name in arrays}
    for known in (NAMES, PLAIN_NAMES):
        found = [name for name in arrays if plain[name] in known]
        if found:
            return found
    return [name for name, array in arrays.items() if array.dtype.kind == "f" and array.shape[1] <= MOST_COLUMNS
            and array.shape not in ((3, 3), (4, 4)) and plain[name] not in OTHER_NAMES
            and OTHER_NAMES.isdisjoint(re.split(r"[_\W]+", name.lower()))]
