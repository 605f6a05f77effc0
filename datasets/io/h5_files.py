"""Clouds of 2,048 points in HDF5 files: ``data`` (N, 2048, 3) and ``label`` (N,)."""
import pathlib

import h5py
import numpy as np

from utils.errors import DataError

LARGEST = 4e9  # bytes of an array; the published ones have 0.3e9


def read_dataset(file, name):
    """Return the array ``name`` of an open HDF5 file.

    Raises ValueError where it stands in another file, which an HDF5 file can name, or unpacks to too much.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink | None):
        raise ValueError(f"'{name}' is a link")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"'{name}' is no array of this file")
    if data.nbytes > LARGEST:
        raise ValueError(f"'{name}' would take {data.nbytes / 1e9:.3g} GB")
    return np.asarray(data)


def read_h5(path, advice):
    """Return ``data`` (N, P, 3) float32 and ``label`` (N,) int64 of an HDF5 file.

    Raises DataError, with ``advice`` where the file is absent, unless both are there, finite and of one length.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist: {advice}")
    try:
        with h5py.File(path, locking=False) as file:  # another program may have it open
            clouds, labels = read_dataset(file, "data"), read_dataset(file, "label")
    except KeyError as error:
        raise DataError(f"{path} lacks 'data' or 'label'; is it another file? {advice}") from error
    except (OSError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        if "already open for write" in str(error):
            raise DataError(f"{path} is open for writing in another program: close it there, or, if that has crashed, "
                            f"run h5clear -s on the file") from error
        if isinstance(error, PermissionError):
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        raise DataError(f"{path} is damaged or not an HDF5 file ({reason}): {advice}") from error
    labels = labels.reshape(-1) if labels.ndim and labels.size == len(labels) else labels
    if clouds.ndim != 3 or clouds.shape[2] != 3 or clouds.dtype.kind not in "fiu" or not len(clouds):
        raise DataError(f"{path} holds 'data' of shape {clouds.shape} and type {clouds.dtype}, not (N, points, 3)")
    if labels.shape != (len(clouds),) or labels.dtype.kind not in "iu":
        raise DataError(f"{path} holds 'label' of shape {labels.shape} and type {labels.dtype}, not one whole number "
                        f"for each of the {len(clouds)} clouds")
    clouds = clouds.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(clouds).all((1, 2)))
    if len(bad):
        raise DataError(f"{path} holds NaN or infinite coordinates in cloud {bad[0]} and {len(bad) - 1} others")
    return clouds, labels.astype(np.int64)
