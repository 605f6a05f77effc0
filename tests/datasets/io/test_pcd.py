"""PCD files: as many points as they announce, or a refusal."""
import numpy as np
import pytest

from datasets.io.point_files import read_points
from utils.errors import DataError

POINTS = np.array([[0.1, 0.2, 0.3], [1, 2, 3], [4, 5, 6.5], [7, 8, 9]])
TEXT = "".join(f"{x} {y} {z}\n" for x, y, z in POINTS)
BYTES = POINTS.astype("<f4").tobytes()


def pcd(rows, data="ascii", fields="x y z", size="4 4 4", kind="F F F", count="1 1 1", width=4, height=1, points=4):
    header = (f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {size}\nTYPE {kind}\nCOUNT {count}\nWIDTH {width}\n"
              f"HEIGHT {height}\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\nDATA {data}\n")
    return header.encode() + (rows.encode() if isinstance(rows, str) else rows)


def read(tmp_path, content):
    (tmp_path / "a.pcd").write_bytes(content)
    return read_points(tmp_path / "a.pcd")


ROWS = np.zeros(4, [("x2", "<f4"), ("pad", "u1", 4), ("x", "<f8"), ("y", "<f8"), ("z", "<f8")])
ROWS["x2"] = 99
for name, column in zip("xyz", POINTS.T, strict=True):
    ROWS[name] = column
READ = {
    "text": pcd(TEXT), "binary": pcd(BYTES, "binary"), "organised": pcd(BYTES, "binary", width=2, height=2),
    "Windows line ends": pcd(TEXT).replace(b"\n", b"\r\n"), "blank lines": pcd(TEXT + "\n\n"),
    "a mark": b"\xef\xbb\xbf" + pcd(TEXT), "a Latin-1 comment": "# Gebäude\n".encode("latin-1") + pcd(BYTES, "binary"),
    "no POINTS": pcd(TEXT).replace(b"POINTS 4\n", b""), "no COUNT": pcd(TEXT).replace(b"COUNT 1 1 1\n", b""),
    "bytes behind": pcd(BYTES + b"\0\n", "binary"), "small letters": pcd(BYTES, "Binary"),
    "colours": pcd("".join(f"4.2e+06 {x} {y} {z}\n" for x, y, z in POINTS), fields="rgb x y z", size="4 4 4 4",
                   kind="F F F F", count="1 1 1 1"),
    "a field called x2 in front": pcd(ROWS.tobytes(), "binary", "x2 _ x y z", "4 1 8 8 8", "F U F F F", "1 4 1 1 1"),
    "a histogram in front": pcd("".join(f"1 2 3 {x} {y} {z}\n" for x, y, z in POINTS), fields="h x y z",
                                size="4 4 4 4", kind="F F F F", count="3 1 1 1"),
}


@pytest.mark.parametrize("name", READ)
def test_clouds(tmp_path, name):
    assert read(tmp_path, READ[name]) == pytest.approx(POINTS, abs=1e-6)


@pytest.mark.parametrize(("content", "message"), [
    (pcd(TEXT, points=5, width=5), "4 of 5 points"), (pcd(TEXT, points=3, width=3), "4 of 3 points"),
    (pcd(TEXT[:-6]), "columns"), (pcd(BYTES[:-1], "binary"), "damaged or not a PCD file"),
    (pcd(BYTES, "binary", points=5, width=5), "damaged"),
    (pcd(TEXT, width=2), "announces 4 points, but WIDTH and HEIGHT make 2"),
    (pcd(TEXT, fields="x y w"), "no fields x, y and z"), (pcd(TEXT, fields="x x z"), "no fields x, y and z"),
    (pcd(TEXT, count="1 1 2"), "no fields x, y and z"), (pcd(TEXT.replace("8.0", "eight")), "'eight'"),
    (pcd(TEXT.replace(".", ",")), "'0,1'"), (pcd(TEXT, "gzip"), "DATA gzip"),
    (pcd(BYTES, "binary", kind="F F Q"), "damaged or not a PCD file"),
])
def test_damage(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize("data", ["ascii", "binary"])
def test_organised_clouds_of_depth_cameras(tmp_path, data):
    missing = np.vstack([POINTS, np.full((2, 3), np.nan)])
    rows = missing.astype("<f4").tobytes() if data == "binary" else TEXT + "nan nan nan\n-nan(ind) 1.#QNAN nan\n"
    with pytest.warns(UserWarning, match="a.pcd: 2 of 6 points are left out, as their coordinates are NaN or infinite"):
        assert read(tmp_path, pcd(rows, data, width=3, height=2, points=6)) == pytest.approx(POINTS, abs=1e-6)
    with pytest.raises(DataError, match="a.pcd holds NaN or infinite coordinates alone"):
        read(tmp_path, pcd("nan nan nan\n" * 4))
