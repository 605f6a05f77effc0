"""OFF, OBJ and STL files: what is read is what they announce, or they are refused."""
import struct

import numpy as np
import pytest

from datasets.io.obj import read_obj
from datasets.io.off import read_off
from datasets.io.point_files import read_points
from datasets.io.polygons import triangulate
from datasets.io.stl import read_stl
from utils.errors import DataError

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
V = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
F = "3 0 1 2\n3 0 2 3\n"
HALVES = {(0, 1, 2), (0, 2, 3)}


def check(path, reader, content):
    """Check that ``content`` is read as the square, of two triangles."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    mesh = reader(path)
    assert np.array_equal(mesh.vertices[:4], SQUARE)
    assert {tuple(sorted(triangle)) for triangle in mesh.triangles.tolist()} == HALVES
    points = read_points(path, 1000)
    assert points.min(0) == pytest.approx([0, 0, 0], abs=0.05)
    assert points.max(0) == pytest.approx([1, 1, 0], abs=0.05)


def refuse(path, content, message):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as error:
        read_points(path)
    assert "\n" not in str(error.value)


OFF = {
    "usual": "OFF\n4 2 0\n" + V + F, "glued": "OFF4 2 0\n" + V + F, "on one line": "OFF 4 2 0\n" + V + F,
    "Windows line ends": ("OFF\n4 2 0\n" + V + F).replace("\n", "\r\n"),
    "glued, Windows": ("OFF4 2 0\n" + V + F).replace("\n", "\r\n"),
    "no edges": "OFF\n4 2\n" + V + F, "small letters": "off\n4 2 0\n" + V + F,
    "comments everywhere": ("# a\nOFF # b\n# c\n\n4 2 0 # d\n# e\n" + V + "# f\n" + F).replace("1 1 0\n", "1 1 0 #\n"),
    "a comment glued": "OFF\n4 2 0\n" + V.replace("1 1 0", "1 1 0#5 5") + F,
    "coloured faces": "OFF\n4 2 0\n" + V + "3 0 1 2 255 0 0 #red\n3 0 2 3 0.1 0.2 0.3 1\n",
    "a quad": "OFF\n4 1 0\n" + V + "4 0 1 2 3\n", "quads and points": "OFF\n4 3 0\n" + V + "1 3\n4 0 1 2 3\n2 0 1\n",
    "coloured vertices": "COFF\n4 2 0\n" + V.replace("\n", " 255 0 0 255\n") + F,
    "coloured vertices, glued": "COFF4 2 0\n" + V.replace("\n", " 255 0 0 255\n") + F,
    "coloured vertices without C": "OFF\n4 2 0\n" + V.replace("\n", " 255 0 0\n") + F,
    "normals": "NOFF\n4 2 0\n" + V.replace("\n", " 0 0 1\n") + F,
    "normals and colours": "CNOFF\n4 2 0\n" + V.replace("\n", " 0 0 1 1 0 0 1\n") + F,
    "texture": "STOFF\n4 2 0\n" + V.replace("\n", " 0 1\n") + F,
    "tabs and indentation": "OFF\n 4\t2\t0\n" + V.replace(" ", "\t ") + F.replace("3 ", "\t3  "),
    "a Latin-1 comment": ("OFF\n# Gebäude \x85\n4 2 0\n" + V + F).encode("latin-1"),
    "a mark": b"\xef\xbb\xbf" + ("OFF\n4 2 0\n" + V + F).encode(),
}


@pytest.mark.parametrize("name", OFF)
def test_off(tmp_path, name):
    check(tmp_path / "a.off", read_off, OFF[name])


@pytest.mark.parametrize(("content", "message"), [
    ("OFF\n4 9 0\n" + V + F, "4 vertices and 9 faces, but 6 lines follow"), ("OFF\n4 1 0\n" + V + F, "6 lines follow"),
    ("OFF\n9 2 0\n" + V + F, "6 lines follow"), ("OFF\n5 1 0\n" + V + F, "'3 0 1 2' has 4 columns"),
    ("OFF\n3 3 0\n" + V + F, "'0 1 0' is not a face of 0 corners"), ("OFF\n4\n" + V + F, "are not the numbers"),
    ("OFF\n4 2 0 0\n" + V + F, "are not the numbers"), ("OFF\n4.0 2 0\n" + V + F, "'4.0' is not a whole number"),
    ("OFF\n4 2 0\n" + V + "3 0 1 2\n3 0 2\n", "'3 0 2' is not a face of 3 corners"),
    ("OFF\n4 2 0\n" + V + "3 0 1 2\n3 0 2 4\n", "names vertex 4, but there are 4"),
    ("OFF\n4 2 0\n" + V + "3 0 1 2\n3 0 2 -1\n", "names vertex -1"),
    ("OFF\n4 2 0\n" + V + "3 0 1 2\n3 0 2 1.5\n", "invalid literal"),
    ("OFF\n4 2 0\n" + V.replace("1 1 0", "1 1") + F, "columns"),
    ("OFF\n4 2 0\n" + V.replace("1 1 0", "1 l 0") + F, "'l'"),
    ("COFF\n4 2 0\n" + V + F, "no vertex of at least 6 numbers"), ("OFF BINARY\n4 2 0\n", "are not the numbers"),
    ("4OFF\n4 2 0\n" + V + F, "does not begin with OFF"), ("OFFICE\n4 2 0\n" + V + F, "does not begin with OFF"),
    ("", "does not begin with OFF"), ("OFF", "are not the numbers"),
])
def test_damaged_off(tmp_path, content, message):
    refuse(tmp_path / "a.off", content, message)


VS = "".join(f"v {line}\n" for line in V.splitlines())
FS = "f 1 2 3\nf 1 3 4\n"
OBJ = {
    "usual": VS + FS, "tabs": (VS + FS).replace(" ", "\t"), "indented": "  " + (VS + FS).replace("\n", "\n\t "),
    "a tab behind the keyword": VS.replace("v ", "v\t") + "v 5 5 5\n" + FS, "a quad": VS + "f 4\t3\t2\t1\nf 1 3 4\n",
    "blanks and tabs": VS.replace(" ", " \t\t") + FS.replace(" ", " \t\t"),
    "blanks at the end": VS.replace("\n", " \n") + FS,
    "a weight": VS.replace("\n", " 1.0\n") + FS, "colours": VS.replace("\n", " 0.5 0.5 0.5\n") + FS,
    "colours of some": VS.replace("1 1 0", "1 1 0 0.5 0.5 0.5") + FS,
    "texture and normals": VS + "vt 0 0\nvn 0 0 1\nf 1/1/1 2/1/1 3/1/1\nf 1//1 3//1 4//1\nf 1/1 3/1 4/1\n",
    "counted back": VS + "f -4 -3 -2\nf -4 -2 -1\n",
    "counted back, amid vertices": VS + "f -4 -3 -2\nv 5 5 5\nf -5 -3 -2\nv 6 6 6\n",
    "continued": VS + "f 1 \\\n2 3\nf 1 3\\\n 4\n",
    "faces first": FS + VS,
    "other statements": "mtllib a b.mtl\no square\ng 1 2\ns 1\nusemtl 3D\n" + VS + "l 1 2\np 1\n" + FS,
    "comments": "# made by hand\n" + VS.replace("1 1 0", "1 1 0 # 3") + "#f 1 2 4\n" + FS,
    "a comment that ends in a backslash": "# C:\\models\\\n" + VS + "# C:\\\n" + FS,
    "Windows line ends": (VS + FS).replace("\n", "\r\n"),
    "a GBK comment": "# 椅子中\\\n".encode("gbk") + (VS + FS).encode(),
    "a mark": b"\xef\xbb\xbf" + (VS + FS).encode(),
    "a Latin-1 name": "o Stühle\n".encode("latin-1") + (VS + FS).encode(),
}


@pytest.mark.parametrize("name", OBJ)
def test_obj(tmp_path, name):
    content = OBJ[name]
    if name == "a quad":
        content = VS + "f 4\t3\t2\t1\n"
        (tmp_path / "a.obj").write_text(content)
        assert {tuple(sorted(t)) for t in read_obj(tmp_path / "a.obj").triangles.tolist()} == {(1, 2, 3), (0, 1, 3)}
        return
    check(tmp_path / "a.obj", read_obj, content)


def test_obj_without_faces_is_a_cloud(tmp_path):
    (tmp_path / "a.obj").write_text(VS.replace(" ", "\t") + "p 1 2 3 4\nl 1 2\n")
    assert np.array_equal(read_points(tmp_path / "a.obj"), SQUARE)


@pytest.mark.parametrize(("content", "message"), [
    (VS + "f 1 2 5\n", "names vertex 4, but there are 4"), (VS + "f 0 1 2\n", "'f 0 1 2' is no face"),
    (VS + "f 1 2\n", "'f 1 2' is no face"), (VS + "f -5 -1 -2\n", "'f -5 -1 -2' is no face"),
    (VS + "f 1 2 x\n", "invalid literal"), (VS + "v 1 2\n", "a vertex has 2 numbers"),
    (VS + "v 1 2 3 4 5\n", "a vertex has 5 numbers"), (VS + "v 1,5 2 3\n", "'1,5'"), (VS + "v 1 2 x\n", "'x'"),
    (VS.replace("v 1 1 0", "w 1 1 0") + FS, "'w 1 1 0' is no known statement"),
    (VS.replace("v 1 1 0", "1 1 0") + FS, "'1 1 0' is no known statement"),
    (VS.replace("v 1 1 0", "V 1 1 0") + FS, "'V 1 1 0' is no known statement"),
    (VS + "cstype bezier\nsurf 0 1 0 1 1 2 3 4\n", "holds curves or surfaces"), ("o nothing\n", "holds no points"),
])
def test_damaged_obj(tmp_path, content, message):
    refuse(tmp_path / "a.obj", content, message)


CORNERS = SQUARE[[0, 1, 2, 0, 2, 3]].reshape(2, 3, 3)


def binary_stl(title=b"", count=2):
    return title.ljust(80, b" ") + struct.pack("<I", count) + b"".join(
        bytes(12) + corners.astype("<f4").tobytes() + b"\0\0" for corners in CORNERS)


def text_stl(name="a"):
    facets = "".join("  facet normal 0 0 1\n    outer loop\n" + "".join(
        f"      vertex {x} {y} {z:e}\n" for x, y, z in corners) + "    endloop\n  endfacet\n" for corners in CORNERS)
    return f"solid {name}\n{facets}endsolid {name}\n"


@pytest.mark.parametrize("content", [
    binary_stl(), binary_stl(b"solid made by hand"), binary_stl() + b"\n", text_stl(), text_stl().replace("\n", "\r\n"),
    text_stl().upper(), text_stl("").replace("  ", "\t"), text_stl("a solid facet"),
    b"\xef\xbb\xbf" + text_stl().encode(),
    text_stl("Stühle").encode("latin-1"), "solid nothing\nendsolid\n" + text_stl()])
def test_stl(tmp_path, content):
    path = tmp_path / "a.stl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert np.array_equal(read_stl(path).vertices.reshape(-1, 3, 3), CORNERS)
    points = read_points(path, 1000)
    assert points.min(0) == pytest.approx([0, 0, 0], abs=0.05)
    assert points.max(0) == pytest.approx([1, 1, 0], abs=0.05)


@pytest.mark.parametrize(("content", "message"), [
    (binary_stl()[:-1], "another length than 2 facets take"), (binary_stl(b"solid a")[:-1], "0 of 1 solids end"),
    (binary_stl(count=1), "another length than 1 facets"), (binary_stl(count=3), "another length than 3 facets"),
    (binary_stl(count=0), "another length than 0 facets"), (text_stl()[:-14], "0 of 1 solids end"),
    (text_stl()[:300] + "\nendsolid", "not made of facets of three vertices|is no vertex"),
    (text_stl().replace("  endfacet\n", "", 1), "not made of facets"),
    (text_stl().replace("vertex 1.0 0.0", "vertex 1.0"), "has 3 columns"),
    (text_stl().replace("vertex 1.0", "vertex one"), "'one'"), ("solid a\nendsolid a\n", "holds no points"),
    ("", "another length"), ("solid", "0 of 1 solids end"),
])
def test_damaged_stl(tmp_path, content, message):
    refuse(tmp_path / "a.stl", content, message)


@pytest.mark.parametrize("kind", ["off", "obj"])
def test_missing_vertices(tmp_path, kind):
    rows = V + "nan nan nan\n"
    content = {"off": "OFF\n5 3 0\n" + rows + F + "3 0 1 4\n",
               "obj": "".join(f"v {row}\n" for row in rows.splitlines()) + FS + "f 1 2 5\n"}[kind]
    (tmp_path / f"a.{kind}").write_text(content)
    with pytest.warns(UserWarning, match="1 of 5 points are left out"):
        points = read_points(tmp_path / f"a.{kind}", 1000)
    assert points.max(0) == pytest.approx([1, 1, 0], abs=0.05)


def areas(vertices, triangles):
    corners = np.asarray(vertices, float)[triangles]
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


SHAPES = {  # corners, area
    "square": ([(0, 0), (1, 0), (1, 1), (0, 1)], 1), "arrow": ([(0, 0), (2, -1), (1, 0), (2, 1)], 1),
    "L": ([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)], 3),
    "hexagon": ([(1, 0), (2, 1), (2, 2), (1, 3), (0, 2), (0, 1)], 4),
    "U": ([(0, 0), (3, 0), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)], 7),
    "a frame, bridged": ([(0, 0), (3, 0), (3, 3), (0, 3), (0, 0), (1, 1), (1, 2), (2, 2), (2, 1), (1, 1)], 8),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("start", [0, 1, 3])
@pytest.mark.parametrize("backwards", [False, True])
def test_polygons_keep_their_shape(name, start, backwards):
    flat, area = SHAPES[name]
    flat = np.roll(np.array(flat, float), start, 0)[::-1 if backwards else 1]
    tilt = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    vertices = np.column_stack([flat, np.zeros(len(flat))]) @ tilt
    triangles = triangulate(vertices, np.arange(len(flat)), np.array([len(flat)]))
    assert triangles.shape == (len(flat) - 2, 3)
    assert areas(vertices, triangles).sum() == pytest.approx(area)  # a triangle beyond its edges would add to it


def test_immense_polygons_end(tmp_path):
    angles = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    circle = np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    star = circle * np.where(np.arange(3000) % 2, 1, 0.5)[:, None]
    path = tmp_path / "a.off"
    for points in (circle, star):
        path.write_text("OFF\n3000 1 0\n" + "".join(f"{x:.9f} {y:.9f} {z}\n" for x, y, z in points)
                        + "3000 " + " ".join(map(str, range(3000))) + "\n")
        if points is circle:
            assert areas(circle, read_off(path).triangles).sum() == pytest.approx(np.pi, rel=1e-4)
        else:
            refuse(path, path.read_bytes(), "a face of 3000 corners that is not convex")
