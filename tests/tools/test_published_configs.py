"""The published files of both papers, as their authors wrote them, train two batches of tiny models on made-up data."""
import re
from types import SimpleNamespace

import numpy as np
import published_configs
import pytest
from classification_data import (
    write_few_shot,
    write_modelnet,
    write_modelnet_hdf5,
    write_scanobjectnn,
    write_shapenet,
)

import main_autoencoder
from models import build_model_from_cfg
from tools.tasks import classification, probing
from utils import checkpoint
from utils.config import load_config
from utils.schema import Probe

pytestmark = pytest.mark.slow

ACT, I2P = published_configs.act_files(), published_configs.i2p_files()
TWO_BATCHES = ("total_bs=2", "max_epoch=0")
TEACHER = {"visual_embed_type": "vit_tiny_patch16_224", "visual_embed_dim": 24,
           "visual_embed_kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 2}, "num_prompt_token": 2}
DVAE = {"num_group": 8, "group_size": 8, "encoder_dims": 24, "num_tokens": 16, "tokens_dims": 24, "decoder_dims": 24}
STUDENT = {"embed_dim": 24, "depth": 2, "num_heads": 2, "encoder_dims": 24}
HIERARCHY = {"num_groups": [32, 16, 8], "group_sizes": [8, 4, 4], "encoder_depths": [1, 1, 1],
             "encoder_dims": [12, 24, 48], "num_heads": 3}
MAE = {"decoder_dims": [48, 24], "clip_config.visual_encoder": "vit_tiny_patch16_224", "clip_config.feat_dim": 24,
       "clip_config.pretrained": False, "clip_config.kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 2}}


def tiny(prefix="model", **keys):
    return [f"{prefix}.{key}={value}" for key, value in keys.items()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with every data set."""
    root = tmp_path_factory.mktemp("published")
    for write in (write_shapenet, write_modelnet, write_scanobjectnn, write_few_shot):
        write(root)
    write_modelnet_hdf5(root, 4)
    return root


@pytest.fixture
def published(request, data, tmp_path, monkeypatch, command):
    """Run a published file in the data's folder: ``published(files, name, *flags, set=())``."""
    monkeypatch.chdir(data)

    def run(files, name, *flags, set=(), **options):
        published_configs.write(data, files)
        return command(data / "cfgs" / name, *flags, "--set", *set, **options)

    return run


def losses(out):
    return [float(value) for value in re.findall(r"Epoch 0/0 .*?\bloss ([\d.]+)", out)]


def test_every_published_file_is_here():
    assert len([name for name in ACT if not name.startswith("dataset")]) == 21
    assert len([name for name in I2P if not name.startswith("dataset")]) == 7


@pytest.mark.parametrize("name", [name for name in ACT if name.startswith("finetune")])
def test_fine_tuning_of_act(published, name):
    few_shot = ("--way", 5, "--shot", 2, "--fold", 0) if "few_shot" in name else ("--way", -1, "--shot", -1)
    out = published(ACT, name, "--scratch_model", *few_shot, set=(
        *tiny(**STUDENT, num_group=8, group_size=8), *TWO_BATCHES, *(["total_bs=5"] if "few_shot" in name else ()))).out
    assert np.isfinite(losses(out)[0])
    assert re.search(r"Last +OA [\d.]+", out)


@pytest.mark.parametrize("name", [name for name in ACT if name.startswith("autoencoder")])
def test_stage_one_of_act(published, name):
    image = tiny(**TEACHER, visual_embed_pretrained=False) if "transformer" in name else ()
    out = published(ACT, name, module=main_autoencoder, set=(*image, *tiny(**DVAE), *TWO_BATCHES)).out
    assert np.isfinite(losses(out)[0])
    assert "Overall" in out


def test_stage_two_of_act(published, data):
    (data / "model_zoo").mkdir()
    section = {"NAME": "ACTPromptedDiscreteVAEwithVIT", **TEACHER, **DVAE, "visual_embed_pretrained": False}
    checkpoint.save({"base_model": build_model_from_cfg(section).state_dict()}, data / "model_zoo/ckpt_act_dvae.pth")
    out = published(ACT, "pretrain/pretrain_act_distill.yaml", set=(
        *tiny("model.dvae_config", **TEACHER, **DVAE), *tiny("model.transformer_config", **STUDENT, cls_dim=8,
                                                              decoder_num_heads=2, register_shallow_hook=0),
        *TWO_BATCHES)).out
    assert np.isfinite(losses(out)[0])
    assert re.search(r"SVM [\d.]+", out)


@pytest.fixture
def pretrained(published, data, command):
    """Run I2P-MAE's pre-training; returns what was printed and the checkpoint."""
    out = published(I2P, "pre-training/i2p-mae.yaml", set=(*tiny(**HIERARCHY, **MAE), *TWO_BATCHES)).out
    return out, next((command.folder / "work_dirs").rglob("i2p-mae/**/ckpt-last.pth"))


def test_pretraining_of_i2p(pretrained):
    out, _ = pretrained
    assert np.isfinite(losses(out)[0])
    assert "extra_train: 4 clouds of 1024 points, 40 classes; val: 4 clouds of 1024 points, 40 classes" in out
    assert re.search(r"SVM [\d.]+", out)


@pytest.mark.parametrize(("data_name", "name", "cost", "said"), [
    ("modelnet40", "modelnet40", "0.0093", "4 clouds of 1024 points, 40 classes"),
    ("scan", "scan_obj-bg", "0.018", "4 clouds of 2048 points, 15 classes")])
def test_linear_svm_of_i2p(published, pretrained, data_name, name, cost, said):
    out = published(I2P, f"linear-svm/{name}.yaml", "--test_svm", data_name, "--ckpts", pretrained[1],
                    set=(*tiny(**HIERARCHY, **MAE), "total_bs=2")).out
    assert f"extra_train: {said}; val: {said}" in out
    assert re.findall(r"Linear SVC +OA [\d.]+  \(C = ([\d.]+), as given", out) == [cost]
    err = published(I2P, f"linear-svm/{name}.yaml", set=["total_bs=2"], status=2).err
    assert re.search(r"key 'optimizer.type' is missing; training needs it\n$", err)


@pytest.mark.parametrize(("name", "transforms"), [
    ("modelnet40", ["ScaleAndTranslate"]), ("scan_obj", ["Scale", "Rotate"]), ("scan_obj-bg", ["Scale", "Rotate"]),
    ("scan_pb", ["Scale", "Rotate"])])
def test_fine_tuning_of_i2p(published, pretrained, monkeypatch, name, transforms):
    built, build = [], classification.build_transform
    monkeypatch.setattr(classification, "build_transform", lambda names: built.append(list(names)) or build(names))
    out = published(I2P, f"fine-tuning/{name}.yaml", "--finetune_model", "--ckpts", pretrained[1],
                    set=(*tiny(**HIERARCHY), *TWO_BATCHES)).out
    assert np.isfinite(losses(out)[0])
    assert built[0] == transforms


def test_a_cost_that_a_file_gives_stays(monkeypatch):
    costs = []
    monkeypatch.setattr(probing, "fit_probe", lambda estimator, choices, *rest, **scaled: costs.append(
        choices.get("C")) or (50.0, 1.0, False))

    class Experiment:
        class args:  # noqa: N801
            seed, test_svm = 0, "scan"

        class log:  # noqa: N801
            info = staticmethod(lambda *said: None)

    for given, cost in ({"svc_c": [1]}, (1.0,)), ({}, [0.018]):
        Experiment.config = SimpleNamespace(probe=Probe(**given))
        probing.report(Experiment, (None, range(9)), None)
        assert costs[-1] == cost


@pytest.mark.parametrize("files", [ACT, I2P], ids=["act", "i2p"])
def test_every_file_parses(files, data, monkeypatch):
    published_configs.write(data, files)
    monkeypatch.chdir(data)
    for name in files:
        if not name.startswith("dataset"):
            assert load_config(data / "cfgs" / name).model.NAME
