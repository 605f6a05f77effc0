"""Files as other programs write them: by trimesh, by numpy, and PCD by hand from its description."""
import struct

import numpy as np
import pytest
import trimesh

from datasets.io.point_files import find_files, read_cloud, read_points
from utils.errors import DataError

RNG = np.random.default_rng(0)
CLOUD = RNG.random((50, 3)).astype(np.float32)
HEADER = ("# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {size}\nTYPE {type}\nCOUNT {count}\nWIDTH {n}\nHEIGHT 1\n"
          "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA {data}\n")


def header(data, fields="x y z", size="4 4 4", kind="F F F", count="1 1 1", n=50):
    return HEADER.format(data=data, fields=fields, size=size, type=kind, count=count, n=n).encode()


@pytest.mark.parametrize("kind", ["ply", "obj", "off", "stl", "glb"])
def test_meshes_are_sampled_on_their_surface(tmp_path, kind):
    path = tmp_path / f"box.{kind}"
    trimesh.creation.box((2, 4, 6)).export(path)
    points = read_points(path, 3000)
    assert (points.shape, points.dtype) == ((3000, 3), np.float64)
    assert np.abs(points).max(0) == pytest.approx([1, 2, 3], rel=1e-5)
    on_surface = np.isclose(np.abs(points) / [1, 2, 3], 1, atol=1e-5).any(1)
    assert on_surface.all()
    share = np.isclose(np.abs(points[:, 2]), 3, atol=1e-5).mean()
    assert share == pytest.approx(2 * 8 / 88, abs=0.03)  # by area, not by face
    assert np.array_equal(points, read_points(path, 3000))


@pytest.mark.parametrize("kind", ["ply", "obj", "off", "xyz"])
def test_clouds_are_read_as_they_are(tmp_path, kind):
    path = tmp_path / f"cloud.{kind}"
    if kind == "obj":
        path.write_text("".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in CLOUD))
    elif kind == "off":
        path.write_text("OFF\n50 0 0\n" + "".join(f"{x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in CLOUD))
    elif kind == "xyz":
        np.savetxt(path, CLOUD)
    else:
        trimesh.PointCloud(CLOUD).export(path)
    assert read_points(path) == pytest.approx(CLOUD, abs=1e-5)


def test_a_scene_of_moved_parts(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box((1, 1, 1)))
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=trimesh.transformations.translation_matrix([9, 0, 0]))
    scene.export(tmp_path / "two.glb")
    points = read_points(tmp_path / "two.glb")
    assert (points[:, 0].min(), points[:, 0].max()) == pytest.approx((-0.5, 9.5), abs=0.01)


@pytest.mark.parametrize("text", [
    "1 2 3\n4 5 6\n", "1,2,3,0.1,0.2,0.3\n4,5,6,0,0,1\n", "# a comment\n1;2;3\n\n4;5;6\n", "2\n1 2 3 \n4 5 6",
    "x,y,z\n1,2,3\n4,5,6", "\ufeff1 2 3\n4 5 6", "1,0;2,0;3,0\n4,0;5,0;6,0\n"])
def test_text(tmp_path, text):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert read_points(tmp_path / "a.txt").tolist() == [[1, 2, 3], [4, 5, 6]]


def test_arrays(tmp_path):
    np.save(tmp_path / "a.npy", np.hstack([CLOUD, CLOUD]))
    np.savez(tmp_path / "a.npz", labels=np.arange(50), normals=CLOUD[::-1], points=CLOUD)
    np.savez(tmp_path / "b.npz", labels=np.arange(50), cloud=CLOUD)
    for name in ("a.npy", "a.npz", "b.npz"):
        assert np.array_equal(read_points(tmp_path / name), CLOUD)
    chosen = read_points(tmp_path / "a.npy", 20)
    assert {tuple(point) for point in chosen.tolist()} < {tuple(point) for point in CLOUD.tolist()}
    assert len(chosen) == 20


def literal_runs(data):
    """LZF without a copy."""
    return b"".join(bytes([len(data[i:i + 32]) - 1]) + data[i:i + 32] for i in range(0, len(data), 32))


def compressed(packed, size):
    return struct.pack("<II", len(packed), size) + packed


def test_pcd_in_every_storage(tmp_path):
    ascii_rows = "".join(f"{i} {x:.9g} {y:.9g} {z:.9g}\n" for i, (x, y, z) in enumerate(CLOUD)).encode()
    ascii_header = header("ascii", "label x y z", "4 4 4 4", "U F F F", "1 1 1 1")
    rows = np.zeros(50, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("n", "<f4", 3), ("c", "u1")])
    for axis, column in zip("xyz", CLOUD.T, strict=True):
        rows[axis] = column
    binary_header = header("binary", "x y z n c", "4 4 4 4 1", "F F F F U", "1 1 1 3 1")
    columns = CLOUD.T.tobytes()
    files = {"ascii": ascii_header + ascii_rows, "binary": binary_header + rows.tobytes(),
             "compressed": header("binary_compressed") + compressed(literal_runs(columns), len(columns))}
    for name, content in files.items():
        (tmp_path / f"{name}.pcd").write_bytes(content)
        assert np.array_equal(read_points(tmp_path / f"{name}.pcd").astype(np.float32), CLOUD), name


