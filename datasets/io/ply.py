"""PLY, the Stanford polygon format: ascii and binary of either byte order.

Why a reader of our own: trimesh takes the lists of all faces for as long as the first one, refuses bytes behind the
last element and accepts missing rows. plyfile has none of these faults, but refuses comments that are not ASCII, calls
Python for every row of text and every row with a list, and is under the GPL, which this project is not.
"""
import re
from typing import NamedTuple

import numpy as np

from datasets.io.mesh import Mesh, check_indices
from datasets.io.numbers import whole
from datasets.io.ply_rows import BinaryRows, TextRows
from utils.text import decode

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
         "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
         "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
END = re.compile(rb"(?:^|[\r\n])[ \t]*end_header[ \t]*(\r\n|\n|\r|$)")
FACES = ("face", "tristrips")
CORNERS = ("vertexindices", "vertexindex", "vertexindexes", "indices")  # names of a face's list, without underscores


class Property(NamedTuple):
    """A column of an element; ``length`` is the type of a list's length, None of a single number."""

    name: str
    type: str
    length: str | None = None


class Element(NamedTuple):
    """A table of ``count`` rows."""

    name: str
    count: int
    properties: list[Property]

    def columns(self, names) -> list[int]:
        """Return the positions of the properties that are called one of ``names``, in any case."""
        return [index for index, entry in enumerate(self.properties) if entry.name.lower() in names]


def read_ply(path) -> Mesh:
    """Return the vertices and triangulated faces of a PLY file; every row that its header announces must be there."""
    elements, order, body = split(path.read_bytes())
    reader = BinaryRows(body, order) if order else TextRows(body)
    vertices, corners, counts, strips = None, [], [], []
    for element in elements:
        if element.name == "vertex":
            if vertices is not None:
                raise ValueError("it has two elements called vertex")
            vertices = reader.numbers(element, coordinates(element))
        elif element.name in FACES and element.count:
            values, lengths = reader.lists(element, corner_list(element))
            if element.name == "face":
                corners.append(values)
                counts.append(lengths)
            else:
                strips.append((values, lengths))
        else:
            reader.skip(element)
    if vertices is None:
        raise ValueError("it has no element called vertex")
    mesh = Mesh.of_polygons(vertices, np.concatenate([*corners, np.empty(0, np.int64)]),
                            np.concatenate([*counts, np.empty(0, np.int64)]))
    triangles = [mesh.triangles, *(triangles_of_strips(*strip) for strip in strips)]
    check_indices(np.concatenate(triangles).ravel(), len(vertices))
    return Mesh(vertices, np.concatenate(triangles))


def split(content: bytes) -> tuple[list[Element], str, bytes]:
    """Return the elements that the header announces, the byte order ("" of text), and what follows the header."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    end = END.search(content)
    if not content.startswith(b"ply") or not end:
        raise ValueError("it has no header from ply to end_header")
    stop = end.end()
    if content[3:4] == b"\r" and content[4:5] != b"\n" and end[1] == b"\r\n":
        stop -= 1  # the lines end in \r alone, and \n is the first byte of the points
    elements, order = [], None
    for line in decode(content[:end.start()]).split("\n")[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in ORDERS and words[2] == "1.0":
            order = ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3:
            elements.append(Element(words[1], whole(words[2]), []))
        elif words[0] == "property" and elements:
            elements[-1].properties.append(property_of(words))
        else:
            raise ValueError(f"'{line.strip()[:40]}' is no line of a header")
    if order is None:
        raise ValueError("its header names no format")
    for element in elements:
        if element.count and not element.properties:
            raise ValueError(f"its element {element.name} has no properties")
    return [element for element in elements if element.properties], order, content[stop:]


def property_of(words: list[str]) -> Property:
    types = words[1:-1]
    is_list = len(words) == 5 and words[1] == "list"
    if is_list:
        types = words[2:4]
    if len(words) != 3 + 2 * is_list or not all(name in TYPES for name in types) or (
            is_list and TYPES[types[0]][0] == "f"):
        raise ValueError(f"'{' '.join(words)[:40]}' is no property")
    return Property(words[-1], TYPES[types[-1]], TYPES[types[0]] if is_list else None)


def coordinates(element: Element) -> list[int]:
    """Return the positions of x, y and z, each of which there must be once."""
    positions = [element.columns([axis]) for axis in "xyz"]
    if any(len(places) != 1 or element.properties[places[0]].length for places in positions):
        raise ValueError("its vertices do not have one x, one y and one z each")
    return [places[0] for places in positions]


def corner_list(element: Element) -> int:
    """Return the position of the list of vertices."""
    places = [index for index, entry in enumerate(element.properties)
              if entry.length and entry.name.lower().replace("_", "") in CORNERS and entry.type[0] != "f"]
    if len(places) != 1:
        raise ValueError(f"its {element.name} has no list of vertices called vertex_indices")
    return places[0]


def triangles_of_strips(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the triangles of strips, between which -1 may stand; rows are strips too."""
    pieces = [piece[piece >= 0] if (piece >= -1).all() else piece for row in np.split(values, np.cumsum(lengths)[:-1])
              for piece in np.split(row, np.flatnonzero(row == -1))]
    return np.concatenate([np.empty((0, 3), np.int64), *(
        np.lib.stride_tricks.sliding_window_view(piece, 3) for piece in pieces if len(piece) >= 3)])
