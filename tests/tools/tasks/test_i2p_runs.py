"""I2P-MAE through the commands: every published config, at small size on embedded data."""
import os
import pathlib
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from classification_data import write_modelnet_hdf5, write_scanobjectnn
from tiny_configs import split

from models import load_pretrained
from models.pretrained import npoints_of
from tools import extract_features, predict
from tools.tasks import probing
from utils import checkpoint
from utils.config import load_config, plain
from utils.schema import Probe

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[3]
SMALL = {"num_groups": [32, 16, 8], "group_sizes": [8, 4, 4], "encoder_depths": [1, 1, 1],
         "encoder_dims": [12, 24, 48], "num_heads": 3}
IMAGE_MODEL = {"visual_encoder": "vit_tiny_patch16_224", "feat_dim": 24, "pretrained": False,
               "kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 2}}


def small(name, folder, embedded=True):
    """Write the published config ``name`` for a small model, and for small ``embedded`` clouds; returns its path."""
    config = plain(load_config(ROOT / "cfgs" / f"{name}.yaml"))
    if embedded:
        config["dataset"] = {key: split("train" if "train" in key else "test") for key in config["dataset"]}
    config["model"].update(SMALL)
    if config["model"]["NAME"] == "I2P_MAE":
        config["model"].update(decoder_dims=[48, 24], clip_config=dict(IMAGE_MODEL))
    else:
        config["model"]["cls_dim"] = 20
    config["scheduler"]["kwargs"].update(epochs=2, initial_epochs=1)
    config.update(total_bs=10, max_epoch=1, npoints=64)
    path = folder / f"{name.replace('/', '-')}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("name", ["modelnet40", "scan_obj-bg", "scan_obj", "scan_pb"])
def test_pretraining_then_fine_tuning(command, tmp_path, name):
    (tmp_path / "runs").mkdir()
    out, err = command(small("pre-training/i2p-mae", tmp_path / "runs"))
    assert "loss_3d" in out + err
    assert "loss_2d" in out + err
    trained = next((tmp_path / "work_dirs").rglob("ckpt-last.pth"))
    weights = torch.load(trained, weights_only=True)["base_model"]
    assert not any(key.startswith(("clip", "image")) for key in weights)
    command(small(f"fine-tuning/{name}", tmp_path / "runs"), "--finetune_model", "--ckpts", trained)
    assert len(list((tmp_path / "work_dirs").rglob("ckpt-last.pth"))) == 2


@pytest.fixture
def trained(command):
    """The weights of a small model pre-trained for an epoch."""
    command(small("pre-training/i2p-mae", command.folder), "--set", "max_epoch=0")
    return next((command.folder / "work_dirs").rglob("ckpt-last.pth"))


@pytest.mark.parametrize(("data", "name", "cost"), [("modelnet40", "modelnet40", "0.0093"),
                                                   ("scan", "scan_obj-bg", "0.018")])
def test_svm_on_the_data_that_is_named(command, trained, monkeypatch, data, name, cost):
    write_modelnet_hdf5(command.folder)
    write_scanobjectnn(command.folder)
    monkeypatch.chdir(command.folder)
    config = small(f"linear-svm/{name}", command.folder, embedded=False)
    out = command(config, "--test_svm", data, "--ckpts", trained).out
    found = re.findall(r"Linear SVC +OA ([\d.]+)  \(C = ([\d.]+), as given", out)
    assert [value for _, value in found] == [cost]
    assert 0 <= float(found[0][0]) <= 100
    other = {"modelnet40": "scan", "scan": "modelnet40"}[data]
    err = command(config, "--test_svm", other, "--ckpts", trained, status=2).err
    assert re.fullmatch(rf"error: --test_svm {other}: .*{name}.yaml has the data set \w+; give a config of .*\n", err)


def test_the_pretrained_encoder_outside_the_commands(command, trained):
    points = torch.randn(3, 64, 3, generator=torch.Generator().manual_seed(0))
    bare = trained.parent / "bare.pth"  # as the published code saves it
    torch.save({"base_model": checkpoint.read(trained)["base_model"]}, bare)
    config = small("linear-svm/modelnet40", command.folder)
    features = [load_pretrained(*given).forward_features(points) for given in ((trained,), (bare, config))]
    assert features[0].shape == (3, 48)
    assert torch.equal(*features)
    assert features[0].std(0).min() > 0


def test_the_points_of_a_cloud_are_those_of_pretraining():
    """Where a config of pre-training says so for its training set alone."""
    path = ROOT / "cfgs/pre-training/i2p-mae.yaml"
    assert npoints_of(load_config(path)) == load_config(path).dataset.train.others.npoints == 2048
    assert npoints_of(load_config(ROOT / "cfgs/linear-svm/scan_obj-bg.yaml")) == 2048
    assert npoints_of({}) == 1024


@pytest.mark.parametrize("flag", ["--finetune_model", "--scratch_model", "--test"])
def test_a_config_of_pretraining_is_not_for_fine_tuning(command, flag):
    weights = () if flag == "--scratch_model" else ("--ckpts", "any.pth")
    err = command(small("pre-training/i2p-mae", command.folder), flag, *weights, status=2).err
    assert re.fullmatch("error: .*i2p-mae.yaml: a I2P_MAE does not classify; give a config of fine-tuning\n", err)


def test_the_classes_that_a_config_leaves_out_are_those_of_the_model(command):
    config = small("fine-tuning/modelnet40", command.folder)
    section = yaml.safe_load(config.read_text())
    del section["model"]["cls_dim"]
    config.write_text(yaml.safe_dump(section))
    command(config, "--scratch_model", "--set", "max_epoch=0")
    trained = next((command.folder / "work_dirs").rglob("ckpt-last.pth"))
    head = torch.load(trained, weights_only=True)["base_model"]["cls_head_finetune.8.bias"]
    assert head.shape == (40,)


@pytest.mark.parametrize("name", ["modelnet10_i2p", "modelnet10_i2p_rand", "modelnet10_i2p_3d"])
def test_the_experiments_train(command, name):
    command(small(f"experiments/{name}", command.folder), "--set", "max_epoch=0")
    trained = next((command.folder / "work_dirs").rglob("ckpt-last.pth"))
    tuning = small("experiments/modelnet10_i2p_finetune", command.folder)
    out = command(tuning, "--finetune_model", "--ckpts", trained, "--set", "max_epoch=0").out
    assert re.search(r"Last +OA [\d.]+ +mAcc [\d.]+", out)


def test_a_linear_svc_takes_features_as_they_are(monkeypatch):
    seen = []
    monkeypatch.setattr(probing, "fit_probe", lambda estimator, *given, scaled: seen.append(
        (type(estimator).__name__, getattr(estimator, "kernel", None), scaled)) or (50.0, 1.0, False))
    experiment = SimpleNamespace(config=SimpleNamespace(probe=Probe(svc_c=[0.01])), args=SimpleNamespace(seed=0),
                                 log=SimpleNamespace(info=lambda *said: None))
    probing.report(experiment, (None, range(9)), None)
    assert seen == [("LinearSVC", None, True), ("LogisticRegression", None, True),
                    ("KNeighborsClassifier", None, True), ("SVC", "linear", False)]


def test_predictions_for_own_files(command, trained, monkeypatch, capsys):
    config = small("fine-tuning/modelnet40", command.folder)
    command(config, "--finetune_model", "--ckpts", trained, "--exp_name", "tuned", "--set", "max_epoch=0")
    tuned = next((command.folder / "work_dirs").rglob("tuned/ckpt-last.pth"))
    assert load_pretrained(tuned)(torch.randn(2, 64, 3))["logits"].shape == (2, 20)
    cloud, few = command.folder / "cloud.txt", command.folder / "few.txt"
    cloud.write_text("\n".join(" ".join(map(str, row)) for row in torch.randn(64, 3).tolist()))
    few.write_text("0 0 0\n1 1 1\n")
    monkeypatch.setattr("sys.argv", ["predict.py", "--ckpts", os.fspath(tuned), "--device", "cpu", os.fspath(cloud),
                                     os.fspath(few)])
    with pytest.raises(SystemExit) as stop:
        predict.main()
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert re.search(r"cloud.txt: \w+ [\d.]+ %, \w+ [\d.]+ %, ", said.out)
    assert "few.txt: it has 2 points, but this model needs 32" in said.err
    output = command.folder / "features.npz"
    monkeypatch.setattr("sys.argv", ["extract_features.py", "--ckpts", os.fspath(trained), "--device", "cpu",
                                     "--output", os.fspath(output), os.fspath(cloud)])
    with pytest.raises(SystemExit):
        extract_features.main()
    with np.load(output) as file:
        assert file["features"].shape == (1, 48)


def test_testing_and_voting(command, trained):
    config = small("fine-tuning/scan_pb", command.folder)
    command(config, "--finetune_model", "--vote", "--ckpts", trained, "--exp_name", "tuned", "--set", "max_epoch=0",
            "vote.times=2")
    tuned = next((command.folder / "work_dirs").rglob("tuned/ckpt-last.pth"))
    out = command(config, "--test", "--ckpts", tuned, "--set", "vote.rounds=2", "vote.times=2").out
    plain, *votes = re.findall(r"(?:Test|Vote \d/2)  OA ([\d.]+)", out)
    mean, best = map(float, re.search(r"Mean over 2 votes  OA ([\d.]+) ± .*best of them: ([\d.]+)", out).groups())
    assert mean == pytest.approx(sum(map(float, votes)) / 2, abs=0.01)
    assert best == max(map(float, votes))
    assert 0 <= float(plain) <= 100
