"""Clouds and meshes of one's own, in the usual file formats, as points."""
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from datasets.base import NPY_ERRORS, load_npy
from datasets.pcd import read_pcd
from utils.errors import DataError

MESH_FORMATS = (".ply", ".obj", ".off", ".stl", ".glb")
TEXT_FORMATS = (".xyz", ".txt")
ARRAY_FORMATS = (".npy", ".npz")
FORMATS = (*MESH_FORMATS, *TEXT_FORMATS, *ARRAY_FORMATS, ".pcd")


def read_points(path, samples=8192):
    """Return the points (N, 3) float32 of a file, N ≤ ``samples``, the same at every call.

    A mesh is sampled uniformly on its surface with ``samples`` points; of a cloud with more points than that a random
    choice is kept. Coordinates are those of the file.

    Raises DataError, naming the file, where it is of no known format, damaged, empty, or holds NaN or infinite
    coordinates.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise DataError(f"{path} is of no known format; known are {' '.join(FORMATS)}")
    try:
        points = READERS[kind](path, samples)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise DataError(f"{path} holds an array of shape {points.shape} and type {points.dtype}, not points (N, 3)")
    if not len(points):
        raise DataError(f"{path} holds no points")
    points = points[:, :3].astype(np.float32)
    if not np.isfinite(points).all():
        raise DataError(f"{path} holds NaN or infinite coordinates")
    if len(points) > samples:
        points = points[np.random.default_rng(0).permutation(len(points))[:samples]]
    return points


def find_files(paths):
    """Return the files that ``paths`` name; a folder stands for all files of a known format in it, sorted.

    Raises DataError for a folder without any. Files that are named one by one are returned whatever they are.
    """
    files = []
    for path in map(pathlib.Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in FORMATS and file.is_file())
        if not inside:
            raise DataError(f"{path} holds no files of a known format: {' '.join(FORMATS)}")
        files += inside
    return files


def _read_mesh(path, samples):
    import trimesh

    try:
        content = trimesh.load(path, process=False)
        meshes = content.dump() if isinstance(content, trimesh.Scene) else [content]
        solid = [mesh for mesh in meshes if len(getattr(mesh, "faces", ())) and mesh.area > 0]
        if solid:
            mesh = trimesh.util.concatenate(solid)
            return trimesh.sample.sample_surface(mesh, samples, seed=0)[0]
        clouds = [np.asarray(mesh.vertices) for mesh in meshes if len(getattr(mesh, "vertices", ()))]
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - its parsers raise whatever a damaged file makes them trip over
        raise DataError(f"{path} is damaged or not a {path.suffix} file ({_reason(error)})") from error
    return np.concatenate(clouds) if clouds else np.empty((0, 3))


def _read_text(path, samples):
    """Numbers in lines, separated by blanks, commas or semicolons; coordinates first; ``#`` starts a comment."""
    try:
        text = path.read_text()
        lines = text.replace(",", " ").replace(";", " ").splitlines()
        if len(lines) > 1 and lines[0].strip().isdigit():
            lines = lines[1:]  # an .xyz file may begin with its number of points
        if not any(line.split("#")[0].strip() for line in lines):
            return np.empty((0, 3))
        return np.loadtxt(lines, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path} is not a file of numbers in columns ({_reason(error)})") from error


def _read_array(path, samples):
    if path.suffix.lower() == ".npy":
        return load_npy(path)
    try:
        with np.load(path, allow_pickle=False) as content:
            names = [name for name in ("points", "xyz", "pc", "data", *content.files) if name in content.files]
            arrays = [content[name] for name in names]
    except (*NPY_ERRORS, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
            struct.error) as error:
        raise DataError(f"{path} is damaged or not a .npz file of numbers ({_reason(error)})") from error
    clouds = [array for array in arrays if array.ndim == 2 and array.shape[1] >= 3]
    if not clouds:
        raise DataError(f"{path} holds no array of shape (N, 3); its arrays: {', '.join(names) or 'none'}")
    return clouds[0]


def _reason(error):
    return " ".join(str(error).split())[:120] or type(error).__name__


READERS = {**dict.fromkeys(MESH_FORMATS, _read_mesh), **dict.fromkeys(TEXT_FORMATS, _read_text),
           **dict.fromkeys(ARRAY_FORMATS, _read_array), ".pcd": lambda path, samples: read_pcd(path)}
