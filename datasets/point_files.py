"""Clouds and meshes of one's own, in the usual file formats, as points."""
import io
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from datasets.base import NPY_ERRORS, load_npy, normalize, upright
from datasets.pcd import read_pcd
from utils.errors import DataError, one_line

MESH_FORMATS = (".ply", ".obj", ".off", ".stl", ".glb")
UNPACKED = 4e9  # bytes of an array in a .npz file
LARGEST = 1e15  # coordinate; squares and sums of such numbers are still exact enough
TEXT_FORMATS = (".xyz", ".txt")
ARRAY_FORMATS = (".npy", ".npz")
FORMATS = (*MESH_FORMATS, *TEXT_FORMATS, *ARRAY_FORMATS, ".pcd")


def read_points(path, samples=8192):
    """Return the points (N, 3) float64 of a file, N ≤ ``samples``, the same at every call.

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
    points = points[:, :3].astype(np.float64)
    if not np.isfinite(points).all():
        raise DataError(f"{path} holds NaN or infinite coordinates")
    if np.abs(points).max() > LARGEST:
        raise DataError(f"{path} holds coordinates that are too large")
    if len(points) > samples:
        points = points[np.random.default_rng(0).permutation(len(points))[:samples]]
    return points


def read_cloud(path, samples=8192, up="y"):
    """Return the points (N, 3) float32 of a file, centred, scaled to the unit sphere, and turned so that y is up.

    They are centred before they are rounded to float32, so that coordinates far from the origin lose nothing. ``up``
    is the axis that points upwards in the file. Raises DataError as ``read_points`` does.
    """
    return upright(normalize(read_points(path, samples)), up).astype(np.float32)


def is_cloud_file(path):
    """Whether ``path`` is a file of a known format that is not hidden."""
    return path.suffix.lower() in FORMATS and not path.name.startswith(".") and path.is_file()


def find_files(path):
    """Return the files that ``path`` names; a folder stands for all files of a known format in it, sorted.

    Hidden files and folders in it are passed over. Raises DataError for a folder without any. A file is returned
    whatever it is.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return [path]
    inside = sorted(file for file in path.rglob("*") if is_cloud_file(file)
                    and not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not inside:
        raise DataError(f"{path} holds no files of a known format: {' '.join(FORMATS)}")
    return inside


def _read_mesh(path, samples):
    import trimesh

    try:
        # given the content instead of the path, it cannot read the other files that the content may name
        content = trimesh.load(io.BytesIO(path.read_bytes()), file_type=path.suffix[1:].lower(), process=False,
                               skip_materials=True)
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
    """Numbers in lines, separated by blanks, commas or semicolons; coordinates first; ``#`` starts a comment.

    A first line of words, such as ``x,y,z``, or of one number, that of the points, is passed over. Where semicolons
    separate, commas are decimal ones.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        text = text.replace(",", "." if ";" in text else " ").replace(";", " ")
        lines = [line for line in text.splitlines() if line.split("#")[0].strip()]
        if len(lines) > 1 and (lines[0].strip().isdigit() or not any(map(str.isdigit, lines[0]))):
            lines = lines[1:]
        return np.loadtxt(lines, dtype=np.float64, ndmin=2) if lines else np.empty((0, 3))
    except ValueError as error:
        raise DataError(f"{path} is not a file of numbers in columns ({_reason(error)})") from error


def _read_array(path, samples):
    if path.suffix.lower() == ".npy":
        return load_npy(path)
    try:
        with np.load(path, allow_pickle=False) as content:
            shapes = {}
            for name in dict.fromkeys(["points", "xyz", "pc", "data", *content.files]):
                if name not in content.files:
                    continue
                if (size := content.zip.getinfo(entry_of(content, name)).file_size) > UNPACKED:
                    raise ValueError(f"'{name}' would take {size / 1e9:.3g} GB")
                try:
                    array = content[name]
                except ValueError:  # of objects, which are not read
                    continue
                if array.ndim == 2 and array.shape[1] >= 3:
                    return array
                shapes[name] = array.shape
    except (*NPY_ERRORS, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
            struct.error) as error:
        raise DataError(f"{path} is damaged or not a .npz file of numbers ({_reason(error)})") from error
    raise DataError(f"{path} holds no array of shape (N, 3); its arrays: "
                    f"{', '.join(f'{name} {shape}' for name, shape in shapes.items()) or 'none'}")


def entry_of(content, name):
    """Return what the array ``name`` of an open .npz file is called in the archive."""
    return name if name in content.zip.namelist() else f"{name}.npy"


def _reason(error):
    return one_line(error)[:120] or type(error).__name__


READERS = {**dict.fromkeys(MESH_FORMATS, _read_mesh), **dict.fromkeys(TEXT_FORMATS, _read_text),
           **dict.fromkeys(ARRAY_FORMATS, _read_array), ".pcd": lambda path, samples: read_pcd(path)}
