"""Image models of I2P-MAE: features and class attention against timm's own."""
import pytest
import timm
import torch

from models.foundation.vision import build_vision
from models.i2p_mae.image_model import ImageModelKeys, build_image_model, class_attention
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError

TINY = {"embed_dim": 24, "depth": 2, "num_heads": 3}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(name="vit_tiny_patch16_224", feat_dim=24, pretrained=False, **kwargs):
    return build_image_model(ImageModelKeys(visual_encoder=name, feat_dim=feat_dim, pretrained=pretrained,
                                            kwargs={**TINY, **kwargs}))


@pytest.mark.parametrize(("name", "grid"), [
    ("vit_tiny_patch16_224", 14), ("vit_small_patch14_dinov2", 16), ("deit_tiny_distilled_patch16_224", 14),
    ("vit_small_patch14_reg4_dinov2", 16)])
def test_features_are_the_normed_patch_tokens(name, grid):
    image_model, images = build(name), torch.randn(2, 3, 224, 224)
    features, attention = image_model(images)
    tokens = image_model.model.forward_features(images)
    expected = tokens[:, image_model.model.num_prefix_tokens:].transpose(1, 2).unflatten(2, (grid, grid))
    torch.testing.assert_close(features, expected)
    assert attention.shape == (2, grid, grid)


def test_attention_is_that_of_the_class_token_in_the_last_block():
    image_model, images, seen = build(), torch.randn(2, 3, 224, 224), []
    last = image_model.model.blocks[-1].attn
    last.fused_attn = False
    last.attn_drop.register_forward_hook(lambda module, given, result: seen.append(result))  # B H N N
    _, attention = image_model(images)
    torch.testing.assert_close(attention, seen[0].mean(1)[:, 0, 1:].unflatten(1, (14, 14)))


def test_attention_with_normed_queries_adds_up_to_one():
    block = timm.create_model("vit_tiny_patch16_224", qk_norm=True, num_classes=0, **TINY).blocks[-1]
    attention = class_attention(block, torch.randn(2, 5, 24))
    torch.testing.assert_close(attention.sum(1), torch.ones(2))


@pytest.mark.parametrize(("name", "width"), [("ViT-B/16", 512), ("ViT-B/32", 512), ("ViT-L/14", 768)])
def test_features_of_clip_are_projected(name, width):
    image_model, images = build(name, width), torch.randn(1, 3, 224, 224)
    features, _ = image_model(images)
    tokens = image_model.model.head(image_model.model.forward_features(images))[:, 1:]
    torch.testing.assert_close(features.flatten(2), tokens.transpose(1, 2))
    assert features.shape[1] == image_model.width == width


def test_it_is_frozen():
    image_model = build()
    assert not image_model.training
    assert not any(parameter.requires_grad for parameter in image_model.parameters())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, suffix):
    original = build("ViT-B/16", 512)
    path = str(tmp_path / f"clip{suffix}")
    checkpoint.save({"base_model": original.model.state_dict()}, path)
    loaded, images = build("ViT-B/16", 512, path), torch.randn(1, 3, 224, 224)
    for one, two in zip(original(images), loaded(images), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(CheckpointError, match="does not hold the Transformer that model.clip_config.visual_encoder"):
        build("ViT-B/16", 512, path, depth=3)


@pytest.mark.parametrize(("name", "size"), [
    ("vit_tiny_patch16_384", 384), ("vit_small_patch14_dinov2", 280), ("vit_small_patch14_reg4_dinov2", 280),
    ("deit_tiny_distilled_patch16_224", 224)])
def test_weights_of_another_size_of_image(tmp_path, name, size):
    """Positions are resampled as timm does it; everything else is the file's, the distillation token too."""
    original = timm.create_model(name, img_size=size, num_classes=0, **TINY)
    checkpoint.save({"base_model": original.state_dict()}, tmp_path / "vit.pth")
    loaded = build(name, pretrained=str(tmp_path / "vit.pth")).model.state_dict()
    expected = timm.create_model(name, img_size=224, num_classes=0, **TINY)
    expected.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(original.state_dict(), expected))
    for key, value in expected.state_dict().items():
        assert torch.equal(loaded[key], value), key


def test_a_file_of_another_family(tmp_path):
    """CaiT has positions, but not what a vision Transformer says of them."""
    original = timm.create_model("cait_xxs24_224", img_size=64, num_classes=0, embed_dim=24, depth=1, num_heads=3)
    checkpoint.save({"base_model": original.state_dict()}, tmp_path / "cait.pth")
    with pytest.raises((CheckpointError, ConfigError), match="does not hold the|is not a vision Transformer of plain"):
        build("cait_xxs24_224", pretrained=str(tmp_path / "cait.pth"), depth=1)


