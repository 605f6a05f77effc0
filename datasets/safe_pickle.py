"""Reading data pickles without running what is in them: numpy arrays and plain containers alone."""
import io
import pickle
import zlib

import numpy as np

from utils.errors import DataError

ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{(f"numpy.{core}.multiarray", name): getattr(np._core.multiarray, name)
       for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): np._core.numeric._frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return _encode
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ALLOWED[module, name]


def _encode(text, encoding="latin1"):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


def load_pickle(path):
    """Return the numpy arrays, lists, dicts and numbers pickled in the file ``path``.

    Raises DataError where the file is damaged or asks for anything else; nothing of it is run.
    """
    try:
        content = path.read_bytes()
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, MemoryError,
            ImportError, UnicodeError, OverflowError, zlib.error) as error:
        raise DataError(f"{path} is damaged or not a pickle of arrays: {' '.join(str(error).split())}") from error
