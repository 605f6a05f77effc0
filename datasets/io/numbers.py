"""Numbers in lines of text."""
import re

import numpy as np

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE | re.ASCII)
# how C libraries on Windows print what is no number: nan(ind), -1.#IND, 1.#QNAN00, rounded 1.#QO
WINDOWS_NAN = re.compile(r"[+-]?(?:nan\(\w*\)|\d\.#[A-Z]\w*)")


def plain_nans(text: str) -> str:
    """Return ``text`` with ``nan`` for the words that Windows prints for it."""
    return WINDOWS_NAN.sub("nan", text) if ".#" in text or "nan(" in text else text


def is_number(word: str) -> bool:
    """Whether ``word`` is a number, ``nan`` or ``inf``."""
    return NUMBER.fullmatch(word) is not None


def whole(word: str) -> int:
    """Return the whole number of at least 0 that ``word`` is; ValueError where it is none."""
    if not (word.isascii() and word.isdigit()):
        raise ValueError(f"'{word[:30]}' is not a whole number")
    return int(word)


def equal_widths(lines: list[str], delimiter: str | None = None) -> int:
    """Return how many cells each of ``lines`` has; ValueError where they differ. Without delimiter blanks separate."""
    widths = [len(line.split()) for line in lines] if delimiter is None else [line.count(delimiter) + 1
                                                                              for line in lines]
    if len(set(widths)) > 1:
        odd = next(index for index, width in enumerate(widths) if width != widths[0])
        raise ValueError(f"'{lines[odd].strip()[:40]}' has {widths[odd]} columns, the lines before {widths[0]}")
    return widths[0] if widths else 0


def read_columns(lines: list[str], columns: list[int], delimiter: str | None = None) -> np.ndarray:
    """Return the numbers (N, len(columns)) float64 in these columns; ValueError names a cell that is no number."""
    if not lines:
        return np.empty((0, len(columns)))
    return np.loadtxt(lines, np.float64, delimiter=delimiter, usecols=columns, comments=None, ndmin=2)
