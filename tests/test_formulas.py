"""What the published code computes where no case was recorded: key tables and formulas, written down here anew.

The oracle is built of torch alone; it takes nothing of the models but their state dict.
"""
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
import transformers
from parity_recipe import cloud, fill

from models import build_model_from_cfg
from models.act.prompted_dvae import ACTPromptedDiscreteVAEwithBERT
from utils import checkpoint

# ---- the oracle


def batch_norm(w, name, x):
    """Batch norm in evaluation of ``x`` (..., C)."""
    x = (x - w[f"{name}.running_mean"]) / (w[f"{name}.running_var"] + 1e-5).sqrt()
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"].flatten(1), w.get(f"{name}.bias"))


def norm(w, name, x):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def patches_of(points, groups, size):
    """Return the patches (B, G, K, 3) of clouds, relative to their centres, and the centres (B, G, 3)."""
    centers = []
    for xyz in points:
        picked, distance = [0], torch.full((len(xyz),), math.inf)
        for _ in range(groups - 1):
            distance = torch.minimum(distance, (xyz - xyz[picked[-1]]).square().sum(-1))
            picked.append(int(distance.masked_fill(xyz.square().sum(-1) <= 1e-3, -1).argmax()))
        centers.append(xyz[picked])
    center = torch.stack(centers)
    index = (center[:, :, None] - points[:, None]).square().sum(-1).argsort(dim=-1, stable=True)[..., :size]  # B G K
    rows = torch.arange(len(points))[:, None, None]
    return points[rows, index] - center[:, :, None], center


def patch_tokens(w, name, patches):
    x = linear(w, f"{name}.first_conv.3", batch_norm(w, f"{name}.first_conv.1", linear(
        w, f"{name}.first_conv.0", patches)).relu())
    x = torch.cat([x.amax(2, keepdim=True).expand_as(x), x], -1)
    return linear(w, f"{name}.second_conv.3", batch_norm(w, f"{name}.second_conv.1", linear(
        w, f"{name}.second_conv.0", x)).relu()).amax(2)


def block(w, name, x, heads):
    q, k, v = linear(w, f"{name}.attn.qkv", norm(w, f"{name}.norm1", x)).unflatten(-1, (3, heads, -1)).unbind(2)
    score = torch.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
    x = x + linear(w, f"{name}.attn.proj", torch.einsum("bhqk,bkhc->bqhc", score.softmax(-1), v).flatten(2))
    return x + linear(w, f"{name}.mlp.fc2", F.gelu(linear(w, f"{name}.mlp.fc1", norm(w, f"{name}.norm2", x))))


def position(w, name, center):
    return linear(w, f"{name}.2", F.gelu(linear(w, f"{name}.0", center)))


def encoder(w, prefix, tokens, center, depth, heads):
    """Return the outputs of every block and, last, the normed ones: class token in front, position before each."""
    x = torch.cat([w[f"{prefix}cls_token"].expand(len(tokens), -1, -1), tokens], 1)
    pos = torch.cat([w[f"{prefix}cls_pos"].expand(len(tokens), -1, -1),
                     position(w, f"{prefix}pos_embed", center)], 1)
    outputs = []
    for index in range(depth):
        x = block(w, f"{prefix}blocks.blocks.{index}", x + pos, heads)
        outputs.append(x)
    return [*outputs, norm(w, f"{prefix}norm", x)]


def head(w, x):
    for layer in (0, 4):
        name = f"cls_head_finetune.{layer}"
        x = batch_norm(w, f"cls_head_finetune.{layer + 1}", linear(w, name, x)).relu()
    return linear(w, "cls_head_finetune.8", x)


def weights_of(model):
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


# ---- side and bit-fit

CLASSIFIER = {"NAME": "PointTransformer", "embed_dim": 24, "depth": 3, "num_heads": 3, "encoder_dims": 24,
              "cls_dim": 5, "group_size": 8, "num_group": 8}
PATCH_ENCODER = {"first_conv.0": (128, 3, 1), "first_conv.3": (256, 128, 1), "second_conv.0": (512, 512, 1),
                 "second_conv.3": ("C", 512, 1)}