def test_clip_is_found_under_the_name_that_act_has_for_it():
    assert build("CLIP:ViT-B/16", 512).model.pretrained_cfg == build("ViT-B/16", 512).model.pretrained_cfg


@pytest.mark.parametrize(("arguments", "message"), [
    ({"feat_dim": 512}, "model.clip_config.feat_dim is 512, but the features of 'vit_tiny_patch16_224' are 24 wide"),
    ({"name": "ViT-B/8"}, "model.clip_config.visual_encoder 'ViT-B/8' is not a model of timm"),
    ({"class_token": False, "global_pool": "avg"}, "'vit_tiny_patch16_224' is not a vision Transformer of plain"),
    ({"img_size": 384}, "model.clip_config.kwargs is .*; it must hold arguments of timm's create_model, but img_size"),
    ({"depht": 3}, "timm cannot build 'vit_tiny_patch16_224' with model.clip_config.kwargs"),
])
def test_what_cannot_be_used(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(**arguments)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    monkeypatch.setattr("models.foundation.weights.hub_answers", lambda: False)
    monkeypatch.setattr("models.foundation.weights._cached", lambda *arguments: False)
    with pytest.raises(ConfigError, match="could not be downloaded .* Set model.clip_config.pretrained to a .safetens"):
        build("ViT-B/16", 512, True)


def openai_names(weights):
    """Return timm's weights of a CLIP tower by OpenAI's names, with a text tower beside them."""
    names = (("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks."),
             ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"), ("norm1", "ln_1"), ("norm2", "ln_2"),
             ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"))
    renamed = {"logit_scale": torch.tensor(4.6), "token_embedding.weight": torch.zeros(9, 9),
               "positional_embedding": torch.zeros(77, 9), "transformer.resblocks.0.ln_1.weight": torch.zeros(9),
               "visual.class_embedding": weights["cls_token"].flatten(),
               "visual.positional_embedding": weights["pos_embed"][0], "visual.proj": weights["head.weight"].T}
    for key, value in weights.items():
        if key not in ("cls_token", "pos_embed", "head.weight", "head.bias"):
            for one, other in names:
                key = key.replace(one, other)
            renamed[f"visual.{'ln_post' + key[4:] if key.startswith('norm.') else key}"] = value
    return renamed


@pytest.mark.parametrize("change", [
    lambda weights: weights,
    lambda weights: {"state_dict": {f"module.{key}": value for key, value in weights.items()}},  # open_clip's training
    lambda weights: {key.removeprefix("visual."): value for key, value in weights.items() if key.startswith("visual.")},
    lambda weights: {key: value.half() for key, value in weights.items()}])
def test_clip_under_openai_names(tmp_path, change):
    """For the image model of I2P-MAE and as the teacher of ACT."""
    original = timm.create_model("vit_base_patch16_clip_quickgelu_224.openai", num_classes=512, **TINY).state_dict()
    torch.save(change(openai_names(original)), tmp_path / "clip.pth")
    loaded = build("ViT-B/16", 512, str(tmp_path / "clip.pth")).model.state_dict()
    teacher = build_vision("CLIP:ViT-B/16", str(tmp_path / "clip.pth"), TINY)
    assert loaded.keys() == original.keys()
    for key, value in original.items():
        if key != "head.bias":  # which OpenAI's does not have
            torch.testing.assert_close(loaded[key], value, atol=1e-3, rtol=1e-3)
    assert loaded["head.bias"].count_nonzero() == 0
    torch.testing.assert_close(teacher[0][1].mlp.fc2.weight, original["blocks.1.mlp.fc2.weight"], atol=1e-3, rtol=1e-3)
    with pytest.raises(CheckpointError, match="names must be timm's, or OpenAI's of CLIP"):
        build("ViT-B/16", 512, str(tmp_path / "clip.pth"), depth=3)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_told_what_is_wanted(tmp_path):
    class Whole(torch.nn.Module):
        def forward(self, x):
            return x

    torch.jit.script(Whole()).save(str(tmp_path / "ViT-B-16.pt"))
    with pytest.raises(CheckpointError, match="ViT-B-16.pt is a TorchScript archive, as OpenAI has it; give timm's "
                                              "weights, or the state dict: torch.save"):
        build("ViT-B/16", 512, str(tmp_path / "ViT-B-16.pt"))
