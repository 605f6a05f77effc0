"""OFF, the object file format of Geomview, as text."""
import re

import numpy as np

from datasets.io.mesh import Mesh
from datasets.io.numbers import equal_widths, plain_nans, read_columns, whole
from utils.text import read_text

HEADER = re.compile(r"(ST)?(C)?(N)?OFF(?=[\s\d]|$)\s*", re.IGNORECASE)  # ModelNet glues the counts to it: OFF8 6 0


def read_off(path) -> Mesh:
    """Return the vertices and triangulated faces of an OFF file; there must be as many as it announces.

    Colours, normals and texture coordinates behind the coordinates of a vertex, and colours behind the corners of a
    face, are passed over.
    """
    lines = [line.split("#", 1)[0].strip() for line in plain_nans(read_text(path)).split("\n")]
    lines = [line for line in lines if line]
    header = HEADER.match(lines[0]) if lines else None
    if not header:
        raise ValueError("it does not begin with OFF")
    rest = lines[0][header.end():]
    counts, *lines = [rest, *lines[1:]] if rest else lines[1:] or [""]
    words = counts.split()
    if len(words) not in (2, 3):
        raise ValueError(f"'{counts[:40]}' are not the numbers of vertices, faces and edges")
    vertices, faces = whole(words[0]), whole(words[1])
    if len(lines) != vertices + faces:
        raise ValueError(f"it announces {vertices} vertices and {faces} faces, but {len(lines)} lines follow")
    rows = lines[:vertices]
    width, least = equal_widths(rows), 3 + 2 * bool(header[1]) + 3 * bool(header[2]) + 3 * bool(header[3])
    if rows and width < least:
        raise ValueError(f"'{rows[0][:40]}' is no vertex of at least {least} numbers")
    corners, sizes = read_faces(lines[vertices:])
    return Mesh.of_polygons(read_columns(rows, [0, 1, 2]), corners, sizes)


def read_faces(lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of all faces, one face after another, and the number (F,) of corners of each."""
    corners, sizes = [], []
    for line in lines:
        words = line.split()
        size = whole(words[0])
        if not 0 < size < len(words):
            raise ValueError(f"'{line[:40]}' is not a face of {size} corners")
        corners += map(int, words[1:size + 1])
        sizes.append(size)
    return np.array(corners, np.int64), np.array(sizes, np.int64)
