"""PLY files: every row that the header announces is read as it is described, or the file is refused."""
import struct

import numpy as np
import pytest

from datasets.io.ply import read_ply
from datasets.io.point_files import read_points
from utils.errors import DataError

POINTS = np.array([[0.1, 0.2, 0.3], [1, 2, 3], [4, 5, 6.5], [7, 8, 9]])
TEXT = "".join(f"{x} {y} {z}\n" for x, y, z in POINTS)
BYTES = POINTS.astype("<f4").tobytes()
XYZ = ("float x", "float y", "float z")
FACES = "element face {}\nproperty list uchar int vertex_indices\n"
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0]])
SQUARE_TEXT = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
POLYGONS = [[0, 1, 2, 3], [1, 4, 2]]
TRIANGLES = {(0, 1, 2), (0, 2, 3), (1, 2, 4)}


def ply(rows, order="ascii", properties=XYZ, count=4, front="", behind=""):
    """Return a file of vertices; ``front`` and ``behind`` are lines of its header."""
    header = (f"ply\nformat {order} 1.0\n{front}element vertex {count}\n"
              + "".join(f"property {entry}\n" for entry in properties) + behind + "end_header\n")
    return header.encode("latin-1") + (rows.encode("latin-1") if isinstance(rows, str) else rows)


def read(tmp_path, content, name="a.ply"):
    (tmp_path / name).write_bytes(content)
    return read_points(tmp_path / name)


LITTLE, BIG = "binary_little_endian", "binary_big_endian"
COLOURED = np.zeros(4, [("x", ">f4"), ("y", ">f4"), ("z", ">f4"), ("c", "u1", 3)])
for axis, column in zip("xyz", POINTS.T, strict=True):
    COLOURED[axis] = column
MIXED = b"".join(struct.pack("<Bi", 2, 5) + struct.pack("<i", 6) + row.astype("<f8").tobytes() for row in POINTS)
UNEQUAL = b"".join(struct.pack(f"<B{size}i", size, *range(size)) + row.astype("<f4").tobytes()
                   for size, row in enumerate(POINTS))
CLOUDS = {
    "text": ply(TEXT), "binary": ply(BYTES, LITTLE), "big endian": ply(POINTS.astype(">f4").tobytes(), BIG),
    "Windows line ends": ply(TEXT).replace(b"\n", b"\r\n"),
    "a Windows header": ply("", LITTLE).replace(b"\n", b"\r\n") + BYTES,
    "an old Mac header": ply("", LITTLE).replace(b"\n", b"\r") + BYTES,
    "blanks at the ends of lines": ply(TEXT).replace(b"\n", b" \n").replace(b"ply ", b"ply"),
    "blank lines": ply(TEXT.replace("\n", "\n\n")),
    "doubles": ply(POINTS.tobytes(), LITTLE, ("double x", "float64 y", "double z")),
    "another order": ply("".join(f"9 {z} {y} {x}\n" for x, y, z in POINTS), properties=("uchar red", *XYZ[::-1])),
    "big endian with colours": ply(COLOURED.tobytes(), BIG, (*XYZ, "uchar red", "uchar green", "uchar blue")),
    "red twice": ply(TEXT.replace("\n", " 1 2\n"), properties=(*XYZ, "uchar red", "uchar red")),
    "lists of vertices": ply(MIXED, LITTLE, ("list uchar int faces", "double x", "double y", "double z")),
    "unequal lists of vertices": ply(UNEQUAL, LITTLE, ("list uchar int faces", *XYZ)),
    "lists in text": ply("".join(f"{i} {'7 ' * i}{x} {y} {z}\n" for i, (x, y, z) in enumerate(POINTS)),
                         properties=("list uchar int faces", *XYZ)),
    "capitals": ply(TEXT, properties=("float X", "float Y", "float Z")),
    "obj_info": ply(TEXT, front="comment made\nobj_info by hand!\n", behind="obj_info again\ncomment a list x y z\n"),
    "a comment about the end": ply(TEXT, front="comment before end_header come the properties\n"),
    "a camera behind": ply(TEXT + "0.5 640\n", behind="element camera 1\nproperty float a\nproperty int b\n"),
    "a camera in front": ply("0.5 640\n" + TEXT, front="element camera 1\nproperty float a\nproperty int b\n"),
    "a range grid in front": ply(struct.pack("<BiBBi", 1, 3, 0, 1, 2) + BYTES, LITTLE,
                                 front="element range_grid 3\nproperty list uchar int vertex_indices\n"),
    "no faces": ply(TEXT, behind=FACES.format(0)), "a face element of nothing": ply(TEXT, behind="element face 0\n"),
    "a Latin-1 comment": ply(TEXT, front="comment Gebäude, 25 °C\n"),
    "a Latin-1 comment, binary": ply(BYTES, LITTLE, front="comment René\n"),
    "a UTF-8 comment": ply(TEXT).replace(b"element", "comment 椅子\nelement".encode(), 1),
    "a GBK comment": ply(BYTES, LITTLE).replace(b"element", "comment 椅子\nelement".encode("gbk"), 1),
    "a mark": b"\xef\xbb\xbf" + ply(TEXT), "a mark in front of the points": ply(b"\xef\xbb\xbf" + TEXT.encode()),
    "a line behind": ply(BYTES + b"\n", LITTLE), "zeros behind": ply(BYTES + bytes(40), LITTLE),
    "lines behind": ply(TEXT + "\n\n"), "a comment behind": ply(TEXT + "comment unit mm"),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds(tmp_path, name):
    assert read(tmp_path, CLOUDS[name]) == pytest.approx(POINTS, abs=1e-6)


@pytest.mark.parametrize("kind", ["char", "uchar", "short", "ushort", "int", "uint", "int8", "uint32", "int64"])
@pytest.mark.parametrize("order", ["ascii", LITTLE, BIG])
def test_whole_coordinates(tmp_path, kind, order):
    numbers = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "int8": "i1",
               "uint32": "u4", "int64": "i8"}
    rows = SQUARE_TEXT if order == "ascii" else SQUARE.astype((">" if order == BIG else "<") + numbers[kind]).tobytes()
    content = ply(rows, order, [f"{kind} {axis}" for axis in "xyz"], 5)
    assert np.array_equal(read(tmp_path, content), SQUARE)


