"""Every family of foundation models, at its real size with random weights, and with weights from files."""
import pytest
import timm
import torch
import transformers
from torch import nn

from models import build_model_from_cfg
from models.act.prompted_dvae import without_weights
from models.act.teacher import Teacher, build_teacher
from models.foundation import build_language, build_vision
from models.foundation.language import Bert
from models.foundation.vision import Beit, ClipTransformer, Mixer, TimmBlocks, VisionTransformer
from utils.errors import CheckpointError, ConfigError

CONFIG = {"NAME": "ACTPromptedDiscreteVAEwithVIT", "visual_embed_pretrained": False, "num_group": 64, "group_size": 8,
          "num_tokens": 32, "encoder_dims": 32, "tokens_dims": 32, "decoder_dims": 32, "num_prompt_token": 64}
FAMILIES = [  # the names that the comments of the published config list, and newer ones
    ("vit_small_patch16_384", 384, VisionTransformer), ("vit_base_r50_s16_224_in21k", 768, VisionTransformer),
    ("deit_small_distilled_patch16_224", 384, VisionTransformer), ("beit_base_patch16_384", 768, Beit),
    ("CLIP:ViT-B/16", 768, ClipTransformer), ("mixer_b16_224_in21k", 768, Mixer),
    ("resmlp_24_distilled_224", 384, Mixer), ("vit_small_patch14_dinov2", 384, VisionTransformer),
    ("vit_small_patch16_dinov3", 384, TimmBlocks), ("bert-base-uncased", 768, None), ("none", 768, None)]
BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 9}


def build(name, width, **changes):
    family = "BERT" if "bert" in name else "VIT"
    prompts = 132 if "mixer" in name or "resmlp" in name else 64
    return build_model_from_cfg({**CONFIG, "NAME": f"ACTPromptedDiscreteVAEwith{family}", "visual_embed_type": name,
                                 "visual_embed_dim": width, "num_prompt_token": prompts, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize(("name", "width", "family"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_stage_one_runs_at_real_size(name, width, family, deep):
    torch.manual_seed(0)
    model = build(name, width, use_deep_prompt=deep).train()
    out = model(torch.rand(1, 512, 3))
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is not None for parameter in trained.values())
    assert not any(key.startswith("visual_embed.") for key in trained)
    if family is not None:
        assert type(model.visual_embed) is family
    if name != "none":
        assert trained["visual_prompt_token"].grad.abs().sum() > 0


@pytest.mark.parametrize("name", [
    "vit_base_patch16_384", "vit_base_r50_s16_384", "deit_base_distilled_patch16_384", "beit_large_patch16_512",
    "mixer_b16_224_miil"])
def test_the_other_published_names_are_known(name):
    with torch.device("meta"):
        assert build_vision(name, False, {}).depth in (12, 24)


def reference(foundation, index, x):
    """What timm or transformers computes."""
    block = foundation[0].layer[index] if isinstance(foundation, Bert) else foundation[0][index]
    out = block(x)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize(("make", "kwargs"), [
    (build_vision, ("vit_small_patch14_dinov2", False, {"depth": 2})), (build_language, ("x", False, BERT)),
    (build_vision, ("CLIP:ViT-B/16", False, {"depth": 2, "embed_dim": 48, "num_heads": 3}))])
def test_prompts_beside_a_block_are_prompts_in_front_of_it(make, kwargs):
    torch.manual_seed(0)
    foundation = make(*kwargs).eval()
    for parameter in foundation.parameters():  # layer scales are too small at first to tell
        nn.init.normal_(parameter, std=0.1)
    x, prompts = torch.randn(2, 5, foundation.width), torch.randn(1, 3, foundation.width)
    whole = reference(foundation, 1, torch.cat([prompts.expand(2, -1, -1), x], 1))[:, 3:]
    torch.testing.assert_close(foundation.block(1, x, prompts), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(foundation.block(1, x), reference(foundation, 1, x), rtol=1e-4, atol=1e-5)


def test_beit_leaves_out_its_position_bias_alone():
    torch.manual_seed(0)
    kwargs = {"depth": 2, "embed_dim": 48, "num_heads": 3}
    model = timm.create_model("beit_base_patch16_384", num_classes=0, **kwargs).eval()
    foundation = build_vision("beit_base_patch16_384", False, kwargs).eval()
    block = model.blocks[1]
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.1)
    block.attn.relative_position_bias_table = None
    foundation[0][1].load_state_dict(block.state_dict())
    x, prompts = torch.randn(2, 5, 48), torch.randn(1, 3, 48)
    torch.testing.assert_close(foundation.block(1, x), block(x), rtol=1e-4, atol=1e-5)
    whole = block(torch.cat([prompts.expand(2, -1, -1), x], 1))[:, 3:]
    torch.testing.assert_close(foundation.block(1, x, prompts), whole, rtol=1e-4, atol=1e-5)


def test_clip_norms_before_the_first_block():
    foundation = build_vision("CLIP:ViT-B/16", False, {"depth": 1, "embed_dim": 48, "num_heads": 3})
    x = torch.randn(1, 4, 48) * 7 + 3
    assert foundation.start(x).mean().abs() < 1e-4
    assert build_vision("vit_tiny_patch16_224", False, {"depth": 1}).start(x) is x


def test_a_local_language_model_is_loaded(tmp_path):
    torch.manual_seed(0)
    original = transformers.BertModel(transformers.BertConfig(**BERT))
    original.save_pretrained(tmp_path / "bert")
    for foundation in (build_language(str(tmp_path / "bert"), True, {}),
                       build_language("bert-base-uncased", str(tmp_path / "bert"), {})):
        assert torch.equal(foundation[0].layer[1].output.dense.weight, original.encoder.layer[1].output.dense.weight)
        assert (foundation.width, foundation.depth) == (24, 2)
    other = build_language(str(tmp_path / "bert"), False, {})
    assert not torch.equal(other[0].layer[1].output.dense.weight, original.encoder.layer[1].output.dense.weight)


def test_a_damaged_language_model(tmp_path):
    folder = tmp_path / "bert"
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="holds no language model that can be read"):
        build_language(str(folder), True, {})
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="holds no language model that can be read"):
        build_language(str(folder), True, {})


@pytest.mark.parametrize(("changes", "message"), [
    ({"visual_embed_type": "mixer_b16_224", "num_prompt_token": 64},
     "'mixer_b16_224' mixes 196 tokens, but model.num_group and num_prompt_token add up to 128: .* by 68"),
    ({"visual_embed_type": "CLIP:RN50"}, "'CLIP:RN50' is not one of CLIP:ViT-B/16"),
    ({"visual_embed_type": "swin_tiny_patch4_window7_224"}, "is not a vision Transformer of blocks and a norm"),
])
def test_a_setting_that_cannot_work_is_said_at_start(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_model_from_cfg({**CONFIG, "visual_embed_dim": 768, **changes})


@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "crossvit_tiny_240", "vit_relpos_small_patch16_224"])
def test_blocks_that_want_more_than_tokens_are_said_at_start(name):
    width = build_vision(name, False, {}).width
    with pytest.raises(ConfigError, match=f"'{name}' cannot be a teacher: its blocks do not run on tokens alone"):
        build(name, width)


