"""Fine-tuning on folders of one's own classes: the model has as many outputs as there are folders."""
import json
import pathlib
import re

import numpy as np
import pytest
import trimesh
import yaml

from models import load_pretrained
from tools import predict
from utils import checkpoint

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ["model.depth=1", "model.embed_dim=24", "model.encoder_dims=24", "model.num_heads=2", "model.num_group=8",
         "model.group_size=8", "total_bs=2", "max_epoch=0", "npoints=64"]


def write_classes(folder, *names, count=4):
    for name in names:
        for subset in ("train", "test"):
            (folder / name / subset).mkdir(parents=True)
            for index in range(count):
                size = np.random.default_rng(index).uniform(1, 3, 3)
                trimesh.creation.box(size).export(folder / name / subset / f"{index}.off")
    return folder


@pytest.fixture
def tune(command, monkeypatch):
    """Run the shipped config on ``folder``: ``tune(folder, *flags, set=())``."""
    monkeypatch.chdir(ROOT)

    def tune(folder, *flags, set=(), others=None, status=0):
        paths = [f"dataset.{split}._base_.DATA_PATH={path}" for split in ("train", "val", "test")
                 for path in [others if others and split != "train" else folder]]
        points = [f"dataset.{split}._base_.N_POINTS=128" for split in ("train", "val", "test")]
        points += [f"dataset.{split}.others.npoints=64" for split in ("train", "val", "test")]
        return command(ROOT / "cfgs/finetune_classification/full/finetune_point_folder.yaml", *flags, "--set", *paths,
                       *points, *SMALL, *set, status=status)

    return tune


def trained(command):
    return next((command.folder / "work_dirs").rglob("ckpt-last.pth"))


def test_outputs_follow_the_folders(tune, command, tmp_path, run):
    data = write_classes(tmp_path / "mine", "chair", "table")
    tune(data, "--scratch_model")
    path = trained(command)
    state = checkpoint.read(path)
    assert state["base_model"]["cls_head_finetune.8.bias"].shape == (2,)
    assert state["notes"]["model"]["cls_dim"] == 2
    assert load_pretrained(path).class_names == ["chair", "table"]
    cloud = data / "chair" / "test" / "0.off"
    for config in ((), ("--config", ROOT / "cfgs/finetune_classification/full/finetune_point_folder.yaml", "--set",
                        *SMALL[:6])):
        out = run(predict, "--ckpts", path, "--device", "cpu", "--json", cloud, *config).out
        assert {entry["class"] for entry in json.loads(out)["classes"]} == {"chair", "table"}
    assert re.search(r"Test  OA [\d.]+", tune(data, "--test", "--ckpts", path, set=["vote.rounds=0"]).out)
    tune(data, "--scratch_model", "--resume", set=["max_epoch=1"])


@pytest.mark.parametrize("model", ["I2P_MAE_ModelNet40", "PointTransformer"])
def test_a_config_without_the_key(command, tmp_path, model):
    data = write_classes(tmp_path / "mine", "ant", "cat", "dog", count=2)
    small = {"PointTransformer": dict(embed_dim=24, encoder_dims=24, depth=1, num_heads=2, num_group=8, group_size=8),
             "I2P_MAE_ModelNet40": dict(num_groups=[32, 16, 8], group_sizes=[8, 4, 4], encoder_depths=[1, 1, 1],
                                        encoder_dims=[12, 24, 48], num_heads=3)}[model]
    base = {"NAME": "PointFolder", "DATA_PATH": str(data), "N_POINTS": 64}
    path = command.folder / "own.yaml"
    path.write_text(yaml.safe_dump({
        "optimizer": {"type": "AdamW", "kwargs": {"lr": 0.001}},
        "scheduler": {"type": "CosLR", "kwargs": {"epochs": 1}},
        "dataset": {split: {"_base_": base, "others": {"subset": subset, "npoints": 64}}
                    for split, subset in (("train", "train"), ("val", "test"))},
        "model": {"NAME": model, **small}, "npoints": 64, "total_bs": 2, "max_epoch": 0}))
    command(path, "--scratch_model")
    assert checkpoint.read(trained(command))["base_model"]["cls_head_finetune.8.bias"].shape == (3,)


@pytest.mark.parametrize("number", [40, 1])
def test_a_number_that_contradicts_the_folders(tune, command, tmp_path, number):
    """The folders count, and one line says so; the checkpoint predicts their classes alone."""
    data = write_classes(tmp_path / "mine", "chair", "table")
    out = tune(data, "--scratch_model", set=[f"model.cls_dim={number}"]).out
    assert re.search(rf"point_folder.yaml: model.cls_dim is {number}, but the data has 2 class folders "
                     r"\(chair, table\): the model gets 2 outputs", out)
    state = checkpoint.read(trained(command))
    assert state["base_model"]["cls_head_finetune.8.bias"].shape == (2,)
    assert (state["notes"]["model"]["cls_dim"], state["notes"]["class_names"]) == (2, ["chair", "table"])


def test_folders_of_other_classes(tune, command, tmp_path):
    data, other = (write_classes(tmp_path / name, "chair", kind) for name, kind in (("a", "table"), ("b", "lamp")))
    err = tune(data, "--scratch_model", others=other, status=2).err
    assert "dataset.train has the class folders chair, table, but dataset.val has chair, lamp: give both" in err
    tune(data, "--scratch_model")
    err = tune(other, "--test", "--ckpts", trained(command), status=2).err
    assert "ckpt-last.pth was trained on the classes chair, table, but the class folders are chair, lamp" in err


def test_damaged_files(tune, command, tmp_path):
    data = write_classes(tmp_path / "mine", "chair", "table")
    (data / "chair" / "train" / "bad.ply").write_text("no ply")
    err = tune(data, "--scratch_model", status=2).err.splitlines()[-1]
    assert re.fullmatch("error: .*bad.ply is damaged.*: repair or remove what is bad, or let --allow_bad N .*", err)
    got = tune(data, "--scratch_model", "--allow_bad", 1)
    assert re.search(r"warning: 1 of 9 clouds are left out: .*bad.ply is damaged", got.err)
    assert "train: 8 clouds of 64 points, 2 classes" in got.out
    err = command("finetune", "--scratch_model", "--allow_bad", 1, status=2).err
    assert err == "error: --allow_bad is for configs with the data set PointFolder\n"
