"""What is taken of folders, and what is passed over."""
import numpy as np
import pytest
from segmentation_data import write_raw_rooms, write_rooms

from datasets import S3DIS, pack
from datasets.io.folders import files_below, files_in, subfolders
from datasets.io.point_files import find_files
from datasets.shapenet import ShapeNet
from semantic_segmentation import prepare_s3dis


@pytest.fixture
def tree(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    for path in (root / "b.PLY", root / "a.ply", root / "notes.md", root / "._a.ply", root / "sub" / "c.ply",
                 root / "__MACOSX" / "sub" / "d.ply", root / ".git" / "e.ply", other / "deep" / "f.Ply"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (root / "link").symlink_to(other)
    (root / "linked.ply").symlink_to(other / "deep" / "f.Ply")
    (other / "back").symlink_to(root)
    (root / "sub" / "up").symlink_to("..")
    (root / "gone.ply").symlink_to("nowhere")
    (root / "self").symlink_to("self")
    return root


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_links_are_followed_once(tree):
    assert names(files_below(tree, (".ply",)), tree) == ["a.ply", "b.PLY", "link/deep/f.Ply", "linked.ply", "sub/c.ply"]
    assert names(find_files(tree), tree) == names(files_below(tree, (".ply",)), tree)
    assert names(subfolders(tree), tree) == ["link", "sub"]
    assert names(files_in(tree, (".ply",)), tree) == ["a.ply", "b.PLY", "linked.ply"]
    assert files_in(tree / "absent", (".ply",)) == subfolders(tree / "absent") == []


def test_packing_passes_over_what_macos_leaves(tmp_path):
    for name in ("02691156-a.npy", "03001627-B.NPY"):
        np.save(tmp_path / "x.npy", np.random.default_rng(0).random((20, 3)))
        (tmp_path / "x.npy").rename(tmp_path / name)
    (tmp_path / "._02691156-a.npy").write_bytes(b"\0\5\x16\7")
    pack.pack_folder(tmp_path)
    (tmp_path / "test.txt").write_text("02691156-a.npy\n03001627-B.NPY\n")
    data = ShapeNet(DATA_PATH=tmp_path, PC_PATH=tmp_path, subset="test", npoints=8)
    assert data.ids == ["02691156-a", "03001627-B"]
    assert data[1][0].shape == (8, 3)


def test_rooms_raw_and_prepared(tmp_path, run):
    raw = write_raw_rooms(tmp_path / "raw", (1, 5))
    annotations = raw / "Area_1" / "office_1" / "Annotations"
    (annotations / "table_1.txt").rename(annotations / "table_1.TXT")
    (raw / "Area_5").rename(tmp_path / "area")
    (raw / "Area_5").symlink_to(tmp_path / "area")
    for room in (raw / "__MACOSX" / "Area_2" / "office_1", raw / "Area_1" / ".office"):
        folder = room / "Annotations"
        folder.mkdir(parents=True)
        (folder / "chair_1.txt").write_bytes(b"\0\5\x16\7")
    assert "2 of 2 rooms of Area_1, Area_5" in run(prepare_s3dis, raw, tmp_path / "rooms").out
    assert (np.load(tmp_path / "rooms" / "Area_1_office_1.npy")[:, 6] == 7).sum() > 500

    root = write_rooms(tmp_path / "prepared", (1, 5))
    (root / "Area_1_office_1.npy").rename(root / "Area_1_office_1.NPY")
    (root / "._Area_1_office_1.npy").write_bytes(b"\0\5\x16\7")
    with pytest.warns(UserWarning, match="lacks Area"):
        assert [room.name for room in S3DIS(ROOT=root, subset="train").rooms] == ["Area_1_office_1"]
