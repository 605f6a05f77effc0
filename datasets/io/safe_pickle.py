"""Reading data pickles without running what is in them: arrays of numbers and plain containers alone."""
import io
import pickle

import numpy as np

from utils.errors import DataError
from utils.numpy_pickle import MAKERS


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if f"{module}.{name}" not in MAKERS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return MAKERS[f"{module}.{name}"]


def load_pickle(path):
    """Return the numpy arrays, lists, dicts and numbers pickled in the file ``path``.

    Raises DataError where the file is damaged or asks for anything else; nothing of it is run.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # noqa: BLE001 - a damaged pickle makes its reader trip over anything
        raise DataError(f"{path} is damaged or not a pickle of arrays: {' '.join(str(error).split())[:160]}") from error


def whole_number(value):
    """Return a pickled label, a number or an array of one, as an int that fits into 64 bits.

    Raises ValueError, TypeError or OverflowError for anything else.
    """
    if not isinstance(value, (int, np.integer, np.ndarray)):
        raise TypeError(f"a {type(value).__name__} is no whole number")
    return int(np.asarray(value, np.int64).item())
