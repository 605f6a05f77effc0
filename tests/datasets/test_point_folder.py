import numpy as np
import pytest
import trimesh

from datasets import DATASETS
from utils.errors import ConfigError, DataError


def fill(folder, count, size=(1, 2, 3)):
    """Write ``count`` boxes, the i-th i + 1 times as large, so that files can be told apart."""
    folder.mkdir(parents=True)
    for index in range(count):
        trimesh.creation.box((index + 1) * np.array(size)).export(folder / f"{index}.off")


def build(root, subset="train", **keys):
    return DATASETS.build({"NAME": "PointFolder", "DATA_PATH": root, "subset": subset, "npoints": 32, "N_POINTS": 64,
                           **keys}, "dataset.train")


@pytest.mark.parametrize("layout", ["{subset}/{name}", "{name}/{subset}"])
def test_given_subsets(tmp_path, layout):
    for name, train, test in (("cat", 3, 1), ("ant", 2, 2)):
        fill(tmp_path / layout.format(subset="train", name=name), train)
        fill(tmp_path / layout.format(subset="test", name=name), test)
    train, test = build(tmp_path), build(tmp_path, "test")
    assert train.class_names == test.class_names == ["ant", "cat"]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 1, 1], [0, 0, 1])
    assert test.ids[0] == layout.format(subset="test", name="ant") + "/0.off"
    points, label = train[4]
    assert (points.shape, label) == ((32, 3), 1)
    assert points.norm(dim=1).max().item() == pytest.approx(1)


def test_a_split_at_random_is_the_same_for_both_subsets(tmp_path):
    fill(tmp_path / "cat", 10)
    fill(tmp_path / "dog", 5)
    train, test = build(tmp_path), build(tmp_path, "test")
    assert (len(train), len(test)) == (12, 3)
    assert not set(train.ids) & set(test.ids)
    assert len(build(tmp_path, "test", test_share=0.4)) == 6


def test_sampling_and_up(tmp_path):
    fill(tmp_path / "cat" / "train", 1, (2, 4, 6))
    fill(tmp_path / "cat" / "test", 1, (2, 4, 6))
    train = build(tmp_path)
    first = train[0][0]
    train.set_epoch(1)
    assert not train[0][0].equal(first)
    test = build(tmp_path, "test")
    assert test[0][0].equal(test[0][0])
    x, y, z = test[0][0].abs().amax(0).tolist()
    assert x < y < z
    turned = build(tmp_path, "test", up="z")[0][0].abs().amax(0).tolist()
    assert turned == [x, z, y]


def test_what_was_read_is_kept_until_a_file_changes(tmp_path, monkeypatch):
    fill(tmp_path / "cat" / "train", 2)
    before = build(tmp_path)
    assert (tmp_path / ".points_train_64.npz").is_file()
    monkeypatch.setattr("datasets.point_folder.read_points", lambda *_: pytest.fail("read again"))
    again = build(tmp_path)
    assert all(np.array_equal(one, two) for one, two in zip(before.clouds, again.clouds, strict=True))
    trimesh.creation.box((9, 9, 9)).export(tmp_path / "cat" / "train" / "1.off")
    with pytest.raises(pytest.fail.Exception, match="read again"):
        build(tmp_path)
    monkeypatch.undo()
    (tmp_path / ".points_train_64.npz").write_bytes(b"damaged")
    assert np.ptp(build(tmp_path).clouds[1], 0).max() == pytest.approx(9, abs=0.01)


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    fill(tmp_path / "cat" / "train", 1)

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("utils.files.os.replace", refuse)
    with pytest.warns(UserWarning, match=r"\.points_train_64.npz cannot be written \(Read-only file system\)"):
        assert len(build(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cat"]


def clutter(root):
    """Add what archives, file managers and notes leave in a folder of classes."""
    for name in ("__MACOSX/cat", ".ipynb_checkpoints", "docs", "empty", "cat/.thumbnails", "@eaDir"):
        (root / name).mkdir(parents=True)
    for name in ("__MACOSX/._x.off", "__MACOSX/cat/._0.off", "cat/._0.off", ".ipynb_checkpoints/a.off", "cat/.DS_Store",
                 "cat/Thumbs.db", "docs/notes.md", "README.txt"):
        (root / name).write_bytes(b"\0\5\x16\7")


@pytest.mark.parametrize("layout", ["{name}", "{subset}/{name}", "{name}/{subset}"])
def test_what_is_no_class(tmp_path, layout):
    for name in ("cat", "dog"):
        for subset in ("train", "test"):
            if "subset" in layout or subset == "test":
                fill(tmp_path / layout.format(name=name, subset=subset), 5)
    for root in ([tmp_path / "train", tmp_path / "test"] if layout.startswith("{subset}") else [tmp_path]):
        clutter(root)
    for subset in ("train", "test"):
        data = build(tmp_path, subset)
        assert (data.class_names, sorted(set(data.labels.tolist()))) == (["cat", "dog"], [0, 1])
        assert not [name for name in data.ids if "._" in name]


def test_a_class_of_one_subset_is_a_class(tmp_path):
    fill(tmp_path / "train" / "cat", 2)
    fill(tmp_path / "test" / "dog", 2)
    train, test = build(tmp_path), build(tmp_path, "test")
    assert train.class_names == test.class_names == ["cat", "dog"]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0], [1, 1])


