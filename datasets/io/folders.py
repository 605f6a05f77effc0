"""Walking folders of clouds: links are followed, and what archives and file managers leave behind is passed over."""
import os
import pathlib
from collections.abc import Collection


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's: hidden, or what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def has_suffix(path: str | os.PathLike, suffixes: Collection[str]) -> bool:
    """Whether the file name ``path`` ends in one of ``suffixes``, in capital or small letters."""
    return pathlib.PurePath(path).suffix.lower() in suffixes


def subfolders(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Return the folders in ``folder``, linked ones too, sorted by name; none where it does not exist."""
    return sorted(path for path in _entries(folder) if path.is_dir())


def files_in(folder: str | os.PathLike, suffixes: Collection[str]) -> list[pathlib.Path]:
    """Return the files in ``folder`` that end in one of ``suffixes``, sorted by name; none where it does not exist."""
    return sorted(path for path in _entries(folder) if has_suffix(path, suffixes) and path.is_file())


def _entries(folder):
    folder = pathlib.Path(folder)
    return [path for path in folder.iterdir() if not is_hidden(path.name)] if folder.is_dir() else []


def files_below(folder: str | os.PathLike, suffixes: Collection[str]) -> list[pathlib.Path]:
    """Return the files in ``folder`` and its folders that end in one of ``suffixes``, sorted.

    A folder that several links lead to is gone through once, so links in a circle do no harm.
    """
    found, seen, waiting = [], set(), [pathlib.Path(folder)]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real not in seen:
            seen.add(real)
            found += files_in(folder, suffixes)
            waiting += subfolders(folder)[::-1]
    return sorted(found)
