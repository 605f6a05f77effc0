import subprocess
import sys

import h5py
import numpy as np
import pytest

from datasets import DATASETS, ScanObjectNN, ScanObjectNN_hardest
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


HARD = "augmentedrot_scale75"


@pytest.fixture
def splits(tmp_path):
    """h5_files with both folders; a file's first label tells which one it is."""
    kinds = [(folder, ending) for folder in ("main_split", "main_split_nobg") for ending in ("", f"_{HARD}")]
    for label, (folder, ending) in enumerate(kinds):
        write(tmp_path / "h5_files" / folder / f"test_objectdataset{ending}.h5", np.zeros((2, 32, 3)), [label, 5])
    return tmp_path


@pytest.mark.parametrize(("split", "folder", "label"), [("OBJ_BG", "main_split", 0), ("PB", "main_split", 1),
                                                       ("OBJ", "main_split_nobg", 2)])
def test_splits_as_i2p_mae_has_them(splits, split, folder, label):
    def build(root, **keys):
        return ScanObjectNN(ROOT=str(root), SPLIT=split, subset="test", **{"N_POINTS": 32, **keys})

    (splits / "linked").symlink_to(splits / "h5_files" / folder)
    for root in (splits, splits / "h5_files", splits / "h5_files" / folder, splits / folder, splits / "linked"):
        assert build(root).labels.tolist() == [label, 5]
    assert build(splits, npoints=8)[0][0].shape == (8, 3)
    with pytest.raises(ConfigError, match="npoints is 64, but N_POINTS, .*, is 32"):
        build(splits, npoints=64)
    (splits / "h5_files" / folder).rename(splits / folder)
    for root in (splits, splits / "h5_files" / folder):
        assert build(root).labels.tolist() == [label, 5]
    (splits / folder).rename(splits / "own")
    assert build(splits / "own").labels.tolist() == [label, 5]
    with pytest.raises(DataError, match=rf"absent/{folder}/test_objectdataset.*h5 does not exist: get it from https"):
        build(splits / "absent")


def test_splits_that_are_not_clear(splits):
    def build(root, split, name="ScanObjectNN"):
        return DATASETS.build({"NAME": name, "ROOT": str(root), "SPLIT": split, "subset": "test", "N_POINTS": 32},
                              "dataset.test")

    for split, folder, other in (("OBJ", "main_split", "main_split_nobg"), ("OBJ_BG", "main_split_nobg", "main_split"),
                                 ("PB", "main_split_nobg", "main_split")):
        with pytest.raises(ConfigError, match=f"SPLIT is {split}, which is in {other}, but ROOT is .*{folder}:"):
            build(splits / "h5_files" / folder, split)
    write(splits / "h5_files" / "test_objectdataset.h5", np.zeros((1, 32, 3)), [0])
    with pytest.raises(ConfigError, match="does not tell which files are meant, those of .*main_split or .*h5_files"):
        build(splits / "h5_files", "OBJ_BG")
    with pytest.raises(ConfigError, match="SPLIT 'HARD' is not one of OBJ, OBJ_BG, PB"):
        build(splits, "HARD")
    assert build(splits, "PB", "ScanObjectNN_hardest").labels.tolist() == [1, 5]
    with pytest.raises(ConfigError, match="SPLIT is OBJ, but ScanObjectNN_hardest is PB"):
        build(splits, "OBJ", "ScanObjectNN_hardest")


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


@pytest.mark.parametrize("options", ["", ", libver='latest'"])
def test_a_file_that_another_program_has_open(root, options):
    """A viewer or a notebook; of the newest format the file itself says so, which only closing it undoes."""
    path = root / "h5_files" / "main_split" / "test_objectdataset.h5"
    hold = f"import h5py; file = h5py.File(r'{path}', 'r+'{options}); print('held', flush=True); input()"
    if options:
        clouds = ScanObjectNN(ROOT=path.parent, subset="test", npoints=32).clouds
        with h5py.File(path, "w", libver="latest") as file:
            file["data"], file["label"] = clouds, np.array([0, 14, 3, 3])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as other:
        assert other.stdout.readline() == "held\n"
        if options:
            with pytest.raises(DataError, match="test_objectdataset.h5 is open for writing in another program: close"):
                ScanObjectNN(ROOT=path.parent, subset="test", npoints=32)
        else:
            assert len(ScanObjectNN(ROOT=path.parent, subset="test", npoints=32)) == 4
        other.communicate("\n")
    assert len(ScanObjectNN(ROOT=path.parent, subset="test", npoints=32)) == 4


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
