"""The config files hold the published values; the table is written by hand, not read from the files."""
import pathlib

import pytest
import yaml

from datasets import DATASETS
from datasets.procedural.objects import RECIPES
from tools.engine.resolve import resolve
from utils.config import load_config

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "cfgs").rglob("*.yaml"))
RUNS = [name for name in FILES if "/dataset_configs/" not in name]

SCHEDULE = {"optimizer.type": "AdamW", "scheduler.type": "CosLR", "scheduler.kwargs.epochs": 300,
            "scheduler.kwargs.initial_epochs": 10, "max_epoch": 300, "step_per_update": 1}
SHAPENET = {"NAME": "ShapeNet", "DATA_PATH": "data/ShapeNet55-34/ShapeNet-55",
            "PC_PATH": "data/ShapeNet55-34/shapenet_pc", "N_POINTS": 8192}
MODELNET = {"NAME": "ModelNet", "DATA_PATH": "data/ModelNet/modelnet40_normal_resampled", "N_POINTS": 8192,
            "NUM_CATEGORY": 40, "USE_NORMALS": False}
STAGE_ONE = SCHEDULE | {
    "optimizer.kwargs.lr": 5e-4, "optimizer.kwargs.weight_decay": 5e-4, "total_bs": 64, "grad_norm_clip": 10,
    "consider_metric": "CDL1", "temp": {"start": 1, "target": 0.0625, "ntime": 100000},
    "kldweight": {"start": 0, "target": 0.1, "ntime": 100000, "offset": 10000},
    "dataset.train": {"_base_": SHAPENET, "others": {"subset": "train", "npoints": 1024}},
    "dataset.val": {"_base_": SHAPENET, "others": {"subset": "test", "npoints": 1024}},
    "dataset.test": {"_base_": SHAPENET, "others": {"subset": "test", "npoints": 1024}},
}
TEACHER = {
    "visual_embed_type": "vit_base_patch16_384", "visual_embed_dim": 768, "visual_embed_pos": "after_dgcnn1",
    "visual_embed_pretrained": True, "freeze_visual_embed": True, "num_prompt_token": 64, "use_deep_prompt": True,
    "num_group": 64, "group_size": 32, "num_tokens": 8192, "encoder_dims": 384, "tokens_dims": 384,
    "decoder_dims": 384,
}
CLASSIFIER = {"NAME": "PointTransformer", "embed_dim": 384, "depth": 12, "drop_path_rate": 0.1, "cls_dim": 40,
              "num_heads": 6, "group_size": 32, "num_group": 64, "encoder_dims": 384, "transfer_type": "full"}
