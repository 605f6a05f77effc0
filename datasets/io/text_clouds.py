"""Clouds in text files: numbers in columns, below titles, counts and headers.

Which character separates is decided by trying every layout that the lines allow. What only one of them can read, or
all of them read alike, is certain; anything else is an error. So is a header that does not fit the lines.
"""
import csv
import math
import re

import numpy as np

from datasets.io import UnreadableError
from datasets.io.columns import choose_columns, names_axes, words_of
from datasets.io.numbers import equal_widths, is_number, plain_nans, read_columns
from utils.text import read_text

REMARK = re.compile(r"\s*(?:#|//|%)[#/%]*")  # starts a line that is a comment
INLINE = re.compile(r"(?<=[\s\d.])#.*")  # the numbers end here; behind a comma or semicolon # is a cell, a colour
BESIDE_BLANK = re.compile(r",\s|\s,|,$|^,", re.MULTILINE)
PAIR = r"\s*[+-]?\d+,(\d+)(?:[eE][+-]?\d+)?\s*"
PAIRS = re.compile(f"{PAIR},{PAIR},{PAIR}(?:,|$)")
POINT_FOR_COMMA = str.maketrans({".": "?", ",": "."})  # a number with both is none
AMBIGUOUS = ("its commas may be decimal ones or separate columns: separate the columns by semicolons, or name them in "
             "a first line, such as x,y,z")
COUNTED = ("its first column counts the lines, so it may be x or not: name the columns in a first line, such as "
           "id,x,y,z")
NUMBERED = "its first line may be a point or number the columns: name the columns x, y and z"
# a format that has a reader of its own, or a grid of heights
OTHER_FORMATS = re.compile(r"\s*(ply\s|(?:ST)?C?N?4?n?OFF(?=[\s\d])|ncols\s)")
MOST_TITLES = 1000


def read_text_cloud(path) -> np.ndarray:
    """Return the coordinates (N, 3) float64 in a text file.

    Blanks, tabs, commas or semicolons separate, and a comma inside a word that blanks, tabs or semicolons separate is a
    decimal one. A header, which may be a comment, selects the columns x, y and z; without one they are the first three.
    Other columns may hold words. ``#``, ``//`` and ``%`` start comments. Title lines are skipped, and a line of one
    whole number must be the number of points.
    """
    text = plain_nans(read_text(path))
    if "\0" in text:
        raise ValueError("it is binary")
    if match := OTHER_FORMATS.match(text):
        raise UnreadableError(f"it begins with {match[1].strip()}, as files of another format do")
    lines, remarks = split_comments(text)
    preamble, rows = split_preamble(lines)
    if not rows:  # nothing, or lines that numpy says something about
        left = [" ".join(words_of(line)) for line in preamble if not names_axes(line)]
        return np.loadtxt(left, ndmin=2) if left else np.empty((0, 3))
    headers, titles, counts = sort_preamble(preamble)
    points = read_rows(rows, headers, titles, remarks)
    if counts and math.prod(counts) != len(points):
        raise ValueError(f"it announces {' x '.join(map(str, counts))} points, but {len(points)} lines follow")
    return points


def split_comments(text: str) -> tuple[list[str], list[str]]:
    """Return the lines that are not blank, without comments, and the comments above the points."""
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    if not any(mark in text for mark in ("#", "//", "%")):
        return lines, []
    remarks = [bool(REMARK.match(line)) for line in lines]
    first = next((index for index, line in enumerate(lines) if not remarks[index] and holds_three(line)), len(lines))
    content = [line if '"' in line else INLINE.sub("", line)
               for line, remark in zip(lines, remarks, strict=True) if not remark]
    return content, [REMARK.sub("", line, count=1) for line in lines[:first] if REMARK.match(line)]


def holds_three(line: str) -> bool:
    """Whether three numbers stand in a line, as in one of points."""
    return sum(map(is_number, words_of(line))) >= 3


