"""Arrays of numpy: in an archive the points are known by their name, or the file is refused."""
import numpy as np
import pytest

from datasets.io.point_files import read_points
from utils.errors import DataError

POINTS = np.array([[0.1, 0.2, 0.3], [1, 2, 3], [4, 5, 6.5], [7, 8, 9]])
OTHER = POINTS[::-1] + 1
FACES = np.array([[0, 1, 2], [1, 2, 3]])


def read(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return read_points(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["xyz", "points", "pos", "coord", "coords", "vertices", "verts", "positions", "Points",
                                  "point_cloud", "pointcloud", "pc", "pts", "XYZ", "data", "arr_0", "scan_17"])
@pytest.mark.parametrize("first", [True, False])
def test_points_are_known_by_name(tmp_path, name, first):
    others = {"faces": FACES, "normals": OTHER, "colors": OTHER, "rgb": OTHER, "labels": np.arange(4)}
    arrays = {name: POINTS, **others} if first else {**others, name: POINTS}
    assert np.array_equal(read(tmp_path, **arrays), POINTS)


def test_ranks_of_names(tmp_path):
    assert np.array_equal(read(tmp_path, data=OTHER, xyz=POINTS), POINTS)
    assert np.array_equal(read(tmp_path, scan=OTHER, data=POINTS), POINTS)
    assert np.array_equal(read(tmp_path, points=np.zeros(3), coord=POINTS), POINTS)  # of another shape
    assert np.array_equal(read(tmp_path, points=POINTS.astype(np.float16)), POINTS.astype(np.float16))
    assert np.array_equal(read(tmp_path, cells=FACES, weights=np.array([[1, 2, 3]]), scan=POINTS), POINTS)
    coloured = np.hstack([POINTS, OTHER])
    assert np.array_equal(read(tmp_path, points=coloured), POINTS)


@pytest.mark.parametrize(("arrays", "message"), [
    ({"points": POINTS, "xyz": OTHER}, "a.npz cannot be read: any of its arrays points, xyz may be the points: keep"),
    ({"pos": POINTS, "vertices": OTHER}, "any of its arrays pos, vertices may be"),
    ({"a": POINTS, "b": OTHER}, "any of its arrays a, b may be"),
    ({"arr_0": FACES, "arr_1": POINTS}, "any of its arrays arr_0, arr_1 may be"),
    ({"arr_0": POINTS, "data": OTHER}, "any of its arrays arr_0, data may be"),
    ({"faces": FACES, "normals": OTHER}, r"no array of shape \(N, 3\) that could be points; its arrays: faces "),
    ({"colors": OTHER}, "no array of shape"), ({"grid": FACES}, "no array of shape"),
    ({"normal_vectors": OTHER}, "no array of shape"), ({"T": np.eye(4)}, "no array of shape"),
    ({"K": np.eye(3)}, "no array of shape"), ({"embedding": np.ones((20, 17))}, "no array of shape"),
    ({}, "its arrays: none"),
    ({"points": POINTS[None]}, r"its arrays: points \(1, 4, 3\)"), ({"points": POINTS[:, :2]}, r"points \(4, 2\)"),
    ({"points": np.array([print], object)}, "its arrays: points of objects"),
    ({"points": np.ones((4, 3), complex)}, "no array of shape"),
    ({"points": np.random.default_rng(0).random((3, 2048))}, r"\(3, 2048\): if its points stand in columns, transpose"),
])
def test_what_is_not_certain_is_refused(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, **arrays)


def test_single_arrays(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, POINTS.astype(">i2"))
    assert np.array_equal(read_points(path), POINTS.astype(int))
    np.save(path, np.vstack([POINTS, [[np.nan] * 3], [[1, np.inf, 2]]]))
    with pytest.warns(UserWarning, match="a.npy: 2 of 6 points are left out, as their coordinates are NaN or infinite"):
        assert np.array_equal(read_points(path), POINTS)
    for array, message in ((POINTS * np.nan, "holds NaN or infinite coordinates alone"),
                           (POINTS.T.repeat(20, 1), r"\(3, 80\).*: if its points stand in columns, transpose it"),
                           (POINTS[None], r"array of shape \(1, 4, 3\)"), (POINTS.astype(str), "type <U"),
                           (POINTS.astype(object), "damaged or not a .npy file of numbers")):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(DataError, match=message):
            read_points(path)


def test_missing_points_of_archives(tmp_path):
    with pytest.warns(UserWarning, match="a.npz: 1 of 5 points are left out"):
        assert np.array_equal(read(tmp_path, xyz=np.vstack([POINTS, [[0, 0, np.nan]]])), POINTS)


def test_a_damaged_archive(tmp_path):
    np.savez(tmp_path / "a.npz", points=POINTS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(POINTS.tobytes()) + 5] ^= 1  # its checksum no longer fits
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="a.npz is damaged"):
        read_points(tmp_path / "a.npz")
