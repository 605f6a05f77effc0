"""Lists of files: reading them, and files that they name and that are not there."""
import os
import pathlib

from utils.errors import DataError
from utils.text import read_text


def absent_files(first, absent, total, advice):
    """Return the error of ``absent`` listed files that are not there, of which ``first`` is one."""
    return DataError(f"{first} does not exist ({absent} of {total} listed files {'is' if absent == 1 else 'are'} "
                     f"missing): {advice}")


def listed_path(folder, name, listing):
    """Return ``folder / name``, where ``name`` is an entry of the file ``listing``.

    Raises DataError where the name, as it is written, leads out of the folder or is none; links are followed.
    """
    parts = name.replace("\\", "/").split("/")
    if {"", ".", ".."} & set(parts) or pathlib.PureWindowsPath(name).drive or not name.isprintable():
        raise DataError(f"{listing}: {name[:200]!r} is not a name inside {folder}: correct that entry, or get the list "
                        f"again from where it is published")
    return pathlib.Path(folder) / name


def refuse_absent(paths, advice):
    """Raise DataError, which names the first, where some of the listed ``paths`` are no files."""
    absent = [path for path in paths if not os.path.isfile(path)]  # False, too, for names that no file can have
    if absent:
        raise absent_files(absent[0], len(absent), len(paths), advice)


def read_lines(path, advice):
    """Return the lines of the list ``path`` that are neither blank nor comments (``#``), stripped.

    Raises DataError, with ``advice``, if there are none.
    """
    path = pathlib.Path(path)
    try:
        lines = [line.strip() for line in read_text(path).split("\n")]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: {advice}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path} is empty: {advice}")
    return lines
