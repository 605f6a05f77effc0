"""Text files as Notepad, Excel, PowerShell and editors in other countries save them."""
import json

import h5py
import numpy as np
import pytest
import yaml
from segmentation_data import write_parts

from datasets import ModelNet, ModelNetHDF5, ShapeNet, ShapeNetPart
from utils.config import load_config, read_yaml

BOM = b"\xef\xbb\xbf"
SAVED = {
    "utf-8": lambda text: text.encode(),
    "bom": lambda text: BOM + text.encode(),
    "bom, crlf": lambda text: BOM + text.replace("\n", "\r\n").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "old mac": lambda text: text.replace("\n", "\r").encode(),
    "latin-1 comment": lambda text: "# naïve café\n".encode("latin-1") + text.encode(),
    "gbk comment": lambda text: "# 配置文件，勿动\n".encode("gbk") + text.replace("\n", "\r\n").encode(),
}


@pytest.fixture(params=SAVED.values(), ids=SAVED)
def save(request):
    """A way to write a text to a file: ``save(path, text)``."""
    return lambda path, text: path.write_bytes(request.param(text))


def test_configs_and_their_data_files(save, tmp_path):
    save(tmp_path / "data.yaml", "NAME: Shapes\n")
    save(tmp_path / "base.yaml", "max_epoch: 3\ntotal_bs: 4\n")
    save(tmp_path / "run.yaml", """_base_: base.yaml
optimizer: {type: AdamW, kwargs: {lr: 5e-4}}
scheduler: {type: CosLR, kwargs: {epochs: 1}}
dataset: {train: {_base_: data.yaml, others: {subset: train}}}
model: {NAME: PointTransformer}
""")
    config = load_config(tmp_path / "run.yaml")
    assert (config.max_epoch, config.dataset.train._base_.NAME) == (3, "Shapes")


def test_lists_of_modelnet(save, tmp_path):
    save(tmp_path / "modelnet10_shape_names.txt", "airplane\nnight_stand\n")
    save(tmp_path / "modelnet10_test.txt", "night_stand_0001\nairplane_0001\n\n  \nairplane_0001\n")
    for name in ("airplane", "night_stand"):
        (tmp_path / name).mkdir()
        rows = np.random.default_rng(0).random((20, 6)).round(3).tolist()
        save(tmp_path / name / f"{name}_0001.txt", "\n".join(",".join(map(str, row)) for row in rows))
    data = ModelNet(DATA_PATH=tmp_path, N_POINTS=16, NUM_CATEGORY=10, subset="test")
    assert (data.class_names, data.labels.tolist()) == (["airplane", "night_stand"], [1, 0, 0])


def test_lists_of_shapenet(save, tmp_path):
    np.save(tmp_path / "02691156-a.npy", np.random.default_rng(0).random((20, 3)))
    save(tmp_path / "test.txt", "02691156-a.npy\n")
    assert ShapeNet(DATA_PATH=tmp_path, PC_PATH=tmp_path, subset="test", npoints=8).class_names == ["airplane"]


def test_tables_and_objects_of_shapenet_part(save, tmp_path):
    root = write_parts(tmp_path / "parts", objects=1)
    for path in (root / "synsetoffset2category.txt", *root.glob("*/*.txt")):
        save(path, path.read_text())
    for path in (root / "train_test_split").iterdir():
        path.write_bytes(BOM + path.read_bytes())
    data = ShapeNetPart(ROOT=root, subset="test", npoints=8)
    assert data.labels.tolist() == [0, 2]
    assert json.loads((root / "train_test_split" / "shuffled_test_file_list.json").read_bytes())


def test_class_names_of_hdf5(save, tmp_path):
    save(tmp_path / "shape_names.txt", "ant\ncat\n")
    with h5py.File(tmp_path / "ply_data_test0.h5", "w") as file:
        file["data"], file["label"] = np.zeros((2, 8, 3), np.float32), [1, 0]
    assert ModelNetHDF5(DATA_PATH=tmp_path, subset="test", npoints=8).class_names == ["ant", "cat"]


def test_values_in_latin_1(tmp_path):
    (tmp_path / "x.yaml").write_bytes("model: {NAME: café}\n".encode("latin-1"))
    assert read_yaml(tmp_path / "x.yaml") == {"model": {"NAME": "café"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"model": "café"}, allow_unicode=True), encoding="utf-8")
    assert read_yaml(tmp_path / "x.yaml") == {"model": "café"}
