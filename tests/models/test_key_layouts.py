"""Files of the whole family of methods, by their names, in the classifier, the segmenter and the probe."""
import re

import pytest
import torch
from parity_recipe import cloud, fill, weight

from models import build_model_from_cfg, load_pretrained
from models.pretrained import build_pretrained
from utils import checkpoint
from utils.errors import CheckpointError
from utils.weight_names import strip_wrappers

SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 2, "encoder_dims": 24, "group_size": 8, "num_group": 8}
CLASSIFIER = {"NAME": "PointTransformer", **SIZES, "cls_dim": 3}
SEGMENTER = {"NAME": "PointSegmenter", **SIZES, "num_classes": 4, "taps": [1, 2]}
POINTS = cloud(0, 2, 64)
HEAD = "cls_head_finetune."


def prefixed(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


def entries(*names):
    """Weights that these models do not have."""
    return {name: weight(name, (3, 3)) for name in names}


def encoder(encoder_dims=24, class_token=True):
    """The weights of a student's encoder, filled by their names."""
    model = fill(build_model_from_cfg({**CLASSIFIER, "encoder_dims": encoder_dims}))
    return {key: value for key, value in model.state_dict().items()
            if not key.startswith(HEAD) and (class_token or not key.startswith("cls_"))}


def act(**_):
    return prefixed("ACT_encoder.", {**encoder(), **entries("lm_head.weight", "cls_head.0.weight")}) | entries(
        "mask_token", "cls_pos", "decoder_pos_embed.0.weight", "ACT_decoder.blocks.0.attn.qkv.weight",
        "proj_head.weight", "dvae_tokenizer.codebook", "dvae_tokenizer.encoder.first_conv.0.weight")


def point_bert():
    student = {**encoder(16), **entries("mask_token", "lm_head.weight", "cls_head.0.weight", "cls_head.2.bias")}
    return prefixed("transformer_q.", student) | prefixed("transformer_k.", student) | entries(
        "queue", "queue_ptr", "dvae.codebook", "dvae.dgcnn_1.layer1.0.weight", "dvae.encoder.first_conv.0.weight")


def point_mae():
    return prefixed("MAE_encoder.", encoder(class_token=False)) | entries(
        "mask_token", "decoder_pos_embed.0.weight", "decoder_pos_embed.2.bias", "MAE_decoder.blocks.0.attn.qkv.weight",
        "MAE_decoder.norm.weight", "increase_dim.0.weight")


def contrast():
    """What a block of ReCon has for its global tokens."""
    return entries(*(f"blocks.blocks.{index}.{part}" for index in range(2) for part in (
        "norm1_contrast.weight", "norm2_contrast.bias", "attn_contrast.q.weight", "attn_contrast.kv.weight",
        "attn_contrast.proj.bias", "mlp_contrast.fc1.weight", "mlp_contrast.fc2.bias")))


def recon():
    tokens = entries("img_token", "img_pos", "text_token", "text_pos")
    return prefixed("MAE_encoder.", {**encoder(), **tokens, **contrast()}) | entries(
        "MAE_decoder.blocks.0.attn.qkv.weight", "mask_token", "img_proj.weight", "text_proj.bias",
        "img_encoder.blocks.0.attn.qkv.weight", "text_encoder.visual.proj", "increase_dim.0.weight")


def ulip():
    return prefixed("point_encoder.", encoder(16)) | entries(
        "pc_projection", "image_projection", "logit_scale", "token_embedding.weight", "visual.conv1.weight",
        "transformer.resblocks.0.ln_1.weight", "positional_embedding")


def act_pointbert():
    return {key.replace("dvae.", "dvae_tokenizer."): value for key, value in point_bert().items()}


FAMILIES = {  # weights, width of the patch encoder, what the report says
    "ACT": (act, 24, "not used: ACT_decoder, dvae_tokenizer of ACT"),
    "Point-BERT": (point_bert, 16, "not used: transformer_k, queue, queue_ptr, dvae of Point-BERT"),
    "ACT_PointBERT": (act_pointbert, 16, "dvae_tokenizer of ACT"),
    "Point-MAE": (point_mae, 24, "not used: MAE_decoder, increase_dim of Point-MAE"),
    "ReCon": (recon, 24, "not used: img_proj, text_proj, img_encoder, text_encoder, img_token, img_pos, text_token, "
                         "text_pos, norm1_contrast, norm2_contrast, attn_contrast, mlp_contrast of ReCon"),
    "ULIP": (ulip, 16, "not used: pc_projection, image_projection of ULIP or OpenShape"),
}
WRAPPERS = ["", "module.", "_orig_mod.", "base_model.", "module.base_model._orig_mod.", "_orig_mod.module.module."]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_loads(tmp_path, family, wrapper):
    make, width, said = FAMILIES[family]
    path = tmp_path / "c.pth"
    torch.save({"base_model": prefixed(wrapper, make()), "epoch": 300}, path)
    expected = encoder(width, class_token=family != "Point-MAE")
    for section in (CLASSIFIER, SEGMENTER):
        model = build_model_from_cfg({**section, "encoder_dims": width})
        report = checkpoint.load_model(model, checkpoint.read_weights(path), path)
        own = model.state_dict()
        for key in own.keys() & expected.keys():
            assert torch.equal(own[key], expected[key]), key
        assert len(own.keys() & expected.keys()) >= len(expected) - 2
        assert said in report
        assert "\n" not in report
    with pytest.raises(CheckpointError, match=r"is not of this PointTransformer: .*'cls_head_finetune.0.weight'|"
                                              r"is not of this PointTransformer: .*'cls_token'"):
        checkpoint.load_model(build_model_from_cfg({**CLASSIFIER, "encoder_dims": width}),
                              checkpoint.read_weights(path), path, complete=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_probe_takes_the_encoder(tmp_path, family):
    """Its features are those of the encoder; without a class token, of one that is zero, each time the same."""
    make, width, said = FAMILIES[family]
    torch.save({"base_model": make()}, tmp_path / "c.pth")
    content = checkpoint.read(tmp_path / "c.pth")
    expected = build_model_from_cfg({**CLASSIFIER, "encoder_dims": width}).eval()
    for parameter in (expected.cls_token, expected.cls_pos):
        torch.nn.init.zeros_(parameter)
    expected.load_state_dict(encoder(width, class_token=family != "Point-MAE"), strict=False)
    for _ in range(2):
        model = build_pretrained({**CLASSIFIER, "encoder_dims": width}, content, "c.pth", head=False)
        torch.testing.assert_close(model.forward_features(POINTS), expected.forward_features(POINTS))
        assert said in model.load_report
        assert ("no class token" in model.load_report) == (family == "Point-MAE")


def test_what_recon_computes_otherwise_is_said():
    report = checkpoint.load_model(build_model_from_cfg(CLASSIFIER), recon(), "r.pth")
    assert "ReCon's blocks add to normed tokens, which these do not: fine-tune before use" in report
    assert "fine-tune before use" not in checkpoint.load_model(build_model_from_cfg(CLASSIFIER), point_mae(), "p.pth")


def test_only_point_mae_may_lack_a_class_token():
    weights = {key: value for key, value in act().items() if "cls_token" not in key}
    with pytest.raises(CheckpointError, match="1[67] missing.*for example 'cls_token'"):
        checkpoint.load_model(build_model_from_cfg(CLASSIFIER), weights, "a.pth")


# ---- heads of another form

def chain(*widths, norms=True):
    """The weights of a head of linear layers with batch norm, as ACT's, or without, as Point-BERT's."""
    weights, step = {}, 4 if norms else 3
    for index, (given, made) in enumerate(zip(widths, widths[1:], strict=False)):
        weights[f"{HEAD}{step * index}.weight"] = weight(f"{HEAD}{step * index}.weight", (made, given))
        weights[f"{HEAD}{step * index}.bias"] = weight(f"{HEAD}{step * index}.bias", (made,))
        if norms and index < len(widths) - 2:
            weights |= {f"{HEAD}{step * index + 1}.{part}": weight(f"x.{part}", (made,))
                        for part in ("weight", "bias", "running_mean", "running_var")}
            weights[f"{HEAD}{step * index + 1}.num_batches_tracked"] = torch.tensor(3)
    return weights


HEADS = {
    "Point-BERT": (lambda: encoder(), chain(48, 256, 3, norms=False), "48 → 256 → 3, as Point-BERT's"),
    "ReCon": (lambda: {**encoder(), **entries("img_token", "img_pos", "text_token", "text_pos"), **contrast()},
              chain(96, 256, 256, 3), "96 → 256 → 256 → 3, as ReCon's"),
    "linear": (lambda: encoder(), chain(48, 3), "48 → 3"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_another_form_is_left_out_for_fine_tuning(name):
    """All of it: a layer that would fit by chance is not mixed with new ones."""
    make, head, _ = HEADS[name]
    torch.manual_seed(1)
    fresh = build_model_from_cfg(CLASSIFIER)
    torch.manual_seed(1)
    model = build_model_from_cfg(CLASSIFIER)
    checkpoint.load_model(model, {**make(), **head}, "f.pth")
    own, expected = model.state_dict(), encoder()
    for key, value in own.items():
        assert torch.equal(value, (fresh.state_dict() if key.startswith(HEAD) else expected)[key]), key


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_another_form_cannot_be_tested(tmp_path, name):
    make, head, shape = HEADS[name]
    message = (rf"its head is {shape}, this model's 48 → 256 → 256 → 3: its encoder can be fine-tuned "
               rf"\(--finetune_model\), but not tested with this head$")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load_model(build_model_from_cfg(CLASSIFIER), {**make(), **head}, "f.pth", complete=True)
    torch.save({"base_model": {**make(), **head}}, tmp_path / "f.pth")
    content = checkpoint.read(tmp_path / "f.pth")
    if name != "linear":  # which is recognised
        with pytest.raises(CheckpointError, match=message):
            build_pretrained({**CLASSIFIER}, content, "f.pth")
    features = build_pretrained({**CLASSIFIER}, content, "f.pth", head=False).forward_features(POINTS)
    assert features.shape == (2, 48)


def test_a_head_of_another_number_of_classes_gives_its_hidden_layers():
    model, head = build_model_from_cfg(CLASSIFIER), chain(48, 256, 256, 40)
    report = checkpoint.load_model(model, {**encoder(), **head}, "f.pth")
    assert "2 of another shape" in report
    assert torch.equal(model.state_dict()[f"{HEAD}4.weight"], head[f"{HEAD}4.weight"])


# ---- foreign files

FOREIGN = {
    "I2P-MAE or Point-M2AE": entries("h_encoder.encoder_norms.0.weight", "h_decoder.0.blocks.0.norm1.weight"),
    "an autoencoder of stage I": entries("codebook", "dgcnn_1.layer1.0.weight", "encoder.first_conv.0.weight"),
    "OpenAI's CLIP": entries("visual.proj", "token_embedding.weight"),
    "an image Transformer of timm's": entries("patch_embed.proj.weight", "blocks.0.norm1.weight"),
    "a segmentation model": entries("propagation_0_cls.mlp_convs.0.weight", "convs1_cls.weight"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_said_whose_it_is(name):
    with pytest.raises(CheckpointError, match=f"is not of this PointTransformer: 0 of .*a file of {re.escape(name)}$"):
        checkpoint.load_model(build_model_from_cfg(CLASSIFIER), FOREIGN[name], "x.pth")


@pytest.mark.parametrize("prefix", ["net.", "encoder.", "model.backbone.", "student."])
@pytest.mark.parametrize("config", [CLASSIFIER, SEGMENTER])
def test_another_prefix_is_named(prefix, config):
    with pytest.raises(CheckpointError, match=f"0 of .*its names begin with '{prefix}', which no model here has"):
        checkpoint.load_model(build_model_from_cfg(config), prefixed(prefix, encoder()), "x.pth")


def test_one_name_twice():
    with pytest.raises(CheckpointError, match="x.pth holds two weights 'a', one of them as 'module.a'"):
        checkpoint.weights_in({"base_model": {"a": torch.ones(1), "module.a": torch.zeros(1)}}, "x.pth")


def test_a_compiled_part():
    assert strip_wrappers("module.ACT_encoder._orig_mod.norm.weight") == "ACT_encoder.norm.weight"
    weights = {key.replace("ACT_encoder.", "ACT_encoder.module."): value for key, value in act().items()}
    checkpoint.load_model(build_model_from_cfg(CLASSIFIER), weights, "x.pth")


# ---- Point-BERT's own pre-training

@pytest.mark.parametrize("moco", [True, False])
def test_a_published_pointbert_goes_on_here(moco):
    """There the tokenizer is called dvae, and the key encoder is part of every file."""
    def build(moco):
        dvae = {"num_group": 8, "group_size": 8, "num_tokens": 16, "encoder_dims": 16, "tokens_dims": 16,
                "decoder_dims": 16}
        student = {"embed_dim": 24, "depth": 2, "num_heads": 3, "cls_dim": 8, "moco_loss": moco}
        with pytest.warns(UserWarning, match="untrained"):
            return build_model_from_cfg({"NAME": "ACT_PointBERT", "K": 8, "transformer_config": student,
                                         "dvae_config": dvae})

    published = {key.replace("dvae_tokenizer.", "dvae."): value
                 for key, value in fill(build(True)).state_dict().items()}
    model = build(moco)
    report = checkpoint.load_model(model, published, "p.pth", complete=True)
    assert "0 missing" in report
    for key, value in model.state_dict().items():
        assert torch.equal(value, published[key.replace("dvae_tokenizer.", "dvae.")]), key


def test_a_released_point_bert_says_how_wide_it_is(tmp_path):
    """Without a config: its patch encoder is narrower than its Transformer."""
    with torch.device("meta"):
        shapes = build_model_from_cfg({"NAME": "PointTransformer", "encoder_dims": 256, "cls_dim": 1}).state_dict()
    torch.save({"base_model": {f"module.transformer_q.{key}": torch.zeros(()).expand(value.shape)
                               for key, value in shapes.items() if not key.startswith(HEAD)}}, tmp_path / "p.pth")
    assert load_pretrained(tmp_path / "p.pth").reduce_dim.weight.shape == (384, 256)
