import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datasets import DATASETS
from datasets.clouds import normalize
from utils.errors import ConfigError

TRAIN = ["02691156-a.npy", "03001627-b.npy", "03001627-c.npy", "99999999-d.npy"]
TEST = ["02691156-e.npy"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "clouds").mkdir()
    rng = np.random.default_rng(0)
    for index, name in enumerate(TRAIN + TEST):
        np.save(tmp_path / "clouds" / name, rng.random((40 + index, 3 + index % 2)) * 5)
    for subset, names in (("train", TRAIN), ("test", TEST)):
        (tmp_path / "lists" / f"{subset}.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def build(root, **keys):
    return DATASETS.build({"NAME": "ShapeNet", "DATA_PATH": str(root / "lists"), "PC_PATH": str(root / "clouds"),
                           "subset": "train", "npoints": 16, **keys}, "dataset.train")


def test_lists_and_categories(root):
    data = build(root)
    assert data.taxonomies == ["02691156", "03001627", "99999999"]
    assert data.class_names == ["airplane", "chair", "99999999"]
    assert data.labels.tolist() == [0, 1, 1, 2]
    assert data.ids[3] == "99999999-d"
    assert len(build(root, whole=True)) == 5
    assert build(root, subset="test", whole=True).ids == ["02691156-e"]
    assert build(root, subset="val").ids == ["02691156-e"]


def test_a_sample_is_a_normalised_random_subset(root):
    raw = np.load(root / "clouds" / TRAIN[1])[:, :3]
    points = build(root, npoints=41)[1][0]
    torch.testing.assert_close(points.sort(0).values, torch.from_numpy(normalize(raw)).float().sort(0).values)
    assert points.dtype == torch.float32
    assert build(root)[1][0].shape == (16, 3)


def test_sampling_depends_on_seed_epoch_and_index_alone(root):
    data = build(root)
    loaders = [DataLoader(data, 4, num_workers=workers, persistent_workers=workers > 0) for workers in (0, 2)]
    seen = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        batches = [next(iter(loader))[0] for loader in loaders]
        assert torch.equal(batches[0], batches[1])
        seen.append(batches[0])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    data.set_seed(1)
    assert not torch.equal(data[0][0], seen[0][0])


def test_a_cloud_of_one_place_is_not_divided_by_zero():
    assert normalize(np.full((4, 3), 7.0)).tolist() == [[0, 0, 0]] * 4


def test_z_up_files_are_turned_so_that_y_points_up(root):
    lying, standing = build(root), build(root, up="z")
    x, y, z = lying[0][0].unbind(-1)
    assert standing[0][0].equal(torch.stack([x, z, -y], -1))
    with pytest.raises(ConfigError, match="up 'q' is not one of y, z"):
        build(root, up="q")