FINE_TUNING = SCHEDULE | {
    "optimizer.kwargs.lr": 5e-4, "optimizer.kwargs.weight_decay": 0.05, "total_bs": 32, "grad_norm_clip": 10,
    "npoints": 1024, "model": CLASSIFIER, "dataset.train": {"_base_": MODELNET, "others": {"subset": "train"}},
    "dataset.val": {"_base_": MODELNET, "others": {"subset": "test"}},
}
PUBLISHED = {
    "autoencoder/act_dvae_with_pretrained_transformer.yaml":
        STAGE_ONE | {"model": {"NAME": "ACTPromptedDiscreteVAEwithVIT"} | TEACHER},
    "autoencoder/pointbert_dvae.yaml":
        STAGE_ONE | {"model": {"NAME": "DiscreteVAE", "num_group": 64, "group_size": 32, "num_tokens": 8192,
                               "encoder_dims": 256, "tokens_dims": 256, "decoder_dims": 256}},
    "pretrain/pretrain_act_distill.yaml": SCHEDULE | {
        "optimizer.kwargs.lr": 1e-3, "optimizer.kwargs.weight_decay": 0.05, "total_bs": 128,
        "dataset.train": {"_base_": SHAPENET, "others": {"subset": "train", "npoints": 1024, "whole": True}},
        "dataset.extra_train": {"_base_": MODELNET, "others": {"subset": "train", "npoints": 1024}},
        "dataset.val": {"_base_": MODELNET, "others": {"subset": "test", "npoints": 1024}},
        "model": {
            "NAME": "ACT_PointDistillation", "loss": "cosine",
            "transformer_config": {
                "mask_ratio": 0.8, "mask_type": "rand", "proj": "linear", "embed_dim": 384, "encoder_dims": 384,
                "depth": 12, "drop_path_rate": 0.1, "cls_dim": 512, "replace_pob": 0, "num_heads": 6,
                "decoder_depth": 2, "decoder_num_heads": 6, "return_all_tokens": False, "cls_loss": False,
                "register_shallow_hook": 9},
            "dvae_config": TEACHER | {"ckpt": "model_zoo/ckpt_act_dvae.pth"}}},
}
SCAN = "data/ScanObjectNN/h5_files/main_split"
FEW_SHOT = MODELNET | {"NAME": "ModelNetFewShot", "DATA_PATH": "data/ModelNetFewshot"}
DATA = {  # data set → its keys, points, groups, classes, epochs
    "modelnet": (MODELNET, 1024, 64, 40, 300), "modelnet_8k": (MODELNET, 8192, 512, 40, 300),
    "scan_hardest": ({"NAME": "ScanObjectNN_hardest", "ROOT": SCAN}, 2048, 128, 15, 300),
    "scan_objbg": ({"NAME": "ScanObjectNN", "ROOT": SCAN}, 2048, 128, 15, 300),
    "scan_objonly": ({"NAME": "ScanObjectNN", "ROOT": f"{SCAN}_nobg"}, 2048, 128, 15, 300),
    "few_shot": (FEW_SHOT, 1024, 64, 40, 150),
}
for data, (base, npoints, groups, classes, epochs) in DATA.items():
    for kind, suffix, rate in (("full", "", 5e-4), ("linear", "_linear", 1e-3), ("mlp-3", "_mlp3", 1e-3)):
        folder = "few_shot" if data == "few_shot" else kind.replace("-", "")
        name = "fewshot_modelnet" if data == "few_shot" else f"finetune_{data}"
        PUBLISHED[f"finetune_classification/{folder}/{name}{suffix}.yaml"] = FINE_TUNING | {
            "optimizer.kwargs.lr": rate, "npoints": npoints, "max_epoch": epochs, "scheduler.kwargs.epochs": epochs,
            "model": CLASSIFIER | {"num_group": groups, "cls_dim": classes, "transfer_type": kind},
            **{f"dataset.{split}": {"_base_": base, "others": {"subset": subset}}
               for split, subset in (("train", "train"), ("val", "test"), ("test", "test"))}}


HDF5 = {"NAME": "ModelNetHDF5", "DATA_PATH": "data/ModelNet/modelnet40_ply_hdf5_2048"}
HIERARCHY = {"num_groups": [512, 256, 64], "encoder_depths": [5, 5, 5], "encoder_dims": [96, 192, 384],
             "drop_path_rate": 0.1, "num_heads": 6}
PUBLISHED["pre-training/i2p-mae.yaml"] = SCHEDULE | {
    "optimizer.kwargs.lr": 1e-3, "optimizer.kwargs.weight_decay": 0.05, "scheduler.kwargs.epochs": 400, "total_bs": 64,
    "train_transforms": ["ScaleAndTranslate"],
    "dataset.train": {"_base_": SHAPENET, "others": {"subset": "train", "npoints": 2048, "whole": True}},
    "dataset.extra_train": {"_base_": HDF5, "others": {"subset": "train"}},
    "dataset.val": {"_base_": HDF5, "others": {"subset": "test"}},
    "model": HIERARCHY | {
        "NAME": "I2P_MAE", "mask_ratio": 0.8, "mask_type": "guided", "loss_2d": True, "group_sizes": [16, 8, 8],
        "local_radius": 0, "decoder_depths": [1, 1], "decoder_dims": [384, 192], "decoder_up_blocks": [1, 1],
        "clip_config": {"visual_encoder": "ViT-B/16", "feat_dim": 512, "pretrained": True}}}
