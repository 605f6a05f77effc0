"""Tiny configs of every stage, on built-in shapes."""
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

# what else stage II can be asked: every key that makes its targets tell clouds apart
RECIPE = ("model.loss=ntxent", "model.target_norm=standardise", "model.cloud_loss=1",
          "model.transformer_config.mask_ratio=0.6", "model.transformer_config.return_all_tokens=true",
          "model.dvae_config.teacher_target=before_dgcnn2", "model.dvae_config.teacher_codes=soft")
