"""Tiny configs of every stage, and a way to run the commands inside the test process."""
import logging
import pathlib
import sys

import pytest
import torch
import yaml

import main as main_command
import main_autoencoder as autoencoder_command
from utils.command import run_command

SHAPES = {"NAME": "Shapes"}
DVAE = {"visual_embed_type": "vit_tiny_patch16_224", "visual_embed_dim": 24, "visual_embed_pretrained": False,
        "visual_embed_kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 2}, "num_prompt_token": 2, "num_group": 8,
        "group_size": 8, "num_tokens": 16, "encoder_dims": 24, "tokens_dims": 24, "decoder_dims": 24}


def split(subset, size=20, base=SHAPES, **others):
    return {"_base_": dict(base), "others": {"subset": subset, "npoints": 64, "size": size, **others}}


def common(**sections):
    return {"optimizer": {"type": "AdamW", "kwargs": {"lr": 0.001, "weight_decay": 0.05}},
            "scheduler": {"type": "CosLR", "kwargs": {"epochs": 2, "initial_epochs": 0}},
            "total_bs": 10, "max_epoch": 1, **sections}


CONFIGS = {
    "autoencoder": common(
        dataset={"train": split("train"), "val": split("test")},
        model={"NAME": "ACTPromptedDiscreteVAEwithVIT", **DVAE},
        temp={"start": 1, "target": 0.0625, "ntime": 4}, kldweight={"start": 0, "target": 0.01, "ntime": 4},
        grad_norm_clip=10, consider_metric="CDL1"),
    "pretrain": common(
        dataset={"train": split("train"), "extra_train": split("train"), "val": split("test")},
        model={"NAME": "ACT_PointDistillation", "dvae_config": dict(DVAE), "transformer_config": {
            "embed_dim": 24, "encoder_dims": 24, "depth": 2, "num_heads": 2, "cls_dim": 8, "decoder_depth": 1,
            "decoder_num_heads": 2}}),
    "finetune": common(
        dataset={"train": split("train"), "val": split("test")},
        model={"NAME": "PointTransformer", "embed_dim": 24, "encoder_dims": 24, "depth": 2, "num_heads": 2,
               "cls_dim": 20, "group_size": 8, "num_group": 8},
        npoints=64, grad_norm_clip=10),
}


class Commands:
    """Runs ``main.py`` or ``main_autoencoder.py`` on one of the tiny configs, in a folder of the test's own."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        (folder / "cfgs").mkdir()
        for name, config in CONFIGS.items():
            (folder / "cfgs" / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def experiment(self, name, exp_name="default"):
        """Return the folder of an experiment with a tiny config."""
        return self.folder / "work_dirs" / name / "cfgs" / exp_name

    def __call__(self, name, *flags, status=0):
        """Run config ``name``, or the one in a file, with ``flags`` and return (stdout, stderr); assert the status."""
        module = autoencoder_command if name == "autoencoder" else main_command
        config = name if isinstance(name, pathlib.Path) else self.folder / "cfgs" / f"{name}.yaml"
        argv = [module.__name__, "--config", str(config), "--work_dir",
                f"{self.folder}/work_dirs", "--num_workers", "0", "--device", "cpu", *map(str, flags)]
        self.monkeypatch.setattr(sys, "argv", argv)
        got = 0
        try:
            run_command(module.main)
        except SystemExit as stop:
            got = stop.code
        for handler in list(logging.getLogger("act").handlers):
            handler.close()
            logging.getLogger("act").removeHandler(handler)
        out = self.capsys.readouterr()
        assert got == status, out.err
        return out


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield Commands(tmp_path, monkeypatch, capsys)
    torch.use_deterministic_algorithms(deterministic)
