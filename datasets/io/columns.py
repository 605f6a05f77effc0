"""Which columns of a table are x, y and z, by their names."""
import re

# x, y and z with one and the same word before or behind: point_x, pos.x, x_coord, X coordinate
AFFIXED = re.compile(r"(points?|pos(?:ition)?|coord(?:inate)?s?|loc(?:ation)?|vert(?:ex|ices)?|xyz)?[ _.:-]*([xyz012])"
                     r"[ _.:-]*(coord(?:inate)?s?|pos(?:ition)?)?")
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
        if match and (match[1] or match[3]):
            numbered = match[2] in "012"
            axis = int(match[2]) if numbered else "xyz".index(match[2])
            families.setdefault((match[1], match[3], numbered), [[], [], []])[axis].append(index)
    whole = [positions for positions in families.values() if all(positions)]
    if len(whole) > 1:
        raise ValueError("the header names more than one set of coordinates")
    return unique(whole[0]) if whole else None


def unique(positions: list[list[int]]) -> list[int]:
    """Return the one position of each axis."""
    if any(len(places) > 1 for places in positions):
        raise ValueError("the header names x, y or z more than once")
    return [places[0] for places in positions]
