"""Every picture, from checkpoints of the tiny models."""
import re
import sys

import matplotlib.image
import numpy as np
import pytest
import torch
import yaml

from models import build_model_from_cfg
from models.layers.patches import group
from tools import visualize

pytestmark = pytest.mark.slow


@pytest.fixture
def draw(command, run):
    def draw(picture, *argv, status=0):
        return run(visualize, picture, "--output", command.folder / "p.png", "--device", "cpu", *argv, status=status)

    return draw


def picture(command):
    image = matplotlib.image.imread(command.folder / "p.png")
    assert image.std() > 0.02
    return image


def config(command, name):
    return command.folder / "cfgs" / f"{name}.yaml"


def test_autoencoders_side_by_side_and_their_codes(command, draw):
    paths = []
    for name in ("one", "two"):
        command("autoencoder", "--exp_name", name, "--set", "max_epoch=0")
        paths.append(command.experiment("autoencoder", name) / "ckpt-last.pth")
    page = command.folder / "p.html"
    flags = ("--config", config(command, "autoencoder"), "--ckpts", *paths)
    draw("reconstructions", *flags, "--number", 2, "--html", page)
    height, width = picture(command).shape[:2]
    assert (height, width) == (2 * 660, 3 * 660)  # two objects; input, one, two; 2.2 inches at 300 dots
    assert "one" in page.read_text()
    out = draw("codes", *flags, "--number", 10).out
    used = re.findall(r"(one|two): (\d+) of 16 codes in use, perplexity ([\d.]+)", out)
    assert [name for name, _, _ in used] == ["one", "two"]
    assert all(1 <= float(perplexity) <= int(count) for _, count, perplexity in used)
    picture(command)


def test_features_before_and_after_and_attention(command, draw):
    command("finetune", "--scratch_model", "--set", "max_epoch=0")
    tuned = command.experiment("finetune") / "ckpt-last.pth"
    page = command.folder / "p.html"
    flags = ("--config", config(command, "finetune"), "--ckpts", "none", tuned, "--names", "before", "after")
    draw("features", *flags, "--number", 20, "--html", page)
    picture(command)
    assert "airplane" in page.read_text()
    draw("attention", *flags, "--number", 2)
    assert picture(command).shape[:2] == (2 * 660, 2 * 660)


