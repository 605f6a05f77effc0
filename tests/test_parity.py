"""What the published code computes, case by case. Tolerances hold across machines and are never to be loosened.

Every ``.npz`` in the folder that the environment variable ``PARITY_DIR`` names (default: tests/data/parity), and in
its sub-folders, is a case; a kind that is not known here fails.
"""
import json
import os
import pathlib
import tempfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from easydict import EasyDict
from parity_recipe import cloud, fill, load_case

from models import build_model_from_cfg
from models.i2p_mae.projection import Projection
from models.layers.patches import group
from tools.engine.optim import build_optimizer, build_scheduler, cosine_ramp
from utils import checkpoint
from utils.config import load_config
from utils.schema import Optimizer, Scheduler

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
CASES = pathlib.Path(os.environ.get("PARITY_DIR", HERE / "data" / "parity"))
DATA = HERE / "data" / "parity"


def close(actual, expected, tolerance=1e-4):
    """Assert equality within ``tolerance`` of the expected array's largest magnitude."""
    actual = torch.as_tensor(actual).detach().numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def same(actual, expected):
    """Assert equality in at least 99.5 % of places."""
    actual = actual.numpy()
    assert actual.shape == expected.shape
    assert (actual == expected).mean() >= 0.995


def gradients(model, loss, arrays):
    """Assert the gradient norm of every parameter that the case lists."""
    loss.backward()
    expected = {key.removeprefix("grad_norm/"): value for key, value in arrays.items() if key.startswith("grad_norm/")}
    assert expected
    parameters = dict(model.named_parameters())
    for name, value in expected.items():
        assert parameters[name].grad is not None, name
        assert parameters[name].grad.norm().item() == pytest.approx(float(value), rel=2e-3), name


def check_dvae(meta, arrays, monkeypatch):
    model = fill(build_model_from_cfg(EasyDict(meta["config"]))).eval()
    points = cloud(meta["seed"], meta["batch"], meta["points"])
    neighborhood, center = group(points, model.num_group, model.group_size)
    with torch.no_grad():
        out = model(points)
        close(out["recon_loss"], arrays["eval_recon_loss"])
        close(out["kld_loss"], arrays["eval_kld_loss"])
        same(out["codes"], arrays["codes"])
        close(out["whole_fine"], arrays["whole_fine"])
        close(model.teacher_features(neighborhood, center, "argmax"), arrays["teacher_feature"])
        if "teacher_feature_before_dgcnn2" in arrays:
            before = model.teacher_features(neighborhood, center, "argmax", after_dgcnn2=False)
            close(before, arrays["teacher_feature_before_dgcnn2"])
        if "logits_slice" in arrays:
            rows, columns = arrays["logits_slice"].shape[1:]
            close(out["logits"][:, :rows, :columns], arrays["logits_slice"])
        if "logits" in arrays:
            close(neighborhood, arrays["neighborhood"])
            close(center, arrays["center"])
            close(out["logits"], arrays["logits"])
            close(out["whole_coarse"], arrays["whole_coarse"])
    if "train_recon_loss" in arrays:
        check_dvae_training(model, points, meta, arrays, monkeypatch)


def check_dvae_training(model, points, meta, arrays, monkeypatch):
    monkeypatch.setattr(F, "gumbel_softmax", lambda logits, tau, dim: F.softmax(logits / tau, dim))
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    out = model(points, meta["tau"], meta["kld_weight"])
    close(out["recon_loss"], arrays["train_recon_loss"])
    close(out["kld_loss"], arrays["train_kld_loss"])
    close(out["logits"].mean(), arrays["train_logits_mean"])
    _, center = group(points, model.num_group, model.group_size)
    fine = out["whole_fine"].unflatten(1, (model.num_group, -1)) - center.unsqueeze(2)
    close(fine.abs().mean(), arrays["train_fine_mean_abs"])
    gradients(model, out["loss"], arrays)


def check_distill(meta, arrays, monkeypatch):
    with pytest.warns(UserWarning, match="untrained"):
        model = build_model_from_cfg(EasyDict(meta["config"]))
    fill(model, "dvae_tokenizer.").eval()
    out = model(cloud(meta["seed"], meta["batch"], meta["points"]), mask=torch.from_numpy(arrays["mask"]))
    close(out["loss"], arrays["eval_loss"])
    close(out["encoder_visible"], arrays["encoder_visible"])
    gradients(model, out["loss"], arrays)


