"""What a pickle may make of numpy: arrays and scalars of plain numbers.

numpy's own ways to unpickle trust what they are given: a data type of crafted fields makes numbers of the file into
addresses of objects. So none of them is called here with anything but checked values.
"""
import pickle

import numpy as np


class Refused(pickle.UnpicklingError):
    """A pickle asks for what it may not have."""


class PlainDtype:
    """Stands for a data type of numbers while a pickle is read."""

    __slots__ = ("value",)
    kinds = "biuf"

    def __init__(self, text, align=False, copy=False):
        value = np.dtype(text) if isinstance(text, str) else None
        if value is None or value.kind not in self.kinds:
            raise Refused(f"it asks for the data type {str(text)[:40]}")
        self.value = value

    def __setstate__(self, state):
        _, order, *structure = state
        if order not in ("<", ">", "=", "|") or structure[:3] != [None] * 3:
            raise Refused("it asks for a structured data type")
        self.value = self.value.newbyteorder(order)


class ExtraDtype(PlainDtype):
    """The same for what lies beside the weights of a checkpoint: complex numbers and text of a fixed width too.

    Of other types, such as objects and fields, ``value`` is None: their arrays stay empty.
    """

    __slots__ = ()
    kinds = PlainDtype.kinds + "cSU"

    def __init__(self, *args):
        try:
            super().__init__(*args)
        except (Refused, TypeError):
            self.value = None

    def __setstate__(self, state):
        if self.value is not None:
            super().__setstate__(state)


class PlainArray(np.ndarray):
    """An array that takes no state but numbers that fill its shape."""

    def __setstate__(self, state):
        version, shape, dtype, columns_first, data = state
        array = from_bytes(data, dtype, shape, "F" if columns_first else "C")
        super().__setstate__((version, array.shape, array.dtype, bool(columns_first), _bytes(data)))


class ExtraArray(PlainArray):
    """The same, but empty where it is of a type that is not plain."""

    def __setstate__(self, state):
        if not (isinstance(state[2], ExtraDtype) and state[2].value is None):
            super().__setstate__(state)


class Maker:
    """A function that a pickle may call; the pickle can set nothing on it, as it could on a plain function."""

    __slots__ = ("function",)

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)

    def __setstate__(self, state):
        raise Refused(f"it changes {self.function.__name__}")


def empty_array(*_):
    """Return an array whose content follows; what numpy writes here is always the same, and is not looked at."""
    return np.ndarray.__new__(PlainArray, (0,), np.int8)


def empty_extra_array(*_):
    """The same for what lies beside the weights of a checkpoint."""
    return np.ndarray.__new__(ExtraArray, (0,), np.int8)


def no_bytes(*args):
    """Return b"", which protocol 2 writes as a call of ``bytes``."""
    if args:
        raise Refused("it calls builtins.bytes")
    return b""


def from_bytes(data, dtype, shape, order="C"):
    """Return the array (``shape``) of the numbers in ``data``; ValueError where they do not fill it."""
    return np.frombuffer(_bytes(data), _value(dtype)).reshape(shape, order=order)


def from_buffer(data, dtype, shape, order):
    """Return what protocol 5 writes: as ``from_bytes``, an array of its own."""
    return from_bytes(data, dtype, shape, order).copy(order=order)


def scalar(dtype, data):
    """Return the number in ``data``."""
    return np.frombuffer(_bytes(data), _value(dtype)).reshape(())[()]


def extra_scalar(dtype, data):
    """Return the number in ``data``, or None of a type that is not plain."""
    return None if isinstance(dtype, ExtraDtype) and dtype.value is None else scalar(dtype, data)


def _bytes(data):
    return data.encode("latin1") if isinstance(data, str) else bytes(data)


def _value(dtype):
    if not isinstance(dtype, PlainDtype) or dtype.value is None:
        raise Refused("it gives an array no data type")
    return dtype.value


def encode(text, encoding="latin1"):
    """Return ``text`` as bytes, which protocol 2 writes as text."""
    if encoding != "latin1":
        raise Refused(f"it asks for the encoding {str(encoding)[:40]}")
    return text.encode("latin1")


def number_makers(core):
    """Return names → what they make, for the pickles of numpy whose inner package is called ``core``."""
    return {f"numpy.{core}.multiarray._reconstruct": Maker(empty_array),
            f"numpy.{core}.multiarray.scalar": Maker(scalar),
            f"numpy.{core}.numeric._frombuffer": Maker(from_buffer)}


# the full names in a pickle → what serves for them
MAKERS = {"numpy.ndarray": "ndarray", "numpy.dtype": PlainDtype, "_codecs.encode": Maker(encode),
          **number_makers("core"), **number_makers("_core")}