def split_preamble(lines: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines before the points, and those of the points.

    Those begin behind the last header, or else with the first line that has three numbers.
    """
    first = next((index for index, line in enumerate(lines) if holds_three(line)), len(lines))
    if first > MOST_TITLES:
        raise ValueError(f"none of its first {MOST_TITLES} lines holds three numbers")
    named = [index for index in range(first) if names_axes(lines[index])]
    if named:
        start = named[-1] + 1
        while start < first and (lines[start].strip().isdigit() or are_units(words_of(lines[start]))):
            start += 1
        first = start
    return lines[:first], lines[first:]


def are_units(words: list[str]) -> bool:
    """Whether no number is among the words of a line, but something is."""
    return any(words) and not any(map(is_number, words))


def sort_preamble(lines: list[str]) -> tuple[list[str], list[str], list[int]]:
    """Return the headers, titles and counts among the lines before the points."""
    headers, titles, counts = [], [], []
    for line in lines:
        if names_axes(line):
            headers.append(line)
        elif line.strip().isdigit():
            counts.append(int(line))
        elif not words_of(line)[0] or is_number(words_of(line)[0]):
            raise ValueError(f"'{line.strip()[:40]}', above the points, is neither a title nor their number")
        else:
            titles.append(line)
    return headers, titles, counts


def read_rows(rows: list[str], headers: list[str], titles: list[str], remarks: list[str]) -> np.ndarray:
    """Return the coordinates in ``rows``, in whichever layout fits; ValueError where none or several do."""
    if any('"' in row for row in rows):
        rows, possible = unquote(rows), [("\t", False), ("\t", True)]
    else:
        possible = layouts("\n".join(rows), bool(headers))
    found, errors = [], []
    for delimiter, comma in possible:
        try:
            found.append(read_layout(rows, delimiter, comma, headers, titles, remarks))
        except ValueError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    if any(not np.array_equal(found[0], points, equal_nan=True) for points in found[1:]):
        raise UnreadableError(AMBIGUOUS)
    return found[0]


def unquote(rows: list[str]) -> list[str]:
    """Return rows with quoted cells as rows without quotes, which tabs separate."""
    outside = re.sub('"[^"]*"', "", rows[0])
    delimiter = next((mark for mark in ";\t," if mark in outside), " ")
    try:
        cells = list(csv.reader(rows, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"its quotes are not in pairs: {error}") from error
    return ["\t".join(cell.replace("\t", " ") for cell in row) for row in cells]


def layouts(text: str, named: bool) -> list[tuple[str | None, bool]]:
    """Return the layouts that the rows ``text`` may have: what separates (None: blanks), and if commas are decimal."""
    blanks = [None]
    if "\t" in text:  # below a header cells may be empty or hold blanks
        blanks = ["\t", None] if named else [None, "\t"]
    if ";" in text:
        return [(";", True), (";", False)] if "," in text else [(";", False)]
    if "," not in text:
        return [(blank, False) for blank in blanks]
    beside_blank = BESIDE_BLANK.search(text)
    return [(",", False), *((blank, False) for blank in blanks),
            *((blank, True) for blank in blanks if blank or not beside_blank)]


def read_layout(rows, delimiter, comma, headers, titles, remarks):
    """Return the coordinates (N, 3) in ``rows`` of this layout; ValueError where they do not fit it."""
    width = equal_widths(rows, delimiter)
    ended = delimiter is not None and all(row.rstrip(" ").endswith(delimiter) for row in rows)  # 1,2,3,
    if width - ended < 3:
        raise ValueError(f"its lines hold {width - ended} columns, not three coordinates")
    columns = choose_columns({width, width - ended}, headers, titles, remarks)
    if columns is None:
        columns = [0, 1, 2]
        if delimiter == "," and maybe_decimal(rows):
            raise UnreadableError(AMBIGUOUS)
        check_numbering(rows, delimiter)
    if comma:
        rows = [row.translate(POINT_FOR_COMMA) for row in rows]
    try:
        return read_columns(rows, columns, delimiter)
    except ValueError:
        if delimiter is None:
            raise
        return read_columns(fill_empty(rows, columns, delimiter), [0, 1, 2], delimiter)


def maybe_decimal(rows):
    """Whether commas in rows without a header may be decimal ones, as in 0,100,0,200,0,300.

    Six whole numbers may be three decimal ones if the second, fourth and sixth have no sign. Still they are not if the
    lengths of these differ, so that the number of decimals was not fixed, while one ends in 0, so that it was not the
    least possible either.
    """
    lengths, zeros = set(), False
    for row in rows:
        match = PAIRS.match(row)
        if not match:
            return False
        lengths.update(map(len, match.groups()))
        zeros = zeros or any(decimals[-1] == "0" != decimals for decimals in match.groups())
        if len(lengths) > 1 and zeros:
            return False
    return True


def check_numbering(rows: list[str], delimiter: str | None) -> None:
    """Raise UnreadableError where whole numbers beside fractions look like numbers of columns or of lines."""
    first = [cell.strip() for cell in rows[0].split(delimiter)]
    if first[:3] == ["0", "1", "2"] and len(rows) > 1 and all(map(is_fraction, cells_of(rows[1:], delimiter, 0, 3))):
        raise UnreadableError(NUMBERED)
    if first[0] in ("0", "1") and len(first) > 3 and len(rows) > 2 and (
            all(map(is_fraction, cells_of(rows, delimiter, 1, 4)))) and (
            all(cell.strip() == str(number) for number, cell
                in enumerate(cells_of(rows, delimiter, 0, 1), int(first[0])))):
        raise UnreadableError(COUNTED)


def cells_of(rows: list[str], delimiter: str | None, start: int, stop: int):
    """Yield the cells of these columns, row by row."""
    return (cell for row in rows for cell in row.split(delimiter, stop)[start:stop])


def is_fraction(cell: str) -> bool:
    return "." in cell or "," in cell


def fill_empty(rows, columns, delimiter):
    """Return rows of x, y and z alone, in which three empty cells stand for a point without coordinates."""
    filled = []
    for row in rows:
        cells = row.split(delimiter)
        cells = [cells[column].strip() for column in columns]
        filled.append(delimiter.join(cells) if any(cells) else delimiter.join(["nan"] * 3))
    return filled
