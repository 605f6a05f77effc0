"""A run's config.yaml holds every key, so that it makes the same run when defaults have changed."""
import warnings

import pytest
import torch
import yaml

from models.act.classifier import PointTransformer
from models.act.distillation import ACT_PointDistillation
from tools.engine.resolve import resolve, same_run
from utils import checkpoint
from utils.config import load_config
from utils.errors import ConfigError
from utils.registry import schema_of


@pytest.fixture
def changed_default(monkeypatch):
    """Change a default of a class for the test: ``changed_default(cls, key=value)``."""
    def change(cls, **defaults):
        monkeypatch.setattr(cls.__init__, "__kwdefaults__", {**cls.__init__.__kwdefaults__, **defaults})
        schema_of.cache_clear()

    yield change
    monkeypatch.undo()
    schema_of.cache_clear()


def resolved(command, name, *overrides):
    path = command.folder / "cfgs" / f"{name}.yaml"
    return resolve(load_config(path, overrides), path)


def test_every_key_has_its_value(command):
    config = resolved(command, "finetune")
    assert config.model == {
        "NAME": "PointTransformer", "embed_dim": 24, "depth": 2, "num_heads": 2, "drop_path_rate": 0.1,
        "encoder_dims": 24, "cls_dim": 20, "group_size": 8, "num_group": 8, "transfer_type": "full",
        "head_only": False}
    assert config.dataset.train == {
        "_base_": {"NAME": "Shapes", "samples_per_class": None, "data_seed": 0},
        "others": {"subset": "train", "npoints": 64, "size": 20}}
    assert config.optimizer == {
        "type": "AdamW", "kwargs": {"lr": 0.001, "weight_decay": 0.05, "betas": [0.9, 0.999], "eps": 1e-8},
        "layer_decay": 1}
    assert (config.train_transforms, config.test_transforms) == (["Rotate"], ["ScaleAndTranslate"])
    assert (config.vote, config.step_per_update) == ({"times": 10, "rounds": 299}, 1)


def test_nested_sections_and_the_teacher_too(command):
    model = resolved(command, "pretrain").model
    assert model.transformer_config.mask_ratio == 0.8
    assert (model.dvae_config.NAME, model.dvae_config.teacher_codes) == ("ACTPromptedDiscreteVAEwithVIT", "gumbel")
    assert model.dvae_config.dgcnn_dims == [128, 256, 512, 512, 1024]  # of DiscreteVAE, its class's parent


@pytest.mark.parametrize(("name", "override", "message"), [
    ("finetune", "model.depht=3", r"finetune.yaml: unknown key 'model.depht' \(did you mean 'depth'\?\)"),
    ("finetune", "model.depth='3'", "finetune.yaml: model.depth is '3'; it must be a whole number of at least 1"),
    ("finetune", "model.depth=true", "model.depth is True; it must be a whole number"),
    ("finetune", "model.head_only=1", "model.head_only is 1; it must be true or false"),
    ("finetune", "dataset.val.others.npoints=0", "dataset.val.npoints is 0; it must be a whole number of at least 1"),
    ("finetune", "dataset.val.others.sizes=9", r"unknown key 'dataset.val.sizes' \(did you mean 'size'\?\)"),
    ("pretrain", "model.dvae_config.num_tokens=0", "pretrain.yaml: model.dvae_config.num_tokens is 0; it must be"),
    ("pretrain", "model.dvae_config.teacher_mode=trian", r"mode 'trian' is not one of eval, train \(did you mean 'tr"),
    ("pretrain", "model.dvae_config.teacher_code=soft", r"teacher_code' \(did you mean 'teacher_codes'\?\)"),
    ("pretrain", "model.dvae_config.visual_embed_kwargs={1: 2}", "pretrain.yaml: key 1 is not a text; write it in qu"),
    ("pretrain", "model.transformer_config=3", "model.transformer_config is 3; it must be a section of embed_dim, "),
    ("autoencoder", "model.num_group=null", "model.num_group is None; it must be a whole number of at least 1"),
    ("autoencoder", "model.code_noise=.nan", "model.code_noise is nan; it must be a number of at least 0"),
])
def test_wrong_keys_are_said_in_one_line(command, name, override, message):
    with pytest.raises(ConfigError, match=message) as error:
        resolved(command, name, override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["autoencoder", "pretrain", "finetune"])
def test_print_config_prints_what_config_yaml_holds(command, name):
    flags = ("--scratch_model",) if name == "finetune" else ()
    printed = command(name, "--print_config", *flags, "--set", "max_epoch=0").out
    assert not (command.folder / "work_dirs").exists()
    path = command.folder / "cfgs" / f"{name}.yaml"
    assert yaml.safe_load(printed) == resolve(load_config(path, ["max_epoch=0"]), path)
    assert resolve(yaml.safe_load(printed), path) == yaml.safe_load(printed)


def test_an_older_run_makes_the_same_run_when_a_default_has_changed(command, changed_default):
    command("finetune", "--scratch_model", "--set", "max_epoch=0")
    saved = command.experiment("finetune") / "config.yaml"
    old = checkpoint.read(command.experiment("finetune") / "ckpt-last.pth")
    changed_default(PointTransformer, drop_path_rate=1.0, transfer_type="mlp-3")
    assert resolved(command, "finetune").model.transfer_type == "mlp-3"
    command(saved, "--scratch_model")
    again = checkpoint.read(next((command.folder / "work_dirs" / "config").rglob("ckpt-last.pth")))
    assert again["notes"]["model"] == old["notes"]["model"]
    assert all(torch.equal(again["base_model"][key], value) for key, value in old["base_model"].items())


def test_a_changed_default_does_make_another_run(command, changed_default):
    """The counterpart of the test before: what it changes has an effect."""
    command("finetune", "--scratch_model", "--set", "max_epoch=0")
    old = checkpoint.read(command.experiment("finetune") / "ckpt-last.pth")["base_model"]
    changed_default(PointTransformer, transfer_type="mlp-3")
    command("finetune", "--scratch_model", "--set", "max_epoch=0", "--exp_name", "changed")
    new = checkpoint.read(command.experiment("finetune", "changed") / "ckpt-last.pth")["base_model"]
    assert not all(torch.equal(new[key], value) for key, value in old.items())


def test_runs_are_compared_with_the_defaults_of_their_time(command, changed_default):
    before = resolved(command, "pretrain")
    changed_default(ACT_PointDistillation, loss="l2")
    assert not same_run(before, resolved(command, "pretrain"))
    assert same_run(before, resolved(command, "pretrain", "model.loss=cosine"))


def test_class_names_decide_the_number_of_outputs(command, tmp_path):
    """Where folders decide it, ``cls_dim`` is no difference between runs."""
    base = {"NAME": "PointFolder", "DATA_PATH": str(tmp_path)}
    one = resolved(command, "finetune")
    one.dataset = {split: {"_base_": base, "others": {"subset": "train"}} for split in ("train", "val")}
    other = {**one, "model": {**one.model, "cls_dim": 3}}
    assert same_run(one, other)
    assert not same_run(one, {**other, "total_bs": 3})


def test_a_teacher_is_built_of_the_resolved_section(command):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = command("pretrain", "--set", "max_epoch=0")
    assert "encoder_dims is not used" not in out.err
    notes = checkpoint.read(command.experiment("pretrain") / "ckpt-last.pth")["notes"]["model"]
    assert notes["transformer_config"]["mask_type"] == "rand"
    assert notes["dvae_config"]["num_prompt_token"] == 2