def faces_of(polygons, order="<"):
    return b"".join(struct.pack(f"{order}B{len(polygon)}i", len(polygon), *polygon) for polygon in polygons)


def mesh(polygons, order):
    text = "".join(f"{len(polygon)} {' '.join(map(str, polygon))}\n" for polygon in polygons)
    mark = ">" if order == BIG else "<"
    rows = SQUARE_TEXT + text if order == "ascii" else SQUARE.astype(mark + "f4").tobytes() + faces_of(polygons, mark)
    return ply(rows, order, count=5, behind=FACES.format(len(polygons)))


@pytest.mark.parametrize("order", ["ascii", LITTLE, BIG])
@pytest.mark.parametrize("polygons", [POLYGONS, POLYGONS[::-1], [[0, 1, 2], [0, 2, 3], [1, 4, 2]],
                                      [*POLYGONS, [], [3], [3, 4]]])
def test_faces_of_any_number_of_corners(tmp_path, order, polygons):
    (tmp_path / "a.ply").write_bytes(mesh(polygons, order))
    read = read_ply(tmp_path / "a.ply")
    assert np.array_equal(read.vertices, SQUARE)
    assert {tuple(sorted(triangle)) for triangle in read.triangles.tolist()} == TRIANGLES
    points = read_points(tmp_path / "a.ply", 2000)
    assert points.min(0) == pytest.approx([0, 0, 0], abs=0.05)
    assert points.max(0) == pytest.approx([2, 1, 0], abs=0.05)


def test_faces_with_other_properties(tmp_path):
    faces = ("element face 2\nproperty uchar flag\nproperty list uint8 float32 texcoord\n"
             "property list uint8 int32 vertex_index\nproperty uchar red\n")
    text = ply(SQUARE_TEXT + "1 6 0 0 1 0 1 1 4 0 1 2 3 255\n1 0 3 1 4 2 255\n", count=5, behind=faces)
    binary = ply(SQUARE.astype("<f4").tobytes() + struct.pack("<BB6fB4iB", 1, 6, *[0.5] * 6, 4, 0, 1, 2, 3, 255)
                 + struct.pack("<BBB3iB", 1, 0, 3, 1, 4, 2, 255), LITTLE, count=5, behind=faces)
    for content in (text, binary):
        (tmp_path / "a.ply").write_bytes(content)
        triangles = read_ply(tmp_path / "a.ply").triangles
        assert {tuple(sorted(triangle)) for triangle in triangles.tolist()} == TRIANGLES


def test_faces_before_vertices(tmp_path):
    for content in (ply("3 1 4 2\n4 0 1 2 3\n" + SQUARE_TEXT, count=5, front=FACES.format(2)),
                    ply(faces_of(POLYGONS) + SQUARE.astype("<f4").tobytes(), LITTLE, count=5, front=FACES.format(2))):
        (tmp_path / "a.ply").write_bytes(content)
        triangles = read_ply(tmp_path / "a.ply").triangles
        assert {tuple(sorted(triangle)) for triangle in triangles.tolist()} == TRIANGLES


def test_strips(tmp_path):
    strips = "element tristrips 1\nproperty list int int vertex_indices\n"
    for content in (ply(SQUARE_TEXT + "8 0 1 3 2 -1 1 4 2\n", count=5, behind=strips),
                    ply(SQUARE.astype("<f4").tobytes() + struct.pack("<9i", 8, 0, 1, 3, 2, -1, 1, 4, 2), LITTLE,
                        count=5, behind=strips)):
        (tmp_path / "a.ply").write_bytes(content)
        triangles = read_ply(tmp_path / "a.ply").triangles
        assert {tuple(sorted(triangle)) for triangle in triangles.tolist()} == {(0, 1, 3), (1, 2, 3), (1, 2, 4)}