def test_masking_of_i2p(command, draw):
    tiny = command.folder / "cfgs" / "i2p.yaml"
    config_read = yaml.safe_load((command.folder / "cfgs" / "pretrain.yaml").read_text())
    config_read["model"] = {
        "NAME": "I2P_MAE", "num_groups": [32, 16, 8], "group_sizes": [8, 4, 4], "encoder_depths": [1, 1, 1],
        "encoder_dims": [12, 24, 48], "decoder_dims": [48, 24], "num_heads": 3,
        "clip_config": {"visual_encoder": "vit_tiny_patch16_224", "feat_dim": 24, "pretrained": False,
                        "kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 2}}}
    tiny.write_text(yaml.safe_dump(config_read))
    command(tiny, "--set", "max_epoch=0")
    weights = next((command.folder / "work_dirs").rglob("ckpt-last.pth"))
    page = command.folder / "p.html"
    draw("masking", "--config", tiny, "--ckpts", weights, "--number", 2, "--html", page)
    assert picture(command).shape[:2] == (2 * 660, 7 * 660)
    assert "saliency" in page.read_text()
    draw("masking", "--config", tiny, "--ckpts", "none", "--number", 1)
    assert picture(command).shape[:2] == (660, 7 * 660)
    flags = ("--config", config(command, "pretrain"), "--ckpts", weights)
    assert "masking is drawn of an I2P_MAE" in draw("masking", *flags, status=2).err


def test_masked_and_visible_tokens_make_up_the_panels():
    torch.manual_seed(0)
    model = build_model_from_cfg({
        "NAME": "I2P_MAE", "num_groups": [32, 16, 8], "group_sizes": [8, 4, 4], "encoder_depths": [1, 1, 1],
        "encoder_dims": [12, 24, 48], "decoder_dims": [48, 24], "num_heads": 3, "mask_type": "rand",
        "loss_2d": False}).eval()
    points = torch.randn(64, 3)
    with torch.no_grad():
        panels = visualize.masking_panels(model, points)
    assert np.array_equal(panels["input"], points.numpy())
    assert "saliency" not in panels  # there is no image model
    drawn = panels["visible, predicted (blue)"]
    assert drawn.shape == (16 * 4, 4)  # all patches of the middle scale
    visible = drawn[drawn[:, 3] == 1, :3]
    assert 4 <= len(visible) < 64
    assert all((points.numpy() == point).all(1).any() for point in visible)
    image = panels["z over x, y"]
    assert image.shape == (224, 224)
    assert np.median(image) == 0.5  # nothing is there
    assert image.max() > 0.6


def test_attention_is_that_of_the_class_token():
    torch.manual_seed(0)
    model = build_model_from_cfg({"NAME": "PointTransformer", "embed_dim": 24, "depth": 2, "num_heads": 3,
                                  "encoder_dims": 24, "cls_dim": 5, "group_size": 8, "num_group": 8}).eval()
    neighborhood, center = group(torch.rand(2, 64, 3), 8, 8)
    with torch.no_grad():
        attention = model.class_attention(neighborhood, center)
        seen = []
        attend = torch.nn.functional.scaled_dot_product_attention

        def record(q, k, v, bias=None):
            seen.append((q @ k.transpose(-1, -2) / np.sqrt(8)).softmax(-1))
            return attend(q, k, v)

        torch.nn.functional.scaled_dot_product_attention = record
        try:
            model.features(neighborhood, center)
        finally:
            torch.nn.functional.scaled_dot_product_attention = attend
    torch.testing.assert_close(attention, seen[-1].mean(1)[:, 0, 1:])
    assert (attention.sum(1) < 1).all()


def test_a_picture_of_another_kind_of_model(command, draw):
    command("finetune", "--scratch_model", "--set", "max_epoch=0")
    tuned = command.experiment("finetune") / "ckpt-last.pth"
    err = draw("codes", "--config", config(command, "finetune"), "--ckpts", tuned, status=2).err
    assert "PointTransformer, which is no autoencoder of stage I" in err


def test_mistakes(command, draw, monkeypatch):
    command("finetune", "--scratch_model", "--set", "max_epoch=0")
    tuned = command.experiment("finetune") / "ckpt-last.pth"
    flags = ("--config", config(command, "finetune"), "--ckpts")
    assert "there are 2 --ckpts" in draw("features", *flags, tuned, tuned, status=2).err
    assert "has room for 32 at most" in draw("attention", *flags, tuned, "--number", 33, status=2).err
    assert "--html is for reconstructions" in draw("codes", *flags, tuned, "--html", "p.html", status=2).err
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert "pip install plotly" in draw("attention", *flags, tuned, "--html", "p.html", status=2).err
    assert "is damaged or not a checkpoint" in draw("codes", *flags, config(command, "finetune"), status=2).err


def test_targets_of_both_stages(command, draw):
    command("autoencoder", "--set", "max_epoch=0")
    stage1 = command.experiment("autoencoder") / "ckpt-last.pth"
    command("pretrain", "--set", "max_epoch=0", f"model.dvae_config.ckpt={stage1}", "model.dvae_config.teacher_layer=0")
    stage2, page = command.experiment("pretrain") / "ckpt-last.pth", command.folder / "p.html"
    flags = ("--config", config(command, "pretrain"), "--number", 12, "--set", "model.dvae_config.teacher_layer=0")
    out = draw("targets", *flags, "--ckpts", stage2, "--html", page).out
    rows = {line.split("  ")[0]: [float(value) for value in line.split()[-5:]] for line in out.splitlines()[1:5]}
    assert list(rows) == ["before dgcnn_2", "after dgcnn_2", "block 0", "student"]
    assert all(0 < mean < 1 and 0 < between < 1 and 1 <= rank <= 24 for mean, _, between, _, rank in rows.values())
    assert picture(command).shape[1] == pytest.approx(300 * (1.9 * 5 + 1.5), abs=2)
    assert "rgb(" in page.read_text()

    model = command.folder / "cfgs" / "pretrain.yaml"
    model.write_text(model.read_text().replace("    num_group", f"    ckpt: {stage1}\n    num_group"))
    untrained = draw("targets", *flags, "--ckpts", "none").out.splitlines()[1:5]
    assert untrained[:3] == out.splitlines()[1:4]  # the same teacher
    assert untrained[3] != out.splitlines()[4]
    alone = draw("targets", "--config", config(command, "autoencoder"), "--ckpts", stage1, "--number", 12).out
    assert [line.split("  ")[0] for line in alone.splitlines()[1:3]] == ["before dgcnn_2", "after dgcnn_2"]