def test_links_and_capital_letters(tmp_path):
    fill(tmp_path / "elsewhere" / "cat", 5)
    fill(tmp_path / "data" / "dog", 5)
    for path in (tmp_path / "data" / "dog").iterdir():
        path.rename(path.with_suffix(".OFF"))
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "data" / "dog" / "linked.Off").symlink_to(tmp_path / "elsewhere" / "cat" / "0.off")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "self").symlink_to("self")
    (tmp_path / "data" / "dog" / "gone.off").symlink_to("nowhere.off")
    data = build(tmp_path / "data")
    assert (data.class_names, len(data), len(build(tmp_path / "data", "test"))) == (["cat", "dog"], 9, 2)


def test_bad_files_may_be_left_out(tmp_path):
    fill(tmp_path / "ant" / "train", 2)
    fill(tmp_path / "cat" / "train", 2)
    (tmp_path / "cat" / "train" / "bad.ply").write_text("no ply")
    np.save(tmp_path / "ant" / "train" / "few.npy", np.random.default_rng(0).random((5, 3)))
    with pytest.raises(DataError, match=r"2 clouds are damaged: .*few.npy has 5 points.*; .*bad.ply is damaged.*: "
                                        "repair or remove what is bad, or let --allow_bad N leave out"):
        build(tmp_path)
    with pytest.raises(DataError, match="2 clouds are damaged"):
        build(tmp_path, allow_bad=1)
    for _ in range(2):  # the second time from what was kept
        with pytest.warns(UserWarning, match=r"2 of 6 clouds are left out: .*few.npy has 5 points.*bad.ply is damaged"):
            data = build(tmp_path, allow_bad=2)
        assert data.labels.tolist() == [0, 0, 1, 1]
        assert data.ids == ["ant/train/0.off", "ant/train/1.off", "cat/train/0.off", "cat/train/1.off"]
        assert len(data.clouds) == len(data.files) == 4
    with pytest.raises(DataError, match="2 clouds are damaged"):
        build(tmp_path)
    with pytest.warns(UserWarning, match="1 of 6 clouds are left out"):
        assert len(build(tmp_path, allow_bad=1, npoints=5)) == 5
    with pytest.raises(ConfigError, match="allow_bad is -1; it must be a whole number"):
        build(tmp_path, allow_bad=-1)


def test_all_files_are_bad(tmp_path):
    (tmp_path / "cat" / "train").mkdir(parents=True)
    (tmp_path / "cat" / "train" / "bad.ply").write_text("no ply")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(DataError, match="none of the 1 files for 'train'"):
        build(tmp_path, allow_bad=9)


def test_mistakes(tmp_path):
    with pytest.raises(DataError, match="absent is not a folder: docs/own_data.md shows"):
        build(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no class folders with files for 'train'"):
        build(tmp_path)
    fill(tmp_path / "cat", 3)
    (tmp_path / "cat" / "bad.ply").write_text("no ply")
    with pytest.raises(DataError, match="bad.ply is damaged"):
        build(tmp_path, test_share=0.01)
    (tmp_path / "cat" / "worse.ply").write_text("no ply either")
    with pytest.raises(DataError, match="2 clouds are damaged: .*bad.ply is damaged.*; .*worse.ply is damaged"):
        build(tmp_path, test_share=0.01)
    (tmp_path / "cat" / "bad.ply").unlink()
    (tmp_path / "cat" / "worse.ply").unlink()
    np.save(tmp_path / "cat" / "few.npy", np.random.default_rng(0).random((5, 3)))
    with pytest.raises(DataError, match="few.npy has 5 points, but 32 are asked for"):
        build(tmp_path, test_share=0.01)
    with pytest.raises(ConfigError, match="up 'x' is not one of y, z"):
        build(tmp_path, up="x")
    with pytest.raises(ConfigError, match="npoints is 99, but N_POINTS, what is kept of a file, is 64"):
        build(tmp_path, npoints=99)
