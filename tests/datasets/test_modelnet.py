import builtins
import errno
import pickle

import numpy as np
import pytest
import torch

from datasets import DATASETS, ModelNet
from datasets.io.safe_pickle import load_pickle
from datasets.modelnet import read_text
from utils.errors import ConfigError, DataError

CLASSES = ["bathtub", "night_stand"]
IDS = {"train": ["bathtub_0001", "night_stand_0001", "night_stand_0002"], "test": ["bathtub_0107"]}


@pytest.fixture
def folder(tmp_path):
    """A ModelNet10 folder of text files of 60 lines."""
    rng = np.random.default_rng(0)
    (tmp_path / "modelnet10_shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    for subset, ids in IDS.items():
        (tmp_path / f"modelnet10_{subset}.txt").write_text("\n".join(ids) + "\n")
        for name in ids:
            path = tmp_path / name.rsplit("_", 1)[0] / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            np.savetxt(path, rng.uniform(1, 2, (60, 6)), delimiter=",", fmt="%.6f")
    return tmp_path


def build(folder, **keys):
    return DATASETS.build({"NAME": "ModelNet", "DATA_PATH": str(folder), "N_POINTS": 32, "NUM_CATEGORY": 10,
                           "subset": "train", **keys}, "dataset.train")


def test_text_files_become_the_published_cache(folder):
    data = build(folder)
    assert (len(data), data.class_names, data.labels.tolist()) == (3, CLASSES, [0, 1, 1])
    with open(folder / "modelnet10_train_32pts_fps.dat", "rb") as file:
        clouds, labels = pickle.load(file)
    assert [(cloud.shape, cloud.dtype) for cloud in clouds] == [((32, 6), np.float32)] * 3
    assert [(label.tolist(), label.dtype) for label in labels] == [([0], np.int32), ([1], np.int32), ([1], np.int32)]
    rows = np.loadtxt(folder / "bathtub" / "bathtub_0001.txt", delimiter=",", dtype=np.float32)
    assert {tuple(row) for row in clouds[0]} <= {tuple(row) for row in rows}
    assert len({tuple(row) for row in clouds[0]}) == 32
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("front", [b"\xef\xbb\xbf", "# Gebäude\r\n".encode("latin-1"), "# 椅子\n".encode("gbk")])
def test_encodings_of_text_files(folder, front):
    path = folder / "bathtub" / "bathtub_0001.txt"
    cloud = read_text(path)
    path.write_bytes(front + path.read_bytes())
    assert np.array_equal(read_text(path), cloud)


def test_the_cache_alone_will_do(folder):
    first = build(folder, subset="test")[0][0]
    (folder / "bathtub" / "bathtub_0107.txt").unlink()
    assert torch.equal(build(folder, subset="test")[0][0], first)


@pytest.fixture
def read_only(folder, monkeypatch):
    """Let no file below ``folder`` be opened for writing; file modes do not stop the superuser."""
    opened = builtins.open

    def refuse(file, mode="r", *args, **kwargs):
        if str(file).startswith(str(folder)) and set(mode) & set("wax+"):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(file, mode, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)


def test_a_cache_that_cannot_be_written_is_said_before_the_sampling(folder, read_only, monkeypatch):
    message = r"cache .*modelnet10_train_32pts_fps.dat cannot be written \(Read-only file system\): the clouds will be"
    with pytest.warns(UserWarning, match=message):
        data = build(folder)
    assert (len(data), data.labels.tolist(), data[0][0].shape) == (3, [0, 1, 1], (32, 3))
    assert not list(folder.glob("*.dat"))
    monkeypatch.setattr(ModelNet, "process", lambda *_: pytest.fail("sampled"))
    with pytest.warns(UserWarning, match=message), pytest.raises(pytest.fail.Exception, match="sampled"):
        build(folder)


def test_a_disk_that_is_full_at_the_end(folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("utils.files.os.replace", refuse)
    with pytest.warns(UserWarning, match=r"cannot be written \(No space left on device\)"):
        assert len(build(folder)) == 3
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_samples_are_centred_and_scaled(folder):
    points, label = build(folder, subset="test")[0]
    assert points.shape == (32, 3)
    assert label == 0
    assert points.mean(0).abs().max() < 1e-6
    assert points.norm(dim=1).max().item() == pytest.approx(1, rel=1e-6)


def test_training_shuffles_by_epoch_and_testing_does_not(folder):
    train, test = build(folder), build(folder, subset="test")
    one = train[1][0]
    assert torch.equal(train[1][0], one)
    train.set_epoch(1)
    other = train[1][0]
    assert not torch.equal(other, one)
    assert torch.equal(other.sort(0).values, one.sort(0).values)
    same = test[0][0]
    test.set_epoch(1)
    assert torch.equal(test[0][0], same)


def test_normals_and_fewer_points(folder):
    whole = build(folder, subset="test", USE_NORMALS=True)
    assert whole[0][0].shape == (32, 6)
    assert torch.allclose(whole[0][0][:, 3:], torch.from_numpy(whole.clouds[0][:, 3:]))
    assert build(folder, subset="test", npoints=8)[0][0].shape == (8, 3)


def publish(folder, content, protocol=2):
    with open(folder / "modelnet10_test_32pts_fps.dat", "wb") as file:
        pickle.dump(content, file, protocol=protocol)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_published_pickles_are_read(folder, protocol):
    cloud = np.random.default_rng(1).random((32, 3), np.float32)
    publish(folder, [[cloud], [np.array([1], np.int32)]], protocol)
    data = build(folder, subset="test")
    assert np.array_equal(data.clouds[0], cloud)
    assert data.labels.tolist() == [1]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_pickles_of_old_and_new_numpy(tmp_path, core):
    other = {"numpy.core": "numpy._core", "numpy._core": "numpy.core"}[core]
    data = pickle.dumps([np.arange(3.0), np.float64(2.5)], protocol=2)
    (tmp_path / "x.dat").write_bytes(data.replace(f"{other}.multiarray".encode(), f"{core}.multiarray".encode()))
    array, scalar = load_pickle(tmp_path / "x.dat")
    assert (array.tolist(), scalar) == ([0, 1, 2], 2.5)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_malicious_pickle_runs_nothing(folder):
    publish(folder, [Bomb(folder / "ran")])
    with pytest.raises(DataError, match=r"32pts_fps.dat is damaged or not a pickle of arrays: it asks for .*open"):
        build(folder, subset="test")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(("content", "message"), [
    ([[np.zeros((32, 3))]], "is not a pickle of .clouds, labels."),
    ([[np.zeros((32, 3))] * 2, [np.array([0])] * 2], "holds 2 clouds, but the list names 1"),
    ([[np.zeros((10, 3))], [np.array([0])]], "cloud 0 has 10 points, but 32 are asked for"),
    ([[np.full((32, 3), np.inf)], [np.array([0])]], "cloud 0 holds NaN or infinite"),
    ([[np.zeros((32, 3))], [np.array([7])]], "labels from 7 to 7, but there are 2 classes"),
])
def test_wrong_pickles(folder, content, message):
    publish(folder, content)
    with pytest.raises(DataError, match=message):
        build(folder, subset="test")


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_truncated_pickles(folder, cut):
    publish(folder, [[np.zeros((32, 3))], [np.array([0])]])
    path = folder / "modelnet10_test_32pts_fps.dat"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="is damaged or not a pickle of arrays"):
        build(folder, subset="test")


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), r"bathtub_0107.txt does not exist \(1 of 1 listed files is missing\): see"),
    (lambda path: path.write_text("1,2,3\n4,5\n"), "bathtub_0107.txt is not a file of comma-separated numbers"),
    (lambda path: path.write_text("1,2,x\n"), "bathtub_0107.txt is not a file of comma-separated numbers"),
    (lambda path: path.write_text("1,2\n" * 60), r"bathtub_0107.txt holds an array of shape \(60, 2\)"),
    (lambda path: path.write_text("1,2,3\n" * 9), "bathtub_0107.txt has 9 points, but 32 are asked for"),
])
def test_damaged_text_files(folder, damage, message):
    damage(folder / "bathtub" / "bathtub_0107.txt")
    with pytest.raises(DataError, match=message):
        build(folder, subset="test")
    assert not list(folder.glob("*.dat"))


def test_missing_folder_and_wrong_keys(folder):
    with pytest.raises(DataError, match=r"absent/modelnet10_shape_names.txt does not exist: see 'ModelNet'"):
        build(folder / "absent")
    with pytest.raises(ConfigError, match="dataset.train.NUM_CATEGORY is 20; it must be one of 10, 40"):
        build(folder, NUM_CATEGORY=20)
    with pytest.raises(ConfigError, match="npoints is 64, but N_POINTS, what the cache holds, is 32"):
        build(folder, npoints=64)
    with pytest.raises(ConfigError, match=r"subset 'trian' is not one of train, test, val \(did you mean 'train'\?\)"):
        build(folder, subset="trian")
