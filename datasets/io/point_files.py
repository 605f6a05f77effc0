"""Clouds and meshes of one's own, in the usual file formats, as points."""
import csv
import pathlib
import struct
import warnings
import zipfile
import zlib

import numpy as np

from datasets.clouds import normalize, upright
from datasets.io import UnreadableError
from datasets.io.arrays import NPY_ERRORS, read_npy, read_npz
from datasets.io.folders import files_below
from datasets.io.glb import read_glb
from datasets.io.mesh import Mesh
from datasets.io.obj import read_obj
from datasets.io.off import read_off
from datasets.io.pcd import read_pcd
from datasets.io.ply import read_ply
from datasets.io.stl import read_stl
from datasets.io.text_clouds import read_text_cloud
from utils.errors import DataError, one_line

READERS = {".ply": read_ply, ".obj": read_obj, ".off": read_off, ".stl": read_stl, ".glb": read_glb,
           ".xyz": read_text_cloud, ".txt": read_text_cloud, ".npy": read_npy, ".npz": read_npz, ".pcd": read_pcd}
FORMATS = tuple(READERS)
LARGEST = 1e15  # coordinate; squares and sums of such numbers are still exact enough
TRANSPOSED = 16  # a cloud of fewer points than columns has at most so many columns
# what readers, numpy and zipfile let through when they read a damaged file
ERRORS = (*(error for error in NPY_ERRORS if error is not OSError), KeyError, IndexError, AttributeError,
          NotImplementedError, RuntimeError, csv.Error, struct.error, zipfile.BadZipFile, zlib.error)


def read_points(path: str | pathlib.Path, samples: int = 8192) -> np.ndarray:
    """Return the points (N, 3) float64 of a file, N ≤ ``samples``, the same at every call.

    A mesh is sampled uniformly on its surface with ``samples`` points; of a cloud with more points than that a random
    choice is kept. Coordinates are those of the file. Points with NaN or infinite coordinates, by which depth cameras
    mark pixels without depth, are left out with a warning that says how many they are.

    Raises DataError, naming the file, where it is of no known format, damaged, empty, holds less or more than it
    announces, or can be read in more than one way.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    content = read_file(path)
    if isinstance(content, Mesh):
        points = sample(without_missing(content, path), samples)
    else:
        points = check_points(content, path)
        finite = np.isfinite(points).all(1)
        points = points[finite] if say_missing(path, finite) else points
    if not len(points):
        raise DataError(f"{path} holds no points")
    if np.abs(points).max() > LARGEST:
        raise DataError(f"{path} holds coordinates that are too large")
    if len(points) > samples:
        points = points[np.random.default_rng(0).permutation(len(points))[:samples]]
    return points


def read_file(path: pathlib.Path) -> Mesh | np.ndarray:
    """Return what the reader of the file's format makes of it; DataError names the file and what is wrong."""
    kind = path.suffix.lower()
    if kind not in READERS:
        raise DataError(f"{path} is of no known format; known are {' '.join(FORMATS)}")
    try:
        return READERS[kind](path)
    except DataError:
        raise
    except UnreadableError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ERRORS as error:
        what = DESCRIPTIONS.get(kind, f"is damaged or not a {kind} file")
        raise DataError(f"{path} {what} ({one_line(error)[:200] or type(error).__name__})") from error


DESCRIPTIONS = {**dict.fromkeys((".xyz", ".txt"), "is not a file of numbers in columns, or is damaged"),
                ".npz": "is damaged or not a .npz file of numbers", ".pcd": "is damaged or not a PCD file"}


def check_points(points: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """Return the first three columns as float64, or raise DataError where the array is no cloud."""
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise DataError(f"{path} holds an array of shape {points.shape} and type {points.dtype}, not points (N, 3)")
    if len(points) < points.shape[1] > TRANSPOSED:
        raise DataError(f"{path} holds an array of shape {points.shape}: if its points stand in columns, transpose it")
    return points[:, :3].astype(np.float64)


def without_missing(mesh: Mesh, path: pathlib.Path) -> Mesh:
    """Return the mesh without vertices that have no finite coordinates, and without their triangles."""
    finite = np.isfinite(mesh.vertices).all(1)
    if not say_missing(path, finite):
        return mesh
    number = np.cumsum(finite) - 1
    return Mesh(mesh.vertices[finite], number[mesh.triangles[finite[mesh.triangles].all(1)]])


def say_missing(path: pathlib.Path, finite: np.ndarray) -> bool:
    """Whether points are not ``finite`` (N,), which is warned of; DataError where none is."""
    missing = len(finite) - np.count_nonzero(finite)
    if missing and missing == len(finite):
        raise DataError(f"{path} holds NaN or infinite coordinates alone")
    if missing:
        warnings.warn(f"{path}: {missing} of {len(finite)} points are left out, as their coordinates are NaN or "
                      f"infinite", stacklevel=3)
    return bool(missing)


def sample(mesh: Mesh, samples: int) -> np.ndarray:
    """Return ``samples`` points on a mesh, the same at every call; its vertices where it has no surface."""
    import trimesh

    if not len(mesh.triangles) or np.abs(mesh.vertices).max() > LARGEST:
        return mesh.vertices
    surface = trimesh.Trimesh(mesh.vertices, mesh.triangles, process=False)
    if not surface.area > 0:
        return mesh.vertices
    return trimesh.sample.sample_surface(surface, samples, seed=0)[0]


def read_cloud(path, samples=8192, up="y"):
    """Return the points (N, 3) float32 of a file, centred, scaled to the unit sphere, and turned so that y is up.

    They are centred before they are rounded to float32, so that coordinates far from the origin lose nothing. ``up``
    is the axis that points upwards in the file. Raises DataError as ``read_points`` does.
    """
    return upright(normalize(read_points(path, samples)), up).astype(np.float32)


def find_files(path):
    """Return the files that ``path`` names; a folder stands for all files of a known format in it, sorted.

    Links are followed; hidden files and folders in it are passed over. Raises DataError for a folder without any, or
    that cannot be read. A file is returned whatever it is.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return [path]
    try:
        inside = files_below(path, FORMATS)
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    if not inside:
        raise DataError(f"{path} holds no files of a known format: {' '.join(FORMATS)}")
    return inside