def side_table(width):
    """The published names and shapes of the side network."""
    table = {"side_projection.weight": (width, width), "side_alpha": (1,)}
    for name, shape in PATCH_ENCODER.items():
        shape = tuple(width if size == "C" else size for size in shape)
        table |= {f"side.{name}.weight": shape, f"side.{name}.bias": shape[:1]}
    for name, channels in (("first_conv.1", 128), ("second_conv.1", 512)):
        table |= {f"side.{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
        table[f"side.{name}.num_batches_tracked"] = ()
    return table


def test_the_side_network_has_its_published_names():
    with torch.device("meta"):
        full, side = (build_model_from_cfg({"NAME": "PointTransformer", "cls_dim": 40, "transfer_type": kind})
                      for kind in ("full", "side"))
    added = {key: tuple(value.shape) for key, value in side.state_dict().items() if key not in full.state_dict()}
    assert added == side_table(384)
    assert full.state_dict().keys() < side.state_dict().keys()
    trained = {name for name, parameter in side.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in side.named_parameters() if "side" in name or "cls" in name}
    assert {"side_alpha", "side_projection.weight", "side.first_conv.0.weight", "cls_token", "cls_pos",
            "cls_head_finetune.8.bias"} <= trained


def test_the_side_network_computes_what_is_published():
    """σ · tokens + (1 − σ) · projected side tokens, then the maximum; values, loss and every trained gradient."""
    model = build_model_from_cfg({**CLASSIFIER, "transfer_type": "side"})
    assert model.side_alpha.tolist() == [0]
    fill(model).eval()
    w, points, label = weights_of(model), cloud(3, 2, 64), torch.tensor([1, 4])
    trained = {name: w[name].requires_grad_() for name, parameter in model.named_parameters()
               if parameter.requires_grad}
    patches, center = patches_of(points, 8, 8)
    x = encoder(w, "", patch_tokens(w, "encoder", patches), center, 3, 3)[-1]
    share = 1 / (1 + (-w["side_alpha"]).exp())
    blended = share * x[:, 1:] + (1 - share) * (patch_tokens(w, "side", patches) @ w["side_projection.weight"].T)
    logits = head(w, torch.cat([x[:, 0], blended.amax(1)], -1))
    loss = -logits.log_softmax(-1)[[0, 1], label].mean()
    loss.backward()
    out = model(points, label)
    out["loss"].backward()
    same(out["logits"], logits)
    same(out["loss"], loss)
    parameters = dict(model.named_parameters())
    for name, value in trained.items():
        assert parameters[name].grad.norm().item() == pytest.approx(value.grad.norm().item(), rel=2e-3, abs=1e-6), name


def test_a_side_network_of_the_first_version_computes_the_same():
    """It had no projection, so the projection of such a file is the identity."""
    model = fill(build_model_from_cfg({**CLASSIFIER, "transfer_type": "side"})).eval()
    with torch.no_grad():
        model.side_projection.weight.copy_(torch.eye(24))
    old = {key.replace("side.", "side_encoder."): value for key, value in model.state_dict().items()
           if not key.startswith("side_projection.")}
    old["side_alpha"] = old["side_alpha"].reshape(())
    loaded = build_model_from_cfg({**CLASSIFIER, "transfer_type": "side"}).eval()
    checkpoint.load_model(loaded, old, "old.pth", complete=True)
    points = cloud(3, 2, 64)
    assert torch.equal(loaded(points)["logits"], model(points)["logits"])


def test_bit_fit_trains_biases_and_whatever_is_called_cls():
    with torch.device("meta"):
        model = build_model_from_cfg({"NAME": "PointTransformer", "cls_dim": 40, "transfer_type": "bit-fit"})
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == [name for name, _ in model.named_parameters() if "bias" in name or "cls" in name]
    blocks = [f"blocks.blocks.{index}.{part}.bias" for index in range(12)
              for part in ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")]
    others = [*(f"encoder.{part}.{layer}.bias" for part in ("first_conv", "second_conv") for layer in (0, 1, 3)),
              "pos_embed.0.bias", "pos_embed.2.bias", "norm.bias"]
    heads = [f"cls_head_finetune.{layer}.{part}" for layer in (0, 1, 4, 5, 8) for part in ("weight", "bias")]
    assert sorted(trained) == sorted(["cls_token", "cls_pos", *blocks, *others, *heads])


# ---- stage II with a second loss

DVAE = {"visual_embed_type": "vit_tiny_patch16_224", "visual_embed_dim": 48, "visual_embed_pretrained": False,
        "visual_embed_kwargs": {"embed_dim": 48, "depth": 2, "num_heads": 3}, "num_prompt_token": 4, "num_group": 8,
        "group_size": 8, "num_tokens": 16, "encoder_dims": 24, "tokens_dims": 16, "decoder_dims": 20,
        "teacher_codes": "argmax"}
STUDENT = {"embed_dim": 24, "encoder_dims": 24, "depth": 3, "num_heads": 3, "cls_dim": 8, "decoder_depth": 1,
           "decoder_num_heads": 3, "register_shallow_hook": 1}


def distillation(**student):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "model.dvae_config.ckpt is not given")
        return build_model_from_cfg({"NAME": "ACT_PointDistillation", "transformer_config": {**STUDENT, **student},
                                     "dvae_config": DVAE})


def test_the_position_of_the_second_loss_is_called_as_published():
    with_it, without = distillation(cls_loss=True).state_dict(), distillation().state_dict()
    assert {key: tuple(with_it[key].shape) for key in with_it.keys() - without.keys()} == {"cls_pos": (1, 1, 24)}


def test_the_second_loss_computes_what_is_published():
    model = fill(distillation(cls_loss=True), "dvae_tokenizer.").eval()
    w, points = weights_of(model), cloud(4, 2, 64)
    mask = torch.tensor([[True] * 6 + [False] * 2, [False, True] + [True] * 5 + [False]])
    patches, center = patches_of(points, 8, 8)
    with torch.no_grad():
        target = model.dvae_tokenizer.teacher_features(patches, center, "argmax")
        order = mask.int().argsort(dim=1, stable=True)
        rows = torch.arange(2)[:, None]
        center, target = center[rows, order], target[rows, order]
        tokens = patch_tokens(w, "ACT_encoder.encoder", patches)[rows, order[:, :2]]
        *blocks, x = encoder(w, "ACT_encoder.", tokens, center[:, :2], 3, 3)
        pos = position(w, "decoder_pos_embed", center)
        hidden = w["mask_token"].expand(2, 6, -1)
        first = torch.cat([x[:, 1:], hidden], 1)
        second = torch.cat([x[:, :1], blocks[1][:, 1:], hidden], 1)  # the class token, what block 1 gave
        loss = 0
        for given, places in ((first, pos), (second, torch.cat([w["cls_pos"].expand(2, -1, -1), pos], 1))):
            out = norm(w, "ACT_decoder.norm", block(w, "ACT_decoder.blocks.0", given + places, 3)[:, -6:])
            loss = loss + 1 - F.cosine_similarity(linear(w, "proj_head", out), target[:, -6:], dim=-1).mean()
        same(model(points, mask)["loss"], loss)


def test_a_student_of_the_first_version_loads():
    model = fill(distillation(cls_loss=True))
    old = {{"cls_pos": "decoder_cls_pos"}.get(key, key): value for key, value in model.state_dict().items()}
    loaded = distillation(cls_loss=True)
    checkpoint.load_model(loaded, old, "old.pth", complete=True)
    assert torch.equal(loaded.cls_pos, model.cls_pos)
    assert not torch.equal(loaded.cls_pos, loaded.ACT_encoder.cls_pos)


def test_the_classifier_takes_the_position_of_the_encoder():
    """A file with a second loss holds two weights called cls_pos."""
    student, classifier = fill(distillation(cls_loss=True)), build_model_from_cfg(CLASSIFIER)
    checkpoint.load_model(classifier, student.state_dict(), "stage2.pth")
    assert torch.equal(classifier.cls_pos, student.ACT_encoder.cls_pos)


# ---- BERT

BERT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 9}
LAYER = {"attention.self.query": (24, 24), "attention.self.key": (24, 24), "attention.self.value": (24, 24),
         "attention.output.dense": (24, 24), "attention.output.LayerNorm": (24,), "intermediate.dense": (48, 24),
         "output.dense": (24, 48), "output.LayerNorm": (24,)}


