"""OBJ, the object files of Wavefront: their vertices and polygons."""
import re

import numpy as np

from datasets.io import UnreadableError
from datasets.io.mesh import Mesh
from datasets.io.numbers import is_number, plain_nans, read_columns
from utils.text import read_text

# x y z, with a weight, a colour, a colour and its opacity, or a weight and a colour
VERTEX_WIDTHS = (3, 4, 6, 7)
CURVED = ("curv", "curv2", "surf")
PASSED_OVER = {"vt", "vn", "vp", "vc", "l", "p", "g", "s", "o", "mg", "usemtl", "mtllib", "usemap", "maplib", "lod",
               "bevel", "c_interp", "d_interp", "shadow_obj", "trace_obj", "deg", "step", "cstype", "parm", "end"}
COMMENT = re.compile(r"#[^\n]*")
CONTINUED = re.compile(r"\\[ \t]*\n")


def read_obj(path) -> Mesh:
    """Return the vertices and triangulated faces of an OBJ file.

    What stands behind a vertex's coordinates is passed over, and so is every statement that is about neither vertices
    nor faces. One that is unknown and followed by numbers is an error, because it may be a damaged one.
    """
    text = COMMENT.sub("", plain_nans(read_text(path)))  # first: a comment may end in a backslash
    vertices, faces, known = [], [], []
    for line in CONTINUED.sub(" ", text).split("\n"):
        words = line.split(None, 1)
        if not words:
            continue
        keyword = words[0]
        if keyword == "v":
            vertices.append(line)
        elif keyword in ("f", "fo"):
            faces.append(line)
            known.append(len(vertices))
        elif keyword in CURVED:
            raise UnreadableError(f"it holds curves or surfaces ('{keyword}'), not polygons alone")
        elif keyword not in PASSED_OVER and any(map(is_number, line.split()[:2])):
            raise ValueError(f"'{line.strip()[:40]}' is no known statement")
    widths = {len(line.split()) - 1 for line in vertices}
    if not widths <= set(VERTEX_WIDTHS):
        raise ValueError(f"a vertex has {min(widths - set(VERTEX_WIDTHS))} numbers")
    corners, sizes = read_faces(faces, known)
    return Mesh.of_polygons(read_columns(vertices, [1, 2, 3]), corners, sizes)


def read_faces(lines: list[str], known: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners, numbered from 0, of all faces, one face after another, and how many each has (F,).

    A number below 0 counts back from the last of the vertices ``known`` before the face.
    """
    corners, sizes = [], []
    for line, vertices in zip(lines, known, strict=True):
        face = [int(word.split("/", 1)[0]) for word in line.split()[1:]]
        if len(face) < 3 or 0 in face or min(face) < -vertices:
            raise ValueError(f"'{line.strip()[:40]}' is no face")
        corners += [corner - 1 if corner > 0 else vertices + corner for corner in face]
        sizes.append(len(face))
    return np.array(corners, np.int64), np.array(sizes, np.int64)
