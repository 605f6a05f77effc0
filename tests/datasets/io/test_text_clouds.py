"""Text clouds: their separators, headers, titles and counts are decided, or the file is refused."""
import time

import numpy as np
import pytest

from datasets.io.point_files import read_points
from utils.errors import DataError

POINTS = np.array([[0.1, 0.2, 0.3], [1, -2, 3], [4, 5, 6.5], [-7, 8, 1234.125]])


def rows(separator=" ", before="", behind="", comma=False, form="{:.3f}"):
    """Return the points as lines; ``{}`` in ``before`` and ``behind`` is the number of the line."""
    text = "".join(before.format(index) + separator.join(form.format(value) for value in point) + behind.format(index)
                   + "\n" for index, point in enumerate(POINTS))
    return text.replace(".", ",") if comma else text


READ = {
    "blanks": rows(),
    "tabs": rows("\t"),
    "commas": rows(","),
    "commas and blanks": rows(", "),
    "blanks before commas": rows(" ,"),
    "commas and tabs": rows(",\t"),
    "semicolons": rows(";"),
    "semicolons and blanks": rows(" ; "),
    "indented": rows("   ", "  ", "  "),
    "tabs to align": rows("\t\t"),
    "Windows line ends": rows().replace("\n", "\r\n"),
    "old Mac line ends": rows().replace("\n", "\r"),
    "no last line end": rows().rstrip(),
    "blank lines": "\n\n" + rows().replace("\n", "\n  \n") + "\n\n",
    "a comma at the end": rows(",", behind=","),
    "a semicolon at the end": rows(";", behind=";"),
    "exponents": rows(form="{:.6e}"),
    "exponents in capitals": rows(",", form="{:.6E}"),
    "signs": rows(form="{:+.3f}"),

    "decimal commas": rows(comma=True),
    "decimal commas, tabs": rows("\t", comma=True),
    "decimal commas, semicolons": rows(";", comma=True),
    "decimal commas, semicolons and blanks": rows("; ", comma=True),
    "decimal commas as needed": rows(form="{:g}", comma=True).replace("1234,12", "1234,125"),
    "decimal commas and exponents": rows(form="{:.6e}", comma=True),
    "decimal commas and whole numbers": rows(behind=" 255 {}", comma=True),
    "decimal commas, four columns": rows("\t", behind="\t0.5", comma=True),
    "decimal commas, quoted": rows('","', '"', '"', comma=True),
    "decimal commas below a header": "x\ty\tz\n" + rows("\t", comma=True),
    "decimal commas and words with one": "x\ty\tz\tname\n" + rows("\t", comma=True, behind="\tred, big"),

    "colours": rows(behind=" 255 0 {}"),
    "whole numbers, far from all alike": rows(",", behind=",255,0,{}"),
    "words behind": rows(behind=" chair"),
    "words of several letters behind": rows(",", behind=",red chair {}"),
    "words with commas behind": rows(behind=" a,b"),
    "words with commas behind semicolons": rows(";", behind=";a, b"),
    "colours that begin with a hash": rows(",", behind=",#ff0000"),
    "quotes": rows('","', '"', '"'),
    "quoted words": rows(",", behind=',"chair, #{}"'),

    "a header": "x,y,z\n" + rows(","),
    "a header with other separators": "x, y, z\n" + rows(),
    "a header of tabs above blanks": "x\ty\tz\n" + rows(),
    "a header in capitals": "X Y Z\n" + rows(),
    "a header in quotes": '"x","y","z"\n' + rows(","),
    "a header in single quotes": "'x' 'y' 'z'\n" + rows(),
    "a header with a semicolon at the end": "x;y;z;\n" + rows(";", behind=";"),
    "a header with a semicolon at its end alone": "x;y;z\n" + rows(";", behind=";"),
    "units in brackets": "x [m];y [m];z [m]\n" + rows(";"),
    "units in parentheses": "X(mm) Y(mm) Z(mm)\n" + rows(),
    "units behind underscores": "x_m,y_m,z_m,t_s\n" + rows(",", behind=",5"),
    "units in a line of their own": "x y z\n[m] [m] [m]\n" + rows(),
    "an index": "id,x,y,z\n" + rows(",", "{},"),
    "an index of pandas": ",x,y,z\n" + rows(",", "{},"),
    "an index of pandas, tabs": "\tx\ty\tz\n" + rows("\t", "{}\t"),
    "an index of pandas, blanks": " x y z\n" + rows(" ", "{} "),
    "intensity first": "intensity x y z\n" + rows(" ", "9{} "),
    "a name first": "name,x,y,z\n" + rows(",", "p{},"),
    "a name of two words first": "name\tx\ty\tz\n" + rows("\t", "point {}\t"),
    "a name of two words above": "point name,x,y,z\n" + rows(",", "p{},"),
    "a quoted name with a comma": "name,x,y,z\n" + rows(",", '"chair, {}",'),
    "an empty cell first": "name\tx\ty\tz\n" + rows("\t", "\t"),
    "an empty cell last": "x,y,z,label\n" + rows(",", behind=","),
    "a label last": "x,y,z,label\n" + rows(",", behind=",chair"),
    "colours first": "r g b x y z\n" + rows(" ", "1 2 {} "),
    "normals first": "nx,ny,nz,x,y,z\n" + rows(",", "1,0,{},"),
    "whole numbers below a header": "r,g,b,x,y,z\n" + rows(",", "1,2,{},"),
    "another order": "z,y,x\n" + "".join(f"{z},{y},{x}\n" for x, y, z in POINTS),
    "a word before each axis": "id,pos_x,pos_y,pos_z\n" + rows(",", "{},"),
    "a word behind each axis": "id;X coordinate;Y coordinate;Z coordinate\n" + rows(";", "{};"),
    "as ArcGIS has it": "FID,POINT_X,POINT_Y,POINT_Z\n" + rows(",", "{},"),
    "as ParaView has it": '"Intensity","Points:0","Points:1","Points:2"\n' + rows(",", "{},"),
    "as R has it": '"x" "y" "z"\n' + rows(),
    "as numpy has it": "# id x y z\n" + rows(" ", "{} "),
    "as CloudCompare has it": "//X Y Z R G B\n" + rows(behind=" 1 2 3"),
    "as CloudCompare has it, with a count": "//Intensity X Y Z\n4\n" + rows(" ", "7 "),
    "a comment below a title": "My scan\n# id x y z\n" + rows(" ", "{} "),
    "a comment with a label": "# columns: id, x, y, z\n" + rows(" ", "{} "),
    "as ROS has it": "%time,field.point.x,field.point.y,field.point.z\n" + rows(",", "{},"),
    "as ROS has it, points alone": "%time,field.x,field.y,field.z\n" + rows(",", "{},"),
    "as ROS has it, poses": "%time,field.pose.position.x,field.pose.position.y,field.pose.position.z,"
                            "field.pose.orientation.x,field.pose.orientation.y,field.pose.orientation.z\n"
                            + rows(",", "{},", ",1,0,0"),
    "a trajectory of TUM": "# ground truth\n# timestamp tx ty tz qx qy qz qw\n" + rows(" ", "13{}.5 ", " 0 0 0 1"),
    "a comment of as many words": "# exported at time 12:00\n" + rows(behind=" 1 0.5"),
    "a comment of names and numbers": "# frame 3 id 7\n" + rows(behind=" 1"),
    "a comment of other words": "# the x y z of a chair, in metres\n" + rows(),
    "a comment of fewer words": "# x y z\n" + rows(behind=" 1 2 3"),

    "a count": "4\n" + rows(),
    "a count and columns": "4\n" + rows(behind=" -1024 255 0 0"),
    "rows and columns of a camera": "2\n2\n" + rows(),
    "a title": "Exported by Foo 2.1\n" + rows(),
    "a title and a count": "My scan\n4\n" + rows(),
    "a title and a header": "Scan of 2021\nid x y z\n" + rows(" ", "{} "),
    "a title of as many words": "A small chair\n" + rows(),
    "a header and a count": "x y z\n4\n" + rows(),
    "comments": "# a\n// b\n% c\n" + rows(behind=" # {} 5 6") + "# d\n",
    "comments glued to numbers": rows(behind="#{}"),
    "comments between lines": rows().replace("\n", "\n# 1 2 3 4\n"),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_certain_is_read(tmp_path, name):
    (tmp_path / "a.txt").write_bytes(READ[name].encode())
    assert read_points(tmp_path / "a.txt") == pytest.approx(POINTS, abs=1e-6)


AMBIGUOUS = "a.txt cannot be read: its commas may be decimal ones or separate columns"
REFUSED = {
    "decimal commas that also separate": ("0,100,0,200,0,300\n1,000,2,000,3,000\n", AMBIGUOUS),
    "six whole numbers": ("1,5,2,5,3,5\n4,1,5,2,6,3\n", AMBIGUOUS),
    "decimal commas before commas and blanks": ("1,5, 2,5, 3,5\n4,5, 5,5, 6,5\n", AMBIGUOUS),
    "decimal commas, commas and another column": ("0,05,0,25,0,35,7\n" * 2, AMBIGUOUS),
    "decimal commas and points": ("0,1 0.2 0,3\n" * 2, "could not convert"),
    "thousands": ("1,234.5 2,345.5 3,456.5\n" * 2, "could not convert"),
    "thousands and semicolons": ("1.234,5;2.345,5;3.456,5\n" * 2, "could not convert"),
    "groups of three": ("1,2,3 4,5,6 7,8,9\n" * 2, "could not convert"),
    "two columns": ("1,2\n3,4\n", "array of shape"),
    "two columns and blanks": ("1 2\n3 4\n", "array of shape"),
    "a word among the coordinates": ("1 2 3\n4 five 6\n", "could not convert string 'five'"),
    "a word in the first line": ("1 2 three\n4 5 6\n", "'1 2 three', above the points, is neither a title nor"),
    "a word in the first line, commas": ("1,2,three\n4,5,6\n", "is neither a title nor"),
    "a word first in the first line": ("one 2 3\n4 5 6\n", "'one 2 3', above the points, is neither a title nor three"),
    "words first without a header": ("C 1 2 3\nH 4 5 6\n", "could not convert string 'C'"),
    "a ragged line": ("1 2 3\n4 5\n7 8 9\n", "'4 5' has 2 columns, the lines before 3"),
    "a longer line": ("1 2 3\n4 5 6 7\n", "'4 5 6 7' has 4 columns, the lines before 3"),
    "a last line cut off": ("x,y,z\n1,2,3\n4,5", "a.txt is not a file .*, or is damaged .'4,5' has 2 columns"),
    "an empty cell": ("x,y,z\n1,2,3\n4,,6\n", "could not convert string ''"),
    "other separators below": ("1 2 3\n4,5,6\n", "columns"),
    "fewer than counted": ("5\n" + rows(), "it announces 5 points, but 4 lines follow"),
    "more than counted": ("3\n" + rows(), "it announces 3 points, but 4 lines follow"),
    "two scans": (2 * ("4\n" + rows()), "columns"),
    "a header of more columns": ("id x y z\n" + rows(), "its header 'id x y z' does not fit lines of 3 columns"),
    "a header of fewer columns": ("x y z\n" + rows(" ", "{} "), "its header 'x y z' does not fit lines of 4 columns"),
    "row names of R": ('"x" "y" "z"\n' + rows(" ", '"{}" '), "does not fit lines of 4 columns"),
    "a header without x, y and z": ("id,east,north,up\n" + rows(",", "{},"), "its header 'id,e.*' names no x, y and z"),
    "a header of two clouds": ("x1,x,y,z,x,y,z\n" + rows(",", "1,", ",4,5,6"), "names x, y or z more than once"),
    "a header of two positions": ("pos_x,pos_y,pos_z,x_coord,y_coord,z_coord\n" + rows(",", behind=",4,5,6"),
                                  "names more than one set of coordinates"),
    "a comment of more columns": ("# index time x y z\n" + rows(" ", "{} "), "the comment .* does not fit lines of 4"),
    "a comment of other columns": ("#id,X_A,Y_A,Z_A\n" + rows(",", "{},"), "header 'id,X_A.*' names no x, y and z"),
    "a comment of a time and places": ("# time lat lon alt\n" + rows(" ", "{} "), "header 'time .*' names no x"),
    "a comment of two coordinates": ("# time x y\n" + rows(), "its header 'time x y' names no x, y and z"),
    "a header of two coordinates": ("id,x,y\n" + rows(","), "cannot be read: its header 'id,x,y' names no x, y and z"),
    "a header of colours": ("R G B\n" + rows(), "its header 'R G B' names no x, y and z"),
    "numbers of lines": (rows(" ", "{} "), "a.txt cannot be read: its first column counts the lines"),
    "numbers of columns": ("0,1,2\n" + rows(","), "its first line may be a point or number the columns"),
    "an OFF file": ("OFF\n4 0 0\n" + rows(), "a.txt cannot be read: it begins with OFF, as files of another format do"),
    "a PLY file": ("ply\nformat ascii 1.0\nend_header\n" + rows(), "it begins with ply"),
    "a grid of heights": ("ncols 3\nnrows 4\n" + rows(), "it begins with ncols"),
    "quotes that do not end": ('"1","2","3"\n"4","5","6\n', "its quotes are not in pairs|columns"),
    "a binary file": ("1 2 3\n\0\n", "it is binary"),
    "letters between digits": ("1 2 3\n4 5 6_0\n", "could not convert"),
    "a minus of typography": ("1 2 3\n4 5 \u22126\n", "could not convert"),
    "prose": ("Dear Sir,\n" * 5, "is not a file of numbers"),
    "a lot of prose": ("Dear Sir,\n" * 1001, "none of its first 1000 lines holds three numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_certain_is_refused(tmp_path, name):
    text, message = REFUSED[name]
    (tmp_path / "a.txt").write_bytes(text.encode())
    with pytest.raises(DataError, match=message) as error:
        read_points(tmp_path / "a.txt")
    assert "\n" not in str(error.value)
    assert "a.txt" in str(error.value)


@pytest.mark.parametrize("text", ["10,20,30,255,0,0\n1,2,3,0,128,5\n", "1,-2,3,4,5,6\n1,2,3,4,5,6\n",
                                  "1,2,3\n4,5,6\n", "0,1,2\n3,4,5\n", "0,1.5,2,1\n1,2.5,3,1\n2,3.5,4,1\n",
                                  "1,2,3,4,5\n6,7,8,9,0\n", "1,2,3,4,5,6.0\n"])
def test_whole_numbers_that_cannot_be_decimals(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert read_points(tmp_path / "a.txt").tolist() == [
        [float(cell) for cell in line.split(",")[:3]] for line in text.splitlines()]


@pytest.mark.parametrize("content", [
    "# Gebäude\n".encode("latin-1") + rows().encode(), "# 椅子\\\n".encode("gbk") + rows().encode(),
    b"\xef\xbb\xbf" + rows().encode(), b"\xef\xbb\xbf" + ("x y z\n" + rows()).encode(), rows().encode("utf-16"),
    b"\xff\xfe" + ("# ä\r\n" + rows("\t", comma=True)).encode("utf-16-le"),
    b"name;x;y;z\n" + rows(";", "Stühle{};").encode("latin-1"),
    rows().encode() + b"# 25 \xb0C \x85\n"])
def test_encodings(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_points(tmp_path / "a.txt") == pytest.approx(POINTS, abs=1e-6)


@pytest.mark.parametrize("missing", [
    "nan nan nan", "NaN NaN NaN", "-nan -nan -nan", "inf -inf inf", "0.5 nan 1.25", "-1.#IND -1.#IND 1.#QNAN00",
    "1.#QO 1.#QO -1.#J", "-nan(ind) nan(ind) -nan(ind)"])
def test_points_without_coordinates_are_left_out(tmp_path, missing):
    (tmp_path / "a.xyz").write_text(f"{missing}\n{rows()}{missing}\n")
    with pytest.warns(UserWarning, match="a.xyz: 2 of 6 points are left out, as their coordinates are NaN or inf"):
        assert read_points(tmp_path / "a.xyz") == pytest.approx(POINTS)
    (tmp_path / "b.xyz").write_text(3 * f"{missing}\n")
    with pytest.raises(DataError, match="b.xyz holds NaN or infinite coordinates alone"):
        read_points(tmp_path / "b.xyz")


@pytest.mark.parametrize("text", ["x,y,z\n,,\n" + rows(","), ",x,y,z\n0,,,\n" + rows(",", "{},"),
                                  "x;y;z;label\n" + rows(";", behind=";a") + ";;;a\n"])
def test_empty_cells_of_a_point_are_missing_coordinates(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.warns(UserWarning, match="1 of 5 points are left out"):
        assert read_points(tmp_path / "a.txt") == pytest.approx(POINTS)


def test_a_large_file_takes_seconds(tmp_path):
    points = np.random.default_rng(0).normal(size=(200_000, 3))
    (tmp_path / "a.xyz").write_text("".join(f"{x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in points.tolist()))
    start = time.perf_counter()
    assert np.allclose(read_points(tmp_path / "a.xyz", 10**6), points, rtol=0, atol=1e-6)
    assert time.perf_counter() - start < 5