def bert(**changes):
    return build_model_from_cfg({
        "NAME": "ACTPromptedDiscreteVAEwithBERT", "visual_embed_type": "bert-base-uncased", "visual_embed_dim": 24,
        "visual_embed_pretrained": False, "visual_embed_kwargs": BERT, "num_group": 8, "group_size": 8,
        "num_tokens": 16, "encoder_dims": 16, "tokens_dims": 16, "decoder_dims": 16, "num_prompt_token": 3,
        "use_deep_prompt": False, **changes})


def test_the_names_of_a_language_model_are_the_published_ones():
    table = {f"visual_embed.0.layer.{index}.{name}.{part}": shape if part == "weight" else shape[:1]
             for index in range(3) for name, shape in LAYER.items() for part in ("weight", "bias")}
    assert {key: tuple(value.shape) for key, value in bert().state_dict().items()
            if key.startswith("visual_embed.")} == table


@pytest.mark.parametrize("prompts", [0, 3])
def test_a_language_model_gets_positions_once(prompts):
    """The whole encoder, transformers' own, on tokens + positions; prompts, if any, and theirs in front."""
    model = fill(bert(num_prompt_token=prompts)).eval()
    w, center = weights_of(model), torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    tokens = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(1))
    encoder = transformers.BertModel(transformers.BertConfig(**BERT)).encoder.eval()
    encoder.load_state_dict({key.removeprefix("visual_embed.0."): value for key, value in w.items()
                             if key.startswith("visual_embed.0.")})
    with torch.no_grad():
        x, pos = linear(w, "proj_pre", tokens), position(w, "visual_pos_embed", center)
        if prompts:
            x, pos = (torch.cat([w[name].expand(2, -1, -1), part], 1) for name, part in (
                ("visual_prompt_token", x), ("visual_prompt_pos", pos)))
        expected = linear(w, "proj_post", encoder(x + pos).last_hidden_state[:, prompts:])
        same(model.transform(tokens, center), expected)


