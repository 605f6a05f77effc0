"""Which parameters get a gradient: several processes share out those that do, and must know the others."""
import warnings

import pytest
import torch
from tiny_configs import CONFIGS

from models import build_model_from_cfg

STUDENT = {"embed_dim": 24, "depth": 2, "num_heads": 2, "cls_dim": 8}
DVAE = {"num_group": 8, "group_size": 8, "num_tokens": 16, "encoder_dims": 24, "tokens_dims": 24, "decoder_dims": 24}
FINETUNE, PRETRAIN, AUTOENCODER = (CONFIGS[name]["model"] for name in ("finetune", "pretrain", "autoencoder"))
SEGMENTER = {"NAME": "PointSegmenter", "embed_dim": 24, "encoder_dims": 24, "depth": 3, "num_heads": 2,
             "taps": [1, 2, 3], "num_group": 8, "group_size": 8, "num_classes": 5}


I2P = {"NAME": "I2P_MAE", "num_groups": [32, 16, 8], "group_sizes": [8, 4, 4], "encoder_depths": [1, 2, 1],
       "encoder_dims": [12, 24, 48], "num_heads": 3, "decoder_dims": [48, 24], "clip_config": {
           "visual_encoder": "vit_tiny_patch16_224", "feat_dim": 24, "pretrained": False,
           "kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 3}}}


def point_bert(**losses):
    return {"NAME": "ACT_PointBERT", "K": 8, "dvae_config": DVAE, "transformer_config": {**STUDENT, **losses}}


MODELS = {
    "dvae": {"NAME": "DiscreteVAE", **DVAE},
    "act": AUTOENCODER,
    "act, tuned": {**AUTOENCODER, "freeze_visual_embed": False},
    "act, shallow": {**AUTOENCODER, "use_deep_prompt": False},
    "act, no prompts": {**AUTOENCODER, "num_prompt_token": 0},
    "act, none": {**AUTOENCODER, "visual_embed_type": "none"},
    "distillation": PRETRAIN,
    "distillation, cls_loss": {**PRETRAIN, "transformer_config": {
        **PRETRAIN["transformer_config"], "cls_loss": True, "register_shallow_hook": 0}},
    "distillation, nothing masked": {**PRETRAIN, "transformer_config": {
        **PRETRAIN["transformer_config"], "mask_ratio": 0}},
    "point-bert": point_bert(),
    "point-bert, moco": point_bert(moco_loss=True),
    "point-bert, moco alone": point_bert(moco_loss=True, dvae_loss=False, cutmix_loss=False),
    **{f"classifier, {kind}": {**FINETUNE, "transfer_type": kind}
       for kind in ("full", "linear", "mlp-3", "side", "bit-fit")},
    "i2p": I2P,
    "i2p, random masks": {**I2P, "mask_type": "rand"},
    "i2p, no 2D loss": {**I2P, "loss_2d": False},
    "i2p, one decoded scale": {**I2P, "decoder_dims": [48], "decoder_depths": [2]},
    "rooms": {**SEGMENTER, "num_categories": 0},
    "parts": {**SEGMENTER, "num_categories": 3},
}


def arguments(name):
    points = torch.rand(4, 64, 3)
    if name.startswith("classifier"):
        return points, torch.arange(4)
    if name in ("rooms", "parts"):
        return points, torch.randint(5, (4, 64)), torch.arange(4) % 3
    return (points,)


@pytest.mark.parametrize("name", MODELS)
def test_all_but_the_unused_ones_get_one(name):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "model.dvae_config.ckpt is not given")
        model = build_model_from_cfg(MODELS[name]).train()
    model(*arguments(name))["loss"].backward()
    trained = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}
    without = {key for key, gradient in trained.items() if gradient is None}
    assert without == {key for key in trained if key.startswith(tuple(getattr(model, "unused_parameters", ())))}
