"""Which columns of a table are x, y and z, by the names in its header."""
import csv
import re

from datasets.io import UnreadableError
from datasets.io.numbers import is_number

# x, y and z with one and the same word before or behind: point_x, tx, x_coord, X coordinate. ROS writes the path of a
# field, as in field.pose.position.x; its last word decides, since an orientation has an x as well
AFFIXED = re.compile(r"((?:[\w/]+[./])*?)(points?|pos(?:ition)?|coord(?:inate)?s?|loc(?:ation)?|vert(?:ex|ices)?|xyz|t|"
                     r"trans(?:lation)?|world|field)?[ _.:-]*([xyz012])[ _.:-]*"
                     r"(coord(?:inate)?s?|pos(?:ition)?|world|utm)?")
# names of columns that hold anything but coordinates
OTHER_COLUMNS = {"id", "idx", "index", "nr", "no", "name", "frame", "seq", "time", "timestamp", "stamp", "sec", "nsec",
                 "label", "class", "classification", "intensity", "reflectance", "r", "g", "b", "red", "green", "blue",
                 "lat", "lon", "long", "latitude", "longitude", "alt", "u", "v", "row", "col", "ring", "range"}
SEPARATORS = re.compile(r"[,;\s]+")
UNITS = re.compile(r"\s*(?:\[[^\]]*\]|\([^)]*\)|\{[^}]*\})")
UNIT_BEHIND = re.compile(r"[_ /](?:m|mm|cm|km|ft|in|met(?:er|re)s?)$")


def without_units(line: str) -> str:
    """Return a header without ``[m]``, ``(mm)`` and the like."""
    return UNITS.sub("", line)


def axes_of(names: list[str]) -> list[int] | None:
    """Return the positions of x, y and z among the names of columns, or None where they are not there.

    The names may be of any case and in quotes, and may bear a unit, or one word beside each: ``pos_x``. Raises
    ValueError where more than one column could be meant.
    """
    names = [UNIT_BEHIND.sub("", without_units(name).strip().strip("'\"").strip().lower()) for name in names]
    if set("xyz") <= set(names):
        return unique([[index for index, name in enumerate(names) if name == axis] for axis in "xyz"])
    families = {}
    for index, name in enumerate(names):
        match = AFFIXED.fullmatch(name)
        if match and (match[2] or match[4]):
            path, before, letter, behind = match.groups()
            axis = int(letter) if letter in "012" else "xyz".index(letter)
            families.setdefault((path, before, behind, letter in "012"), [[], [], []])[axis].append(index)
    whole = [positions for positions in families.values() if all(positions)]
    if len(whole) > 1:
        raise ValueError("the header names more than one set of coordinates")
    return unique(whole[0]) if whole else None


def unique(positions: list[list[int]]) -> list[int]:
    """Return the one position of each axis."""
    if any(len(places) > 1 for places in positions):
        raise ValueError("the header names x, y or z more than once")
    return [places[0] for places in positions]


def choose_columns(widths, headers, titles, remarks):
    """Return the columns of x, y and z by the header, whose number of names must be in ``widths``; None without one."""
    width = max(widths)
    fitting = [columns for columns in (axes_among(header, widths) for header in headers) if columns]
    if headers:
        if len({tuple(columns) for columns in fitting}) != 1:
            raise UnreadableError(f"its header '{headers[-1].strip()[:40]}' does not fit lines of {width} columns")
        return fitting[-1]
    for title in titles:
        if any(len(cells) in widths and any(is_number(cell.strip().replace(",", ".")) for cell in cells)
               for cells in splittings(title)):
            raise ValueError(f"'{title.strip()[:40]}', above the points, is neither a title nor three coordinates")
    for remark in reversed(remarks):
        if columns := axes_among(remark, widths) or axes_among(remark.rpartition(":")[2], widths):
            return columns
        if width > 3 and axes_of(words_of(without_units(remark))) not in (None, [0, 1, 2]):
            raise UnreadableError(f"the comment '{remark.strip()[:40]}' does not fit lines of {width} columns")
    for line in (*titles, *remarks):
        if any(len(cells) in widths and ((width > 3 and line in titles) or names_others(cells))
               for cells in splittings(line)):
            raise UnreadableError(f"its header '{line.strip()[:40]}' names no x, y and z")
    return None


def names_others(cells: list[str]) -> bool:
    """Whether a line, which may be prose, names columns of which the first three are not x, y and z.

    It does where two of its words are known as such names, or three differ in nothing but their x, y and z. Names are
    no numbers.
    """
    if any(map(is_number, cells)):
        return False
    names = [name.strip("'\" ").lower() for name in cells]
    if any(letter == "x" and {name[:place] + axis + name[place + 1:] for axis in "yz"} <= set(names)
           for name in names for place, letter in enumerate(name)):
        return True
    return not OTHER_COLUMNS.isdisjoint(names[:3]) and sum(name in OTHER_COLUMNS | set("xyz") for name in names) >= 2


def splittings(line):
    """Return the ways to split a header into names."""
    line = without_units(line)
    ways = [line.split(mark) for mark in "\t;, "] + [words_of(line)]
    if '"' in line:
        delimiter = next((mark for mark in ";\t," if mark in re.sub('"[^"]*"', "", line)), " ")
        ways += csv.reader([line.strip()], delimiter=delimiter, skipinitialspace=True)
    return ways


def names_axes(line):
    """Whether ``line`` names x, y and z."""
    return any(axes_of(cells) for cells in splittings(line))


def axes_among(line, widths):
    """Return the columns of x, y and z in a header ``line`` with one of these numbers of names, None in another."""
    return next((columns for cells in splittings(line) if len(cells) in widths and (columns := axes_of(cells))), None)


def words_of(line: str) -> list[str]:
    """Return what stands between the separators, whichever they are."""
    return SEPARATORS.split(line.replace('"', "").strip())