def check_classify(meta, arrays, monkeypatch):
    """What a classifier computes, after a way through every form of checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/c.pth"
        weights = fill(build_model_from_cfg(EasyDict(meta["config"]))).state_dict()
        checkpoint.save({"base_model": {f"module.{key}": value for key, value in weights.items()}}, path)
        checkpoint.save({"base_model": checkpoint.read_weights(path)}, f"{folder}/c.safetensors")
        model = build_model_from_cfg(EasyDict(meta["config"])).eval()
        report = checkpoint.load_model(model, checkpoint.read_weights(f"{folder}/c.safetensors"), path, complete=True)
    assert f"{len(weights)} of {len(weights)} weights match" in report
    points = cloud(meta["seed"], meta["batch"], meta["points"])
    out = model(points, torch.from_numpy(arrays["label"]))
    close(out["logits"], arrays["logits"])
    close(out["loss"], arrays["loss"])
    close(out["acc"], arrays["acc"])
    if "trainable" in meta:
        assert {name for name, p in model.named_parameters() if p.requires_grad} == set(meta["trainable"])
    gradients(model, out["loss"], arrays)


def check_segmentation(meta, arrays, monkeypatch):
    parts = meta["kind"] == "part_segmentation"
    config = {"NAME": "PointSegmenter", "num_categories": 16 if parts else 0, **meta["config"]}
    model = fill(build_model_from_cfg(config)).eval()
    category = torch.tensor([5]) if parts else None
    with torch.no_grad():
        log_prob = model(cloud(meta["seed"], meta["batch"], meta["points"]), category=category)["log_prob"]
    close(log_prob[:, ::8], arrays["log_prob"])
    same(log_prob.argmax(-1), arrays["pred"])


class GivenImageModel(torch.nn.Module):
    """Gives the features and the class attention that an I2P-MAE case tells."""

    def __init__(self, meta):
        super().__init__()
        random, width = np.random.RandomState(meta["seed"] + 1), meta["config"]["clip_config"]["feat_dim"]
        features = random.standard_normal((3 * meta["batch"], width, 14, 14))
        attention = np.abs(random.standard_normal((3 * meta["batch"], 14, 14)))
        self.outputs = [torch.from_numpy(array.astype(np.float32)) for array in (features, attention)]

    def forward(self, images):
        return self.outputs


def check_i2p_pretrain(meta, arrays, monkeypatch):
    monkeypatch.setattr("models.i2p_mae.model.build_image_model", lambda keys: GivenImageModel(meta))
    config = {**meta["config"], "first_token_visible": True}  # the published masks of finer scales
    model = fill(build_model_from_cfg(EasyDict(config))).eval()
    points = cloud(meta["seed"], meta["batch"], meta["points"])
    close(Projection(points).depth_images()[:, 0, ::4, ::4], arrays["image_view"])
    with torch.no_grad():
        close(model.forward_features(points), arrays["svm_feature"])
    out = model(points, torch.from_numpy(arrays["mask"]))
    close(out["saliency"], arrays["spatial_saliency"])
    close(out["loss_3d"], arrays["loss_3d"])
    close(out["loss_2d"], arrays["loss_2d"])
    gradients(model, out["loss"], arrays)


KINDS = {"dvae": check_dvae, "distill": check_distill, "classify": check_classify, "i2p_pretrain": check_i2p_pretrain,
         "semantic_segmentation": check_segmentation, "part_segmentation": check_segmentation}


@pytest.mark.parametrize("path", sorted(CASES.rglob("*.npz")), ids=lambda path: path.stem)
def test_case(path, monkeypatch):
    meta, arrays = load_case(path)
    assert meta["kind"] in KINDS, f"{path}: kind '{meta['kind']}' is not known"
    KINDS[meta["kind"]](meta, arrays, monkeypatch)


def test_there_are_cases():
    assert list(CASES.rglob("*.npz"))


CONFIGS = {
    "get_model (semantic_segmentation)": "semantic_segmentation/s3dis",
    "get_model (part_segmentation)": "part_segmentation/shapenetpart",
    "DiscreteVAE (pointbert_dvae.yaml)": "autoencoder/pointbert_dvae",
    "ACTPromptedDiscreteVAEwithVIT (act_dvae_with_pretrained_transformer.yaml)":
        "autoencoder/act_dvae_with_pretrained_transformer",
    "ACT_PointDistillation (pretrain_act_distill.yaml)": "pretrain/pretrain_act_distill",
    "PointTransformer (finetune_scan_hardest.yaml)": "finetune_classification/full/finetune_scan_hardest",
    "PointTransformer (finetune_modelnet.yaml)": "finetune_classification/full/finetune_modelnet",
    "PointTransformer (finetune_modelnet_linear.yaml)": "finetune_classification/linear/finetune_modelnet_linear",
    "PointTransformer (finetune_modelnet_mlp3.yaml)": "finetune_classification/mlp3/finetune_modelnet_mlp3",
    "I2P_MAE (i2p-mae.yaml), without clip_model.*": "pre-training/i2p-mae",
    "I2P_MAE_ModelNet40": "fine-tuning/modelnet40",
    "I2P_MAE_ScanObjectNN": "fine-tuning/scan_pb",
}


@pytest.mark.filterwarnings("ignore:model.dvae_config.ckpt")
@pytest.mark.parametrize("name", CONFIGS)
def test_state_dict_of_the_published_config(name):
    config = load_config(ROOT / "cfgs" / f"{CONFIGS[name]}.yaml").model
    for section in (config, config.get("dvae_config", {})):
        if "visual_embed_pretrained" in section:
            section.visual_embed_pretrained = False
        section.pop("ckpt", None)
    if "clip_config" in config:
        config.clip_config.pretrained = False
    with torch.device("meta") if "Distill" not in name else torch.device("cpu"):
        model = build_model_from_cfg(config)
    published = json.loads((DATA / "state_dicts.json").read_text())
    expected = {key: value if isinstance(value, dict) else {"shape": value[0], "dtype": value[1]}
                for key, value in published["state_dict"][name].items()}
    own = {key: [list(value.shape), str(value.dtype).removeprefix("torch.")]
           for key, value in model.state_dict().items()}
    assert own == {key: [value["shape"], value["dtype"]] for key, value in expected.items()}
    trained = published["trainable"].get(name, published["trainable"].get(name.split(" ")[0]))
    if trained is not None:
        assert {key for key, p in model.named_parameters() if p.requires_grad} == set(trained)


STUDENT = "ACT_PointDistillation (pretrain_act_distill.yaml)"
I2P = "I2P_MAE (i2p-mae.yaml), without clip_model.*"
RELEASED = [  # the released file, the config it is given to, and how much of the model it must fill
    ("ACTPromptedDiscreteVAEwithVIT (act_dvae_with_pretrained_transformer.yaml)",
     "autoencoder/act_dvae_with_pretrained_transformer", "{all} of {all} weights match, 0 missing"),
    (STUDENT, "finetune_classification/full/finetune_scan_hardest", "{but_head} of {all} weights match, 16 missing"),
    (STUDENT, "finetune_classification/linear/finetune_modelnet_linear", "{all_but_2} of {all} weights match, 2 miss"),
    ("PointTransformer (finetune_scan_hardest.yaml)", "finetune_classification/full/finetune_scan_hardest",
     "{all} of {all} weights match, 0 missing"),
    (I2P, "pre-training/i2p-mae", "{all} of {all} weights match, 0 missing"),
    (I2P, "fine-tuning/modelnet40", "{but_head_and_norm} of {all} weights match, 18 missing"),
    (I2P, "fine-tuning/scan_pb", "{but_head_and_norm} of {all} weights match, 18 missing"),
]


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize(("name", "config", "message"), RELEASED)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_checkpoints_load(tmp_path, name, config, message, prefix):
    """Files as released, by their names and shapes: alone, or with the prefix of DataParallel and DDP."""
    published = json.loads((DATA / "state_dicts.json").read_text())["state_dict"][name]
    shapes = {key: value["shape"] if isinstance(value, dict) else value[0] for key, value in published.items()}
    torch.save({"base_model": {prefix + key: torch.zeros(()).expand(shape) for key, shape in shapes.items()},
                "epoch": 300, "metrics": {"acc": 88.2}, "best_metrics": {"acc": 88.2}, "optimizer": {}},
               tmp_path / "released.pth")
    section = load_config(ROOT / "cfgs" / f"{config}.yaml").model
    if "visual_embed_pretrained" in section:
        section.visual_embed_pretrained = False
    if "clip_config" in section:  # neither loss nor mask needs the image model then
        section.update(loss_2d=False, mask_type="rand")
    with torch.device("meta"):
        model = build_model_from_cfg(section)
    report = checkpoint.load_model(model, checkpoint.read_weights(tmp_path / "released.pth"), "released.pth")
    total = len(model.state_dict())
    assert message.format(all=total, but_head=total - 16, all_but_2=total - 2,
                          but_head_and_norm=total - 18) in report


SCHEDULES = json.loads((DATA / "schedules.json").read_text())
RATES = {"lr_stage1": (5e-4, 300, {}), "lr_pretrain": (1e-3, 300, {}), "lr_fewshot": (5e-4, 150, {}),
         "lr_segmentation": (2e-4, 60, {"lr_min": 1e-6})}


@pytest.mark.parametrize("name", RATES)
def test_learning_rates(name):
    rate, epochs, extra = RATES[name]
    optimizer = build_optimizer(Optimizer(type="AdamW", kwargs={"lr": rate, "weight_decay": 0.05}),
                                torch.nn.Linear(1, 1))
    config = Scheduler(type="CosLR", kwargs={"epochs": epochs, "initial_epochs": 10, **extra})
    scheduler = build_scheduler(config, optimizer)
    rates = []
    for epoch in range(len(SCHEDULES[name])):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch)
    assert rates == pytest.approx(SCHEDULES[name], rel=1e-6)


@pytest.mark.parametrize(("name", "section"), [("temperature", "temp"), ("kld_weight", "kldweight")])
def test_ramps_of_stage_one(name, section):
    config = load_config(ROOT / "cfgs/autoencoder/act_dvae_with_pretrained_transformer.yaml")[section]
    values = [cosine_ramp(config, iteration) for iteration in SCHEDULES["iteration"]]
    assert values == pytest.approx(SCHEDULES[name], rel=1e-6, abs=1e-12)
