import h5py
import numpy as np
import pytest

from datasets import ModelNet40_SVM, ModelNetHDF5
from utils.errors import ConfigError, DataError


def write(path, clouds, labels):
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = clouds.astype(np.float32), np.asarray(labels, np.uint8).reshape(-1, 1)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "ply_data_train1.h5", rng.random((2, 32, 3)), [39, 1])
    write(tmp_path / "ply_data_train0.h5", rng.random((3, 32, 3)), [30, 0, 2])
    write(tmp_path / "ply_data_test0.h5", rng.random((2, 32, 3)), [4, 4])
    return tmp_path


def test_the_files_are_joined_in_the_order_of_their_names(folder):
    data = ModelNetHDF5(DATA_PATH=folder, subset="train", npoints=32)
    assert data.labels.tolist() == [30, 0, 2, 39, 1]
    assert data.ids[2:4] == ["ply_data_train0-2", "ply_data_train1-0"]
    assert (data.class_names[0], data.class_names[39]) == ("airplane", "xbox")
    with h5py.File(folder / "ply_data_train1.h5") as file:
        assert np.array_equal(data.clouds[3], file["data"][0])


def test_evaluation_gives_the_first_points_as_they_stand(folder):
    points, label = ModelNetHDF5(DATA_PATH=folder, subset="test", npoints=8)[1]
    with h5py.File(folder / "ply_data_test0.h5") as file:
        assert np.array_equal(points.numpy(), file["data"][1][:8])
    assert label == 4


def test_training_shuffles_points_by_epoch(folder):
    data = ModelNetHDF5(DATA_PATH=folder, subset="train", npoints=32)
    first = data[0][0]
    data.set_epoch(1)
    assert not first.equal(data[0][0])
    assert sorted(first.tolist()) == sorted(data[0][0].tolist())


def test_classes_of_the_folder_are_taken(folder):
    (folder / "shape_names.txt").write_text("\n".join(f"class{index}" for index in range(40)))
    assert ModelNetHDF5(DATA_PATH=folder, subset="test", npoints=8).class_names[4] == "class4"
    (folder / "shape_names.txt").write_text("one\ntwo")
    with pytest.raises(DataError, match="ply_data_test0.h5 has labels from 4 to 4, but there are 2 classes"):
        ModelNetHDF5(DATA_PATH=folder, subset="test", npoints=8)


def test_the_name_and_keys_of_i2p_mae(folder):
    train = ModelNet40_SVM(DATA_DIR=str(folder), partition="train", num_points=16)
    assert train.labels.tolist() == [30, 0, 2, 39, 1]
    assert train[0][0].shape == (16, 3)
    assert ModelNet40_SVM(DATA_DIR=str(folder), subset="val", partition="test", num_points=16).labels.tolist() == [4, 4]
    with pytest.raises(ConfigError, match="partition is train, but subset is test: give one of them"):
        ModelNet40_SVM(DATA_DIR=str(folder), subset="test", partition="train")
    with pytest.raises(ConfigError, match="needs partition"):
        ModelNet40_SVM(DATA_DIR=str(folder))


def test_errors(folder, tmp_path):
    with pytest.raises(ConfigError, match="npoints is 64, but the clouds of .*ply_data_test0.h5 have 32 points"):
        ModelNetHDF5(DATA_PATH=folder, subset="test", npoints=64)
    with h5py.File(folder / "ply_data_test0.h5", "a") as file:
        del file["label"]
        file["label"] = 3
    with pytest.raises(DataError, match=r"holds 'label' of shape \(\) .*, not one whole number for each of the"):
        ModelNetHDF5(DATA_PATH=folder, subset="test", npoints=8)
    (folder / "ply_data_test0.h5").write_bytes(b"no")
    with pytest.raises(DataError, match="ply_data_test0.h5 is damaged or not an HDF5 file"):
        ModelNetHDF5(DATA_PATH=folder, subset="test", npoints=8)
    with pytest.raises(DataError, match=r"absent holds no file ply_data_test\*.h5: see 'modelnet40_ply"):
        ModelNetHDF5(DATA_PATH=tmp_path / "absent", subset="test")
