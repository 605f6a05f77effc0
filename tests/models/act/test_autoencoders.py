import math

import pytest
import timm
import torch
from safetensors.torch import save_file

from models import build_model_from_cfg
from models.act.codebook import codebook_perplexity
from models.foundation import build_vision
from models.foundation.vision import prompted_block
from models.layers.dgcnn import center_graph
from models.layers.patches import group
from models.losses import code_kl, reconstruction_loss
from utils.errors import CheckpointError, ConfigError

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3}
CONFIG = {
    "NAME": "ACTPromptedDiscreteVAEwithVIT", "visual_embed_type": "vit_tiny_patch16_224", "visual_embed_dim": 48,
    "visual_embed_pretrained": False, "visual_embed_kwargs": TINY, "num_prompt_token": 4, "num_group": 8,
    "group_size": 8, "num_tokens": 16, "encoder_dims": 16, "tokens_dims": 16, "decoder_dims": 16}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(**changes):
    return build_model_from_cfg({**CONFIG, **changes})


def test_prompts_as_keys_and_values_equal_the_whole_sequence():
    block = timm.create_model("vit_tiny_patch16_224", **TINY).blocks[1].eval()
    x, prompts = torch.randn(2, 5, 48), torch.randn(1, 4, 48)
    whole = block(torch.cat([prompts.expand(2, -1, -1), x], 1))[:, 4:]
    torch.testing.assert_close(prompted_block(block, x, prompts), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("prompts", "deep"), [(4, True), (4, False), (0, False)])
def test_only_the_foundation_blocks_are_frozen(prompts, deep):
    model = build(num_prompt_token=prompts, use_deep_prompt=deep)
    model.train()(torch.rand(2, 64, 3), 1.0, 0.1)["loss"].backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith("visual_embed.")}
    assert not model.visual_embed.training


def test_an_unfrozen_transformer_trains():
    model = build(freeze_visual_embed=False).train()
    model(torch.rand(2, 64, 3))["loss"].backward()
    assert model.visual_embed.training
    assert all(parameter.grad is not None for parameter in model.visual_embed.parameters())


def test_prompt_dropout_is_on_in_training_alone():
    model = build()
    tokens, center = torch.randn(2, 8, 16), torch.randn(2, 8, 3)
    model.train()
    assert not torch.equal(model.transform(tokens, center), model.transform(tokens, center))
    model.eval()
    assert torch.equal(model.transform(tokens, center), model.transform(tokens, center))


def test_evaluation_takes_the_arg_max_codes():
    model = build().eval()
    out = model(torch.rand(2, 64, 3))
    assert torch.equal(out["codes"], out["logits"].argmax(-1))
    assert out["whole_coarse"].shape == (2, 16, 3)
    assert out["whole_fine"].shape == (2, 64, 3)
    assert 1 <= out["perplexity"] <= 16


def test_sampled_teacher_codes_follow_the_distribution():
    model = build().eval()
    seen = []
    model.code_logits = lambda *_: torch.tensor([0.7, 0.2, 0.1]).log().expand(4000, 8, 3)
    model.transform = lambda tokens, center: seen.append(tokens) or tokens
    with torch.no_grad():
        model.codebook[:3] = torch.eye(3, 16)
        model.teacher_features(None, torch.rand(4000, 8, 3), "gumbel", after_dgcnn2=False)
    assert seen[0].mean((0, 1))[:3].tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.01)


def test_kl_by_hand():
    logits = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]).log()
    assert code_kl(logits).item() == pytest.approx(math.log(0.5) - (math.log(0.7) + math.log(0.3)) / 2)


def test_kl_of_unused_codes_is_finite():
    assert torch.isfinite(code_kl(torch.tensor([[[0.0, -1e4]]])))


def test_reconstruction_loss_by_hand():
    target = torch.zeros(1, 1, 4, 3)
    coarse = torch.zeros(1, 1, 1, 3) + torch.tensor([3.0, 4.0, 0.0])
    assert reconstruction_loss(coarse, target, target).item() == pytest.approx(5.0)


@pytest.mark.parametrize(("change", "message"), [
    ({"visual_embed_type": "vit_tinny"}, "visual_embed_type 'vit_tinny' is not a model of timm"),
    ({"visual_embed_dim": 32}, "visual_embed_dim is 32, but 'vit_tiny_patch16_224' is 48 wide"),
    ({"visual_embed_type": "resnet18", "visual_embed_kwargs": {}}, "'resnet18' is not a vision Transformer"),
    ({"visual_embed_kwargs": {"dept": 3}}, "timm cannot build 'vit_tiny_patch16_224'"),
    ({"visual_embed_pos": "before"}, "visual_embed_pos is 'before'; it must be after_dgcnn1"),
    ({"group_size": 10}, "group_size is 10; it must be a whole number .*, a multiple of 4: the decoder folds"),
    ({"tokens_dim": 3}, r"unknown key 'model.tokens_dim' \(did you mean 'tokens_dims'\?\)"),
])
def test_wrong_configs(change, message):
    with pytest.raises(ConfigError, match=message):
        build(**change)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_weight_file_is_loaded(tmp_path, suffix):
    vit = timm.create_model("vit_tiny_patch16_224", **TINY)
    path = tmp_path / f"vit.{suffix}"
    save_file(vit.state_dict(), path) if suffix == "safetensors" else torch.save(vit.state_dict(), path)
    blocks, norm = build_vision("vit_tiny_patch16_224", str(path), TINY)
    assert torch.equal(blocks[2].attn.qkv.weight, vit.blocks[2].attn.qkv.weight)
    assert torch.equal(norm.bias, vit.norm.bias)


