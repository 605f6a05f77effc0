"""A cloud as an array: its scale, its axes, and the checks that it passes."""
import warnings

import numpy as np

from utils.errors import DataError


def normalize(points):
    """Centre a cloud (N, 3) on its mean and divide it by its largest radius; a single point goes to the origin."""
    points = points - points.mean(0)
    radius = np.sqrt(np.einsum("nc,nc->n", points, points).max())
    return points / radius if radius > 0 else points


def upright(points, up):
    """Turn points (N, 3), whose axis ``up`` (``y`` or ``z``) points upwards, so that y does, as in ModelNet40.

    Models, augmentations (rotation is about y) and pictures take y for up.
    """
    return points if up == "y" else points[:, [0, 2, 1]] * np.array([1, 1, -1], points.dtype)


def check_cloud(points, path, npoints):
    """Return ``points`` as float32 (N, C ≥ 3), or raise DataError naming ``path`` if it is not a usable cloud."""
    if not isinstance(points, np.ndarray):  # lists within lists of a pickle can stand for more than memory holds
        raise DataError(f"{path} holds a {type(points).__name__}, not points (N, 3)")
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise DataError(f"{path} holds an array of shape {points.shape} and type {points.dtype}, not points (N, 3)")
    if len(points) < npoints:
        raise few_points(path, len(points), npoints)
    points = points.astype(np.float32)
    if not np.isfinite(points).all():
        raise DataError(f"{path} holds NaN or infinite coordinates: repair the file or take it out of the list")
    return points


def few_points(path, points, npoints):
    """Return the error of a cloud that is too small."""
    return DataError(f"{path} has {points} points, but {npoints} are asked for: lower npoints or remove it")


def read_every(items, read, named=10, allowed=0, advice=""):
    """Return ``read(item)`` of all ``items``.

    Those that raise a DataError are gathered into one DataError, which says how many there are and what the first
    ``named`` say, and ends with ``advice``. Up to ``allowed`` of them are a warning instead, and None in the result.
    """
    results, errors = [], []
    for item in items:
        try:
            results.append(read(item))
        except DataError as error:
            errors.append(str(error))
            results.append(None)
    more = f"; and {len(errors) - named} more" if len(errors) > named else ""
    reasons = "; ".join(errors[:named]) + more
    if len(errors) > allowed:
        raise DataError((reasons if len(errors) == 1 else f"{len(errors)} clouds are damaged: {reasons}") + advice)
    if errors:
        warnings.warn(f"{len(errors)} of {len(results)} clouds are left out: {reasons}", stacklevel=2)
    return results
