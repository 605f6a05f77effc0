"""One memory-mapped file in place of a folder."""
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from datasets import pack
from datasets.shapenet import ShapeNet
from utils.errors import DataError

NAMES = ("02691156-a.npy", "03001627-b.npy", "03001627-c.npy")


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for size, name in zip((20, 33, 64), NAMES, strict=True):
        np.save(tmp_path / name, random.normal(size=(size, 5)))
    for subset in ("train", "test"):
        (tmp_path / f"{subset}.txt").write_text("\n".join(NAMES))
    return tmp_path


def dataset(folder, npoints=16):
    return ShapeNet(DATA_PATH=folder, PC_PATH=folder, subset="train", npoints=npoints)


def test_the_same_samples(folder):
    plain = dataset(folder)
    path = pack.pack_folder(folder)
    packed = dataset(folder)
    assert plain.packed is None
    assert packed.packed.path == path
    for index in range(3):
        assert plain[index][0].equal(packed[index][0])
        assert plain[index][1] == packed[index][1]
    for name in NAMES:
        (folder / name).unlink()
    assert dataset(folder)[2][0].equal(packed[2][0])


def test_the_format_is_safetensors(folder):
    arrays = {name: np.load(folder / name)[:, :3].astype(np.float32) for name in NAMES}
    tensors = load_file(pack.pack_folder(folder))
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(tensors[name].numpy(), array)


def test_workers_map_the_file_themselves(folder):
    pack.pack_folder(folder)
    data = dataset(folder)
    first = data[0][0]
    assert len(pickle.dumps(data)) < 20_000
    assert pickle.loads(pickle.dumps(data))[0][0].equal(first)
    points, _ = next(iter(DataLoader(data, batch_size=3, num_workers=1)))
    assert points[0].equal(first)


def test_a_list_that_names_an_unpacked_file(folder):
    pack.pack_folder(folder)
    (folder / "train.txt").write_text("\n".join([*NAMES, "03001627-new.npy"]))
    with pytest.raises(DataError, match=r"packed.safetensors lacks 03001627-new.npy and 0 others of the 4 files"):
        dataset(folder)


def test_too_few_points(folder):
    pack.pack_folder(folder)
    with pytest.raises(DataError, match=r"02691156-a.npy has 20 points, but 21 are asked for"):
        dataset(folder, 21)[0]


@pytest.mark.parametrize("content", [np.full((4, 3), np.nan), np.zeros((4, 2)), np.zeros(5)])
def test_a_bad_cloud_keeps_the_old_file(folder, content):
    before = pack.pack_folder(folder).read_bytes()
    np.save(folder / "03001627-c.npy", content)
    with pytest.raises(DataError, match=r"03001627-c.npy"):
        pack.pack_folder(folder)
    assert (folder / pack.NAME).read_bytes() == before
    assert not list(folder.glob(f".{pack.NAME}*"))


def test_a_damaged_file(folder):
    path = pack.pack_folder(folder)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:40], b"", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"packed.safetensors is (damaged|cut off)"):
            dataset(folder)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="holds no .npy files"):
        pack.pack_folder(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        pack.pack_folder(tmp_path / "absent")


def test_points_are_read_only_views(folder):
    pack.pack_folder(folder)
    points = dataset(folder).packed.read(NAMES[1])
    assert points.shape == (33, 3)
    assert not points.flags.writeable
    assert torch.tensor(points).isfinite().all()
