import h5py
import numpy as np
import pytest

from datasets import ScanObjectNN, ScanObjectNN_hardest
from utils.errors import ConfigError, DataError


def write(path, clouds, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = clouds, labels


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "h5_files" / "main_split"
    for name in ("training_objectdataset", "test_objectdataset", "training_objectdataset_augmentedrot_scale75",
                 "test_objectdataset_augmentedrot_scale75"):
        write(folder / f"{name}.h5", rng.random((4, 32, 3)).astype(np.float32), np.array([0, 14, 3, 3]))
    return tmp_path


def test_variants_read_their_own_files(root):
    folder = root / "h5_files" / "main_split"
    plain, hard = (kind(ROOT=folder, subset="test", npoints=32) for kind in (ScanObjectNN, ScanObjectNN_hardest))
    assert (len(plain), plain.class_names[14], plain.labels.tolist()) == (4, "toilet", [0, 14, 3, 3])
    with h5py.File(folder / "test_objectdataset_augmentedrot_scale75.h5") as file:
        assert np.array_equal(hard[1][0].numpy(), file["data"][1])  # as it stands in the file, not normalised
    assert hard[1][1] == 14
    assert not np.array_equal(plain[1][0], hard[1][0])
    assert ScanObjectNN(ROOT=folder, subset="test", npoints=8)[0][0].equal(plain[0][0][:8])


def test_training_shuffles_points_by_epoch(root):
    data = ScanObjectNN(ROOT=root / "h5_files" / "main_split", subset="train", npoints=32)
    first = data[0][0]
    data.set_epoch(1)
    second = data[0][0]
    assert not first.equal(second)
    assert sorted(first.tolist()) == sorted(second.tolist())


def test_both_spellings_of_the_folder(root):
    assert len(ScanObjectNN(ROOT=root / "main_split", subset="test", npoints=32)) == 4
    (root / "h5_files").rename(root / "x")
    (root / "x" / "main_split").rename(root / "main_split")
    assert len(ScanObjectNN(ROOT=root / "h5_files" / "main_split", subset="test", npoints=32)) == 4


@pytest.mark.parametrize(("clouds", "labels", "message"), [
    (np.zeros((2, 32, 2)), [0, 1], r"'data' of shape \(2, 32, 2\)"),
    (np.zeros((2, 32, 3)), [0], r"'label' of shape \(1,\)"),
    (np.zeros((2, 32, 3)), [0, 15], "labels from 0 to 15, but there are 15 classes"),
    (np.full((2, 32, 3), np.nan), [0, 1], "NaN or infinite coordinates in cloud 0 and 1 others"),
])
def test_wrong_contents(root, clouds, labels, message):
    folder = root / "h5_files" / "main_split"
    write(folder / "test_objectdataset.h5", clouds, labels)
    with pytest.raises(DataError, match=message):
        ScanObjectNN(ROOT=folder, subset="test", npoints=32)


def test_missing_and_damaged_files(root):
    path = root / "h5_files" / "main_split" / "test_objectdataset.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="test_objectdataset.h5 is damaged or not an HDF5 file"):
        ScanObjectNN(ROOT=path.parent, subset="test")
    path.unlink()
    with pytest.raises(DataError, match="test_objectdataset.h5 does not exist: get it from https"):
        ScanObjectNN(ROOT=path.parent, subset="test")
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((1, 32, 3))
    with pytest.raises(DataError, match="lacks 'data' or 'label'"):
        ScanObjectNN(ROOT=path.parent, subset="test")
    with pytest.raises(ConfigError, match="npoints is 64, but the clouds of .* have 32 points"):
        ScanObjectNN_hardest(ROOT=path.parent, subset="test", npoints=64)