def test_pcd_copies_overlap_and_invalid_points_go(tmp_path):
    ones = np.ones((50, 3), np.float32).T.tobytes()  # 600 bytes of 0000803f
    packed = bytes([3]) + ones[:4]  # a literal of four bytes, then copies from four bytes back
    rest = 596
    while rest:
        length = min(rest, 264)
        packed += bytes([7 << 5, length - 9, 3]) if length > 8 else bytes([(length - 2) << 5, 3])
        rest -= length
    (tmp_path / "ones.pcd").write_bytes(header("binary_compressed") + compressed(packed, 600))
    assert np.array_equal(read_points(tmp_path / "ones.pcd"), np.ones((50, 3)))
    cloud = CLOUD.copy()
    cloud[::2] = np.nan
    (tmp_path / "nan.pcd").write_bytes(header("binary") + cloud.tobytes())
    assert np.array_equal(read_points(tmp_path / "nan.pcd"), CLOUD[1::2])


BAD = {
    "absent.ply": (None, "does not exist"),
    "a.xyzw": (b"1 2 3", "is of no known format; known are .ply .obj"),
    "a.ply": (b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nend_header\n1", "is damaged or not a .ply"),
    "b.ply": (b"", r"is damaged or not a .ply file|holds no points"),
    "a.stl": (b"solid x", r"is damaged or not a .stl file|holds no points"),
    "a.glb": (b"glTF....", "is damaged or not a .glb file"),
    "a.txt": (b"1 2 3\n4 five 6", "is not a file of numbers in columns"),
    "b.txt": (b"\xff\xfe\x00", "is not a file of numbers in columns"),
    "c.txt": (b"1 2\n3 4\n", r"holds an array of shape \(2, 2\)"),
    "d.txt": (b"# nothing\n", "holds no points"),
    "e.txt": (b"1 2 nan\n", "holds NaN or infinite coordinates"),
    "a.npy": (b"\x93NUMPY", "is damaged or not a .npy file"),
    "a.npz": (b"PK\x03\x04", "is damaged or not a .npz file"),
    "a.pcd": (b"# .PCD\nFIELDS x y\n", "is damaged or not a PCD file"),
    "b.pcd": (header("binary") + b"1234", "is damaged or not a PCD file"),
    "c.pcd": (header("binary", "x y q"), "is damaged or not a PCD file"),
    "d.pcd": (header("binary", n=10 ** 12), "is damaged or not a PCD file"),
    "e.pcd": (header("binary_compressed") + compressed(b"\x20\xff", 600), "is damaged or not a PCD file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path, name):
    content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} {message}") as error:
        read_points(tmp_path / name)
    assert "\n" not in str(error.value)


def test_no_code_in_arrays_is_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", points=np.array([print], object))
    for name, message in (("a.npy", "is damaged or not a"), ("a.npz", "holds no array of shape")):
        with pytest.raises(DataError, match=message):
            read_points(tmp_path / name)
    np.savez(tmp_path / "b.npz", points=np.array([print], object), cloud=CLOUD)
    assert np.array_equal(read_points(tmp_path / "b.npz"), CLOUD)


def test_folders_stand_for_their_files(tmp_path):
    for name in ("b/x.ply", "a.npy", "b/notes.md", "c.pcd", ".points_test.npz", ".git/y.ply", "b/._x.ply"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.npy", "b/x.ply", "c.pcd"]
    assert find_files(tmp_path / "b" / "notes.md") == [tmp_path / "b" / "notes.md"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no files of a known format"):
        find_files(tmp_path / "empty")


def test_clouds_far_from_the_origin_lose_nothing(tmp_path):
    np.save(tmp_path / "here.npy", CLOUD.astype(np.float64))
    np.save(tmp_path / "utm.npy", CLOUD.astype(np.float64) + (500_000, 5_400_000, 100))
    here, there = (read_cloud(tmp_path / f"{name}.npy") for name in ("here", "utm"))
    assert here.dtype == np.float32
    assert np.linalg.norm(here, axis=1).max() == pytest.approx(1)
    assert there == pytest.approx(here, abs=1e-5)
    turned = read_cloud(tmp_path / "here.npy", up="z")
    assert np.array_equal(turned, here[:, [0, 2, 1]] * (1, 1, -1))
    np.save(tmp_path / "huge.npy", CLOUD.astype(np.float64) * 1e300)
    with pytest.raises(DataError, match="holds coordinates that are too large"):
        read_cloud(tmp_path / "huge.npy")