I2P_DATA = {  # config → data set, its points, groups, radii, classes
    "modelnet40": (MODELNET, 1024, [48, 24, 24], [0.24, 0.48, 0.96], 40),
    "scan_obj-bg": (DATA["scan_objbg"][0], 2048, [32, 16, 16], [0.32, 0.64, 1.28], 15),
    "scan_obj": (DATA["scan_objonly"][0], 2048, [32, 16, 16], [0.32, 0.64, 1.28], 15),
    "scan_pb": (DATA["scan_hardest"][0], 2048, [32, 16, 16], [0.48, 0.96, 1.92], 15),
}
for name, (base, npoints, sizes, radii, classes) in I2P_DATA.items():
    modelnet = name == "modelnet40"
    PUBLISHED[f"fine-tuning/{name}.yaml"] = SCHEDULE | {
        "optimizer.kwargs.lr": 5e-4, "optimizer.kwargs.weight_decay": 0.05, "total_bs": 32, "npoints": npoints,
        "train_transforms": ["ScaleAndTranslate"] if modelnet else ["Scale", "Rotate"],
        "model": HIERARCHY | {
            "NAME": f"I2P_MAE_{'ModelNet40' if modelnet else 'ScanObjectNN'}", "group_sizes": sizes,
            "local_radius": radii, "cls_dim": classes, **({"smooth": 0.2} if modelnet else {})},
        **{f"dataset.{split}": {"_base_": base, "others": {"subset": subset}}
           for split, subset in (("train", "train"), ("val", "test"), ("test", "test"))}}
for name, base, cost in (("modelnet40", HDF5, 0.0093), ("scan_obj-bg", DATA["scan_objbg"][0], 0.018)):
    PUBLISHED[f"linear-svm/{name}.yaml"] = {
        "total_bs": 64, "probe.svc_c": [cost], "model.NAME": "I2P_MAE", "model.group_sizes": [16, 8, 8],
        "dataset.extra_train": {"_base_": base, "others": {"subset": "train"}},
        "dataset.val": {"_base_": base, "others": {"subset": "test"}}}


def value_at(config, path):
    for key in path.split("."):
        config = config[key]
    return config


@pytest.mark.parametrize(("name", "key", "value"), [
    (name, key, value) for name, values in PUBLISHED.items() for key, value in values.items()])
def test_published_value(name, key, value):
    assert value_at(load_config(ROOT / "cfgs" / name), key) == value


def test_every_published_file_is_there():
    assert set(PUBLISHED) <= {name.removeprefix("cfgs/") for name in FILES}


@pytest.mark.parametrize("name", RUNS)
def test_config_is_read_and_its_keys_are_taken(name):
    config = resolve(load_config(ROOT / name), name)
    assert resolve(config, name) == config


@pytest.mark.parametrize("name", [name for name in FILES if "/dataset_configs/" in name])
def test_dataset_config_names_a_dataset(name):
    assert yaml.safe_load((ROOT / name).read_text())["NAME"] in DATASETS.classes


@pytest.mark.parametrize("name", [name for name in RUNS if "/demo/" in name and "finetune" not in name])
def test_demo_schedules_end_with_the_run(name):
    config = load_config(ROOT / name)
    assert config.max_epoch == config.scheduler.kwargs.epochs - 1
    if "temp" in config:
        steps = config.scheduler.kwargs.epochs * (config.dataset.train.others["size"] // config.total_bs)
        assert config.temp.ntime <= steps
        assert config.kldweight.offset + config.kldweight.ntime <= steps


def test_demo_stages_fit_together():
    stage_one, stage_two, classifier = (load_config(ROOT / f"cfgs/demo/{name}.yaml").model
                                        for name in ("autoencoder", "pretrain", "finetune"))
    teacher = {key: value for key, value in stage_two.dvae_config.items()
               if key not in ("ckpt", "teacher_codes", "teacher_target")}
    assert teacher == {key: value for key, value in stage_one.items() if key != "NAME"}
    student = stage_two.transformer_config
    for key in ("embed_dim", "depth", "num_heads", "encoder_dims"):
        assert classifier[key] == student[key], key
    assert (classifier.num_group, classifier.group_size) == (teacher["num_group"], teacher["group_size"])
    assert teacher["encoder_dims"] == student.encoder_dims
    assert classifier.cls_dim == len(RECIPES)
