"""A user's mistake ends in one clear line on stderr and exit status 2, never in a traceback."""
import math
import re

import numpy as np
import pytest
import torch
import yaml

from utils import checkpoint

pytestmark = pytest.mark.slow

TAXONOMIES = ("02691156", "03001627")


@pytest.fixture
def shapenet(command):
    """A tiny ShapeNet-55 folder, with the stage-I config pointing at it."""
    root = command.folder / "data"
    (root / "lists").mkdir(parents=True)
    (root / "clouds").mkdir()
    rng = np.random.default_rng(0)
    names = [f"{taxonomy}-{index}.npy" for taxonomy in TAXONOMIES for index in range(5)]
    for name in names:
        np.save(root / "clouds" / name, rng.standard_normal((80, 3)).astype(np.float32))
    for subset in ("train", "test"):
        (root / "lists" / f"{subset}.txt").write_text("\n".join(names) + "\n")
    path = command.folder / "cfgs" / "autoencoder.yaml"
    config = yaml.safe_load(path.read_text())
    base = {"NAME": "ShapeNet", "DATA_PATH": str(root / "lists"), "PC_PATH": str(root / "clouds"), "N_POINTS": 80}
    config["dataset"] = {name: {"_base_": dict(base), "others": {"subset": subset, "npoints": 64}}
                         for name, subset in (("train", "train"), ("val", "test"))}
    path.write_text(yaml.safe_dump(config))
    return root


def one_line(output, pattern):
    """Assert that the last line on stderr is the error, that it is one, and that it says ``pattern``."""
    lines = [line for line in output.err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output.err
    assert re.search(pattern, lines[0]), lines[0]
    assert "Traceback" not in output.err


def remove_list(root):
    (root / "lists" / "train.txt").unlink()


def empty_list(root):
    (root / "lists" / "train.txt").write_text("\n")


def remove_folder(root):
    (root / "clouds").rename(root / "moved")


def absent_file(root):
    (root / "clouds" / "02691156-3.npy").unlink()


def leave_folder(root):
    (root / "lists" / "train.txt").write_text("../../x-1.npy\n")


def save(array):
    return lambda root: np.save(root / "clouds" / "02691156-3.npy", array)


def truncate(root):
    path = root / "clouds" / "02691156-3.npy"
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(("damage", "message"), [
    (remove_list, r"train.txt does not exist: see 'ShapeNet-55' in DATASET.md"),
    (empty_list, r"train.txt is empty"),
    (remove_folder, r"clouds cannot be read \(No such file or directory\)"),
    (absent_file, r"02691156-3.npy does not exist"),
    (leave_folder, r"'../../x-1.npy' is not a name inside"),
])
def test_missing_data(command, shapenet, damage, message):
    damage(shapenet)
    one_line(command("autoencoder", status=2), message)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("damage", "message"), [
    (save(np.full((80, 3), np.nan, np.float32)), r"02691156-3.npy holds NaN or infinite coordinates"),
    (save(np.zeros((10, 3), np.float32)), r"02691156-3.npy has 10 points, but 64 are asked for"),
    (save(np.zeros((80, 2), np.float32)), r"02691156-3.npy holds an array of shape \(80, 2\)"),
    (save(np.array([{}])), r"02691156-3.npy is damaged or not a .npy file of numbers"),
    (truncate, r"02691156-3.npy is damaged or not a .npy file of numbers"),
])
def test_damaged_clouds(command, shapenet, damage, message, workers):
    damage(shapenet)
    one_line(command("autoencoder", "--num_workers", workers, status=2), message)


@pytest.mark.parametrize(("flags", "message"), [
    (["--set", "model.NAME=DiscretVAE"], r"unknown model 'DiscretVAE' \(did you mean 'DiscreteVAE'\?\)"),
    (["--set", "dataset.train._base_.NAME=Shape"], r"unknown dataset 'Shape' \(did you mean 'Shapes'\?\)"),
    (["--set", "model.num_tokenz=3"], r"unknown key 'model.num_tokenz' \(did you mean 'num_tokens'\?\)"),
    (["--set", "dataset.train.others.npoint=3"], r"unknown key 'dataset.train.npoint' \(did you mean 'npoints'\?\)"),
    (["--set", "totalbs=3"], r"autoencoder.yaml: unknown key 'totalbs' \(did you mean 'total_bs'\?\)"),
    (["--set", "total_bs=21"], r"total_bs is 21, but the training set has only 20 clouds"),
    (["--set", "optimizer.type=Adam"], r"autoencoder.yaml: optimizer.type is 'Adam'; it must be AdamW"),
    (["--config", "absent.yaml"], r"config file absent.yaml cannot be read: No such file"),
    (["--resume"], r"--resume: there is no .*ckpt-last.pth"),
    (["--device", "abc"], r"--device abc cannot be used here"),
    (["--amp", "fp16"], r"--amp fp16 needs a GPU"),
    (["--start_ckpts", "absent.pth"], r"checkpoint absent.pth does not exist"),
    (["--val", "--test", "--ckpts", "x"], r"--val and --test contradict each other"),
])
def test_wrong_config_and_flags(command, flags, message):
    one_line(command("autoencoder", *flags, status=2), message)


def test_a_corrupt_checkpoint(command, tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"PK\x03\x04 not a checkpoint")
    output = command("finetune", "--finetune_model", "--ckpts", tmp_path / "bad.pth", status=2)
    one_line(output, r"bad.pth is damaged or not a checkpoint")


def test_a_checkpoint_of_another_model(command, tmp_path):
    checkpoint.save({"base_model": torch.nn.Linear(2, 3).state_dict()}, tmp_path / "other.pth")
    output = command("finetune", "--finetune_model", "--ckpts", tmp_path / "other.pth", status=2)
    one_line(output, r"other.pth is not of this PointTransformer: 0 of 64 weights match, 64 missing, 2 unexpected")


def test_a_class_too_many(command):
    output = command("finetune", "--scratch_model", "--set", "model.cls_dim=5", status=2)
    one_line(output, r"model.cls_dim is 5, but the data has 20 classes")


def test_a_loss_that_is_not_finite(command):
    output = command("autoencoder", "--set", "optimizer.kwargs.lr=1e30", "max_epoch=9", status=2)
    one_line(output, r"the loss is (nan|inf) in epoch \d, step \d+; its batch and weights are in .*nonfinite-step.pth")
    saved = checkpoint.read(command.experiment("autoencoder") / "nonfinite-step.pth")
    assert saved["batch"][0].shape == (10, 64, 3)
    assert not math.isfinite(saved["loss"])
    assert "codebook" in saved["base_model"]


def test_an_experiment_folder_that_cannot_be_made(command):
    (command.folder / "file").write_text("")
    output = command("autoencoder", "--work_dir", command.folder / "file", status=2)
    one_line(output, r"the experiment's folder .* cannot be written")