def test_deep_prompts_of_a_language_model_keep_positions_before_every_layer():
    model = fill(bert(use_deep_prompt=True)).eval()
    tokens, center = torch.randn(1, 8, 16), torch.randn(1, 8, 3)
    with torch.no_grad():
        x, pos = model.proj_pre(tokens), model.visual_pos_embed(center)
        prompts = torch.cat([model.visual_prompt_token, model.deep_prompt_tokens])
        places = torch.cat([model.visual_prompt_pos, model.deep_prompt_pos])
        for index in range(3):
            x = model.visual_embed.block(index, x + pos, (prompts + places)[index:index + 1])
        same(model.transform(tokens, center), model.proj_post(x))


@pytest.mark.parametrize("prefix", ["", "dvae_tokenizer."])
def test_a_language_model_of_the_first_version_loads(prefix):
    """Alone, and as the teacher inside a file of stage II."""
    model = fill(bert())
    old = {prefix + key.replace("visual_embed.0.layer.", "visual_embed.0."): value
           for key, value in model.state_dict().items()}
    assert f"{prefix}visual_embed.0.2.output.dense.weight" in old
    if not prefix:
        loaded = bert()
        checkpoint.load_model(loaded, old, "old.pth", complete=True)
    else:
        teacher = {"NAME": "ACTPromptedDiscreteVAEwithBERT", "visual_embed_type": "bert-base-uncased",
                   "visual_embed_dim": 24, "visual_embed_pretrained": False, "visual_embed_kwargs": BERT,
                   "num_group": 8, "group_size": 8, "num_tokens": 16, "encoder_dims": 16, "tokens_dims": 16,
                   "decoder_dims": 16, "num_prompt_token": 3, "use_deep_prompt": False}
        with pytest.warns(UserWarning, match="untrained|encoder_dims is not used"):
            student = build_model_from_cfg({"NAME": "ACT_PointDistillation", "dvae_config": teacher,
                                            "transformer_config": STUDENT})
        own = {key: value for key, value in student.state_dict().items() if not key.startswith(prefix)}
        checkpoint.load_model(student, own | old, "old.pth", complete=True)
        loaded = student.dvae_tokenizer
    assert isinstance(loaded, ACTPromptedDiscreteVAEwithBERT)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


# ---- label smoothing of I2P-MAE

@pytest.mark.parametrize(("smooth", "classes"), [(0.2, 40), (0.2, 5), (0.9, 3), (0.0, 4), (0.2, 1)])
def test_label_smoothing_is_the_published_one(smooth, classes):
    """1 − ε at the true class, ε / (C − 1) at every other."""
    model = build_model_from_cfg({"NAME": "I2P_MAE_ModelNet40", "num_groups": [32, 16, 8], "group_sizes": [8, 4, 4],
                                  "encoder_depths": [1, 1, 1], "encoder_dims": [6, 12, 24], "num_heads": 3,
                                  "cls_dim": classes, "smooth": smooth, "drop_path_rate": 0.0})
    fill(model).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    points, label = cloud(5, 4, 64), torch.arange(4) % classes
    out = model(points, label)
    log, terms = out["logits"].detach().double().log_softmax(-1), []
    for row, true in zip(log, label.tolist(), strict=True):
        others = sum(row[index] for index in range(classes) if index != true)
        terms.append(-(1 - smooth) * row[true] - (smooth / (classes - 1) * others if classes > 1 else 0))
    assert out["loss"].item() == pytest.approx(float(sum(terms)) / 4, rel=1e-5, abs=1e-6)
    fill(model).eval()
    out = model(points, label)
    torch.testing.assert_close(out["loss"], F.cross_entropy(out["logits"], label))
