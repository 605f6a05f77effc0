"""I2P-MAE through the commands: every published config, at small size on embedded data."""
import pathlib

import pytest
import torch
import yaml
from tiny_configs import split

from utils.config import load_config, plain

ROOT = pathlib.Path(__file__).parent.parent.parent
SMALL = {"num_groups": [32, 16, 8], "group_sizes": [8, 4, 4], "encoder_depths": [1, 1, 1],
         "encoder_dims": [12, 24, 48], "num_heads": 3}
IMAGE_MODEL = {"visual_encoder": "vit_tiny_patch16_224", "feat_dim": 24, "pretrained": False,
               "kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 2}}


def small(name, folder):
    """Write the published config ``name`` for small clouds and a small model; returns its path."""
    config = plain(load_config(ROOT / "cfgs" / f"{name}.yaml"))
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
