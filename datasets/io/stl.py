"""STL, triangles alone, in binary and as text."""
import struct

import numpy as np

from datasets.io.mesh import Mesh
from datasets.io.numbers import equal_widths, plain_nans, read_columns
from utils.text import decode

FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
START = 84  # a title of 80 bytes, and the number of facets
LINES = ["facet", "outer", "vertex", "vertex", "vertex", "endloop", "endfacet"]  # how those of a facet begin


def read_stl(path) -> Mesh:
    """Return the triangles of an STL file.

    A binary file has the length that its number of facets asks for, whatever its title says; a few bytes may follow.
    """
    content = path.read_bytes()
    count = struct.unpack_from("<I", content, 80)[0] if len(content) >= START else 0
    if len(content) >= START and 0 <= len(content) - START - count * FACET.itemsize < FACET.itemsize:
        points = np.frombuffer(content, FACET, count, START)["corners"].reshape(-1, 3).astype(np.float64)
    else:
        points = read_text_facets(decode(content), count)
    return Mesh(points, np.arange(len(points)).reshape(-1, 3))


def read_text_facets(text: str, count: int) -> np.ndarray:
    """Return the corners (3 * facets, 3) in a text STL; of one that is none, ``count`` is the number in its header."""
    lines = [line for line in plain_nans(text).split("\n") if line and not line.isspace()]
    words = [line.split(None, 1)[0].lower() for line in lines]
    if not words or words[0] != "solid":
        raise ValueError(f"it has another length than {count} facets take, and is no text")
    solids = words.count("solid")
    if words.count("endsolid") != solids:
        raise ValueError(f"it is cut off: {words.count('endsolid')} of {solids} solids end")
    keywords = [word for word in words if word not in ("solid", "endsolid")]
    if keywords != LINES * (len(keywords) // len(LINES)):
        raise ValueError("it is not made of facets of three vertices each")
    vertices = [line for line, word in zip(lines, words, strict=True) if word == "vertex"]
    if vertices and equal_widths(vertices) != 4:
        raise ValueError(f"'{vertices[0].strip()[:40]}' is no vertex")
    return read_columns(vertices, [1, 2, 3])