@pytest.mark.parametrize("kwargs", [{**TINY, "depth": 2}, {**TINY, "depth": 4}, {**TINY, "embed_dim": 24}])
def test_a_weight_file_of_another_transformer_is_refused(tmp_path, kwargs):
    path = tmp_path / "vit.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", **TINY).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"vit.safetensors does not hold the Transformer .* match, "):
        build_vision("vit_tiny_patch16_224", str(path), kwargs)


@pytest.fixture
def unreachable(monkeypatch):
    monkeypatch.setattr("models.foundation.weights._cached", lambda timm, name: False)
    monkeypatch.setattr("models.foundation.weights.hub_answers", lambda: False)


@pytest.mark.usefixtures("unreachable")
def test_weights_that_cannot_be_downloaded():
    with pytest.raises(ConfigError, match=r"could not be downloaded .* Set model.visual_embed_pretrained to a "):
        build(visual_embed_pretrained=True)
    with pytest.warns(UserWarning, match="going on with random weights"):
        build(visual_embed_pretrained="auto")


def test_spread_codes_makes_every_logit_vary_alike_over_patches():
    model = build().train()
    points = torch.rand(32, 64, 3) * torch.tensor([1, 0.5, 0.2])
    neighborhood, center = group(points, 8, 8)
    graph = center_graph(center)

    def logits():  # before the last LeakyReLU, whose slope below 0 is 0.2
        x = model.code_logits(neighborhood, graph).detach()
        return torch.where(x < 0, x / 0.2, x).flatten(0, 1)  # BG V

    built = logits()
    assert built.mean(0).std() > built.std(0).mean() / 2  # what it is there for
    model.spread_codes(points, 3)
    torch.testing.assert_close(logits().mean(0), torch.zeros(16), rtol=0, atol=1e-2)
    torch.testing.assert_close(logits().std(0), torch.full((16,), 3.0), rtol=0, atol=1e-2)
    assert codebook_perplexity(logits().argmax(-1), 16) > 2 * codebook_perplexity(built.argmax(-1), 16)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_how_much_noise_codes_have(noise):
    """At a low temperature the mixture is the arg-max of the logits with that much Gumbel noise."""
    model = build(code_noise=noise)
    logits = torch.randn(2, 8, model.num_tokens, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    tokens = model.soft_tokens(logits, 1e-4)
    torch.manual_seed(2)
    noisy = logits - noise * torch.empty_like(logits).exponential_().log()
    torch.testing.assert_close(tokens, model.codebook[noisy.argmax(-1)])


def test_published_noise_is_the_gumbel_softmax():
    model = build()
    logits = torch.randn(2, 8, model.num_tokens)
    torch.manual_seed(2)
    expected = torch.nn.functional.gumbel_softmax(logits, 0.7) @ model.codebook
    torch.manual_seed(2)
    assert torch.equal(model.soft_tokens(logits, 0.7), expected)


def test_reconstruction_with_codes_exchanged():
    """Every patch has the code of another; where all codes are alike, that changes nothing."""
    model, points = build().eval(), torch.rand(4, 64, 3)
    with torch.no_grad():
        model.codebook.mul_(20)
        model.spread_codes(points, 4.0)
        neighborhood, center = group(points, 8, 8)
        codes = model.codes(neighborhood, center)
        order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
        exchanged = model.codebook[codes.flatten()[order]].view(4, 8, 16)
        assert len(codes.unique()) > 2
        expected = reconstruction_loss(*model.decode(exchanged, center, center_graph(center)), neighborhood)
        torch.testing.assert_close(model.shuffled_loss(points), expected)
        assert abs(expected - model(points)["recon_loss"]) > 1e-5
        model.codebook.copy_(model.codebook[:1].expand_as(model.codebook))
        torch.testing.assert_close(model.shuffled_loss(points), model(points)["recon_loss"])


def test_widths_of_the_graph_layers_and_the_decoder():
    model = build(dgcnn_dims=[8, 8, 12, 16, 20], folding_dims=[32, 24])
    assert [model.dgcnn_1.input_trans.out_channels, *(layer[0].out_channels for layer in (
        model.dgcnn_2.layer1, model.dgcnn_2.layer2, model.dgcnn_2.layer3, model.dgcnn_2.layer4))] == [8, 8, 12, 16, 20]
    assert model.dgcnn_1.layer5[0].in_channels == 8 + 12 + 16 + 20
    assert (model.decoder.mlp[0].out_features, model.decoder.final_conv[0].out_channels) == (32, 24)
    assert math.isfinite(model(torch.rand(2, 64, 3))["loss"].item())
    for change, message in (({"dgcnn_dims": [8, 8]}, "it must be a list of 5 whole numbers .*: of five layers"),
                            ({"dgcnn_dims": [8, 8, 8, 8, 6]}, "multiples of 4: .* whose norms have 4 groups"),
                            ({"folding_dims": 8}, "folding_dims is 8; it must be a list of 2 whole numbers")):
        with pytest.raises(ConfigError, match=message):
            build(**change)