@pytest.mark.parametrize(("changes", "message"), [
    ({"num_prompt_token": "64"}, "model.num_prompt_token is '64'; it must be a whole number of at least 0"),
    ({"num_tokens": 0}, "model.num_tokens is 0; it must be a whole number of at least 1"),
    ({"group_size": 2.5}, "model.group_size is 2.5; it must be a whole number"),
    ({"visual_embed_type": 3}, "model.visual_embed_type is 3; it must be a text, or null"),
    ({"visual_embed_pretrained": None}, "model.visual_embed_pretrained is None; it must be true or false, or a text"),
    ({"visual_embed_kwargs": "x"}, "model.visual_embed_kwargs is 'x'; it must be a section of keys, or null")])
def test_values_of_another_kind(changes, message):
    with pytest.raises(ConfigError, match=message):
        build("vit_tiny_patch16_224", 192, **changes)


def test_a_beit_file_brings_its_final_norm(tmp_path):
    kwargs = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 32}
    model = timm.create_model("beit_base_patch16_224", num_classes=0, **kwargs)
    torch.nn.init.normal_(model.fc_norm.weight)
    torch.save(model.state_dict(), tmp_path / "beit.pth")
    assert build_vision("beit_base_patch16_224", str(tmp_path / "beit.pth"), kwargs)[1].weight.equal(
        model.fc_norm.weight)


def test_a_language_model_whose_sizes_are_not_known():
    with pytest.raises(ConfigError, match="no language model can be built of bert-large-uncased .*its sizes are not "
                                          "known here: give them as visual_embed_kwargs"):
        build_language("bert-large-uncased", False, {})
    with pytest.raises(ConfigError, match="'/data/no such' is neither a folder nor a name on the hub"):
        build_language("/data/no such", True, {})


def test_a_folder_of_weights_alone_still_says_what_the_model_is(tmp_path):
    assert without_weights({"visual_embed_type": "x", "visual_embed_pretrained": str(tmp_path)}) == {
        "visual_embed_pretrained": False, "visual_embed_type": str(tmp_path)}
    assert without_weights({"visual_embed_type": "x", "visual_embed_pretrained": True}) == {
        "visual_embed_pretrained": False}


def test_stage_two_with_a_language_teacher_whose_folder_gave_the_weights(tmp_path):
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path / "small")
    section = {**CONFIG, "NAME": "ACTPromptedDiscreteVAEwithBERT", "visual_embed_type": "bert-large-uncased",
               "visual_embed_dim": 24, "visual_embed_pretrained": str(tmp_path / "small"), "num_prompt_token": 4}
    model = build_model_from_cfg(section)
    torch.save({"base_model": model.state_dict()}, tmp_path / "stage1.pth")
    teacher = build_teacher(Teacher(**section, ckpt=str(tmp_path / "stage1.pth")))
    assert all(value.equal(teacher.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_language_model_that_is_not_built_like_bert(tmp_path):
    transformers.GPT2Config(n_embd=24, n_layer=1, n_head=2, vocab_size=9).save_pretrained(tmp_path / "gpt")
    with pytest.raises(ConfigError, match="is a GPT2Model, which is not built like BERT"):
        build_language(str(tmp_path / "gpt"), False, {})


def test_a_language_model_that_cannot_be_downloaded(monkeypatch):
    monkeypatch.setattr("models.foundation.language.hub_answers", lambda: False)
    with pytest.raises(ConfigError, match="'no-such-model' could not be downloaded .* to a local folder of it"):
        build_language("no-such-model", True, {})
    with pytest.warns(UserWarning, match="going on with random weights"):
        assert build_language("no-such-model", "auto", BERT).width == 24


def test_without_transformers_the_message_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match="pip install transformers"):
        build_language("bert-base-uncased", False, {})