REFUSED = {
    "fewer vertices": (ply(TEXT, count=5), "4 of 5 rows of vertex"),
    "fewer vertices, binary": (ply(BYTES, LITTLE, count=100), "4 of 100 rows of vertex"),
    "a vertex cut off": (ply(TEXT[:-6]), "columns"),
    "bytes cut off": (ply(BYTES[:-1], LITTLE), "3 of 4 rows of vertex"),
    "fewer faces": (ply(TEXT + "3 0 1 2\n", behind=FACES.format(5)), "1 of 5 rows of face"),
    "fewer faces, binary": (ply(BYTES + faces_of([[0, 1, 2]]), LITTLE, behind=FACES.format(2)), "1 of 2 rows of face"),
    "a face cut off": (ply(BYTES + faces_of([[0, 1, 2]])[:-1], LITTLE, behind=FACES.format(1)), "0 of 1 rows of face"),
    "a camera cut off": (ply(BYTES + b"12", LITTLE, behind="element camera 1\nproperty float a\n"), "0 of 1 rows of c"),
    "a camera that is not there": (ply(TEXT, behind="element camera 1\nproperty float a\n"), "0 of 1 rows of camera"),
    "a list of other length": (ply(TEXT + "4 0 1 2\n", behind=FACES.format(1)), "'4 0 1 2' has 4 words, not 5"),
    "a list of other length, in all": (ply(TEXT + "2 0 1 2\n2 0 1 2\n", behind=FACES.format(2)), "has 4 words, not 3"),
    "a list of negative length": (ply(BYTES + struct.pack("<bi", -1, 3), LITTLE,
                                      behind="element face 1\nproperty list char int vertex_indices\n"), "0 of 1 rows"),
    "a corner too many": (ply(TEXT + "3 0 1 4\n", behind=FACES.format(1)), "names vertex 4, but there are 4"),
    "a negative corner": (ply(TEXT + "3 0 1 -1\n", behind=FACES.format(1)), "names vertex -1"),
    "a corner that is no whole number": (ply(TEXT + "3 0 1 2.5\n3 0 1 2.5\n", behind=FACES.format(2)), "2.5"),
    "faces without corners": (ply(TEXT + "1\n", behind="element face 1\nproperty uchar red\n"), "no list of vertices"),
    "a longer row": (ply(TEXT.replace("\n", " 5\n")), "is no row of 3 numbers"),
    "a word": (ply(TEXT.replace("8.0", "eight")), "could not convert string 'eight'"),
    "decimal commas": (ply(TEXT.replace(".", ",")), "could not convert string '0,1'"),
    "no z": (ply(TEXT, properties=("float x", "float y", "float w")), "one x, one y and one z"),
    "z twice": (ply(TEXT.replace("\n", " 1\n"), properties=(*XYZ, "float z")), "one x, one y and one z"),
    "no vertices": (ply(TEXT).replace(b"vertex", b"point"), "no element called vertex"),
    "no end": (ply(TEXT).replace(b"end_header", b"end"), "no header from ply to end_header"),
    "no format": (ply(TEXT).replace(b"format ascii 1.0\n", b""), "names no format"),
    "another version": (ply(TEXT).replace(b"1.0", b"2.0", 1), "'format ascii 2.0' is no line of a header"),
    "a damaged keyword": (ply(TEXT).replace(b"property float y", b"propexty float y"), "is no line of a header"),
    "an unknown type": (ply(TEXT).replace(b"float y", b"real y"), "'property real y' is no property"),
    "a negative number": (ply(TEXT, count=-4), "'-4' is not a whole number"),
    "a row of nothing": (ply(TEXT, behind="element nothing 9\n"), "has no properties"),
    "an immense number": (ply(BYTES, LITTLE, count=10**15), "4 of 1000000000000000 rows"),
    "an immense number of lists": (ply(BYTES, LITTLE, behind=FACES.format(10**15)), "0 of 1000000000000000 rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_differs_from_the_header_is_refused(tmp_path, name):
    content, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_points_without_coordinates_are_left_out(tmp_path):
    missing = np.vstack([[[np.nan] * 3], POINTS, [[np.inf] * 3]]).astype("<f4").tobytes()
    text = "nan nan nan\n" + TEXT + "-nan(ind) -1.#IND 1.#QNAN\n"
    for content in (ply(missing, LITTLE, count=6), ply(text, count=6)):
        with pytest.warns(UserWarning, match="a.ply: 2 of 6 points are left out"):
            assert read(tmp_path, content) == pytest.approx(POINTS, abs=1e-6)
    with pytest.raises(DataError, match="a.ply holds NaN or infinite coordinates alone"):
        read(tmp_path, ply("nan nan nan\n" * 4))


def test_triangles_of_vertices_without_coordinates_are_left_out(tmp_path):
    rows = SQUARE_TEXT.replace("2 0 0", "nan nan nan") + "3 1 4 2\n4 0 1 2 3\n"
    with pytest.warns(UserWarning, match="1 of 5 points are left out"):
        points = read(tmp_path, ply(rows, count=5, behind=FACES.format(2)))
    assert points.min(0) == pytest.approx([0, 0, 0], abs=0.05)
    assert points.max(0) == pytest.approx([1, 1, 0], abs=0.05)
