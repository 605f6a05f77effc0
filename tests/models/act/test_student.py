import warnings

import pytest
import torch

from models import PointSegmenter, build_model_from_cfg
from models.foundation import weights as foundation
from models.layers.dgcnn import center_graph
from models.layers.patches import group
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError

DVAE = {"visual_embed_type": "vit_tiny_patch16_224", "visual_embed_dim": 48, "visual_embed_pretrained": False,
        "visual_embed_kwargs": {"embed_dim": 48, "depth": 2, "num_heads": 3}, "num_prompt_token": 4, "num_group": 8,
        "group_size": 8, "num_tokens": 16, "encoder_dims": 24, "tokens_dims": 16, "decoder_dims": 20}
STUDENT = {"embed_dim": 24, "encoder_dims": 24, "depth": 3, "num_heads": 3, "cls_dim": 8, "decoder_depth": 1,
           "decoder_num_heads": 3, "register_shallow_hook": 1}
CLASSIFIER = {"NAME": "PointTransformer", "embed_dim": 24, "depth": 3, "num_heads": 3, "encoder_dims": 24,
              "cls_dim": 5, "group_size": 8, "num_group": 8}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def distillation(loss="cosine", dvae=None, keys=None, **student):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "model.dvae_config.ckpt is not given")
        return build_model_from_cfg({"NAME": "ACT_PointDistillation", "loss": loss, **(keys or {}),
                                     "transformer_config": {**STUDENT, **student},
                                     "dvae_config": {**DVAE, **(dvae or {})}})


POINTS = torch.rand(3, 64, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("change", [
    {"loss": "cosine"}, {"loss": "l2"}, {"loss": "smoothl1"}, {"mask_type": "block"}, {"mask_ratio": 0.0},
    {"proj": "conv"}, {"cls_loss": True}, {"return_all_tokens": True}, {"dvae": {"teacher_codes": "argmax"}},
    {"dvae": {"teacher_mode": "train"}}, {"loss": "ntxent"}, {"loss": "barlowtwins"},
    {"dvae": {"teacher_target": "before_dgcnn2"}}, {"decoder_depth": 3}, {"dvae": {"teacher_codes": "soft"}},
    {"dvae": {"teacher_layer": 0}}, {"keys": {"target_norm": "standardise"}}, {"keys": {"cloud_loss": 1}},
    {"keys": {"cloud_loss": 0.5, "target_norm": "standardise"}, "loss": "ntxent", "cls_loss": True},
])
def test_every_variant_trains_the_student_alone(change):
    model = distillation(**change).train()
    out = model(POINTS)
    out["loss"].backward()
    dead = ("ACT_encoder.lm_head.", "ACT_encoder.cls_head.", "dvae_tokenizer.")
    if change.get("mask_ratio") == 0:
        dead += ("mask_token",)
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all(name.startswith(dead) for name in without), without
    assert any(name.startswith("dvae_tokenizer.") for name in without)
    assert model.dvae_tokenizer.training == (change.get("dvae", {}).get("teacher_mode") == "train")
    assert out["target_std"] > 0


def test_visible_tokens_are_those_not_masked():
    out = distillation(mask_ratio=0.75)(POINTS)
    assert out["encoder_visible"].shape == (3, 2, 24)


def test_masked_patches_do_not_reach_the_encoder():
    model = distillation(dvae={"teacher_codes": "argmax"}).eval()
    mask = torch.tensor([[True] * 6 + [False] * 2] * 3)
    first = model(POINTS, mask=mask)["encoder_visible"]
    model.mask_token.data += 1
    tokens = model.ACT_encoder.tokens
    model.ACT_encoder.tokens = lambda patches: tokens(patches).masked_fill(mask.unsqueeze(-1), 7.0)
    assert torch.equal(model(POINTS, mask=mask)["encoder_visible"], first)


def test_all_tokens_are_compared_where_asked():
    mask = torch.tensor([[True] * 4 + [False] * 4] * 3)
    some, whole = (distillation("l2", {"teacher_codes": "argmax"}, return_all_tokens=value) for value in (False, True))
    whole.load_state_dict(some.state_dict())
    compared = []
    for model in (some.eval(), whole.eval()):
        model.loss = lambda prediction, target: compared.append((prediction, target)) or prediction.sum()
        model(POINTS, mask=mask)
    assert [pair[0].shape[1] for pair in compared] == [4, 8]
    torch.testing.assert_close(compared[1][1][:, 4:], compared[0][1])


def test_losses_by_hand():
    prediction, target = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
    assert distillation("cosine").loss(prediction, target).item() == pytest.approx(1.0)  # 0 and 2
    assert distillation("l2").loss(prediction, target).item() == pytest.approx(2.0)  # (4 + 0 + 0 + 4) / 4
    assert distillation("smoothl1").loss(prediction, target).item() == pytest.approx(0.75)  # (1.5 + 0 + 0 + 1.5) / 4


@pytest.mark.parametrize(("change", "message"), [
    ({"loss": "cos"}, "loss 'cos' is not one of cosine, l2, smoothl1"),
    ({"proj": "mlp"}, "proj 'mlp' is not one of linear, conv, none"),
    ({"proj": "none"}, r"proj 'none' needs embed_dim \(24\) to be the target's width \(20\)"),
    ({"mask_type": "blok"}, "mask_type 'blok' is not one of rand, block"),
    ({"mask_ratio": 1.0}, "mask_ratio is 1.0; it must be a number of at least 0 and below 1"),
    ({"replace_pob": 0.1}, "replace_pob is 0.1; it must be 0: masked distillation replaces no tokens"),
    ({"cls_loss": True, "register_shallow_hook": 3}, "register_shallow_hook is 3, but the student's blocks are 0 … 2"),
    ({"maskratio": 0.5}, r"unknown key 'model.transformer_config.maskratio' \(did you mean 'mask_ratio'\?\)"),
    ({"dvae": {"teacher_codes": "mean"}}, "teacher_codes 'mean' is not one of gumbel, argmax, soft"),
    ({"keys": {"target_norm": "layer"}}, "target_norm 'layer' is not one of none, standardise"),
    ({"keys": {"cloud_loss": -1}}, "cloud_loss is -1; it must be a number of at least 0"),
    ({"dvae": {"teacher_layer": 2}}, "teacher_layer is 2, but the foundation Transformer's blocks are 0 … 1"),
    ({"dvae": {"teacher_layer": 0, "visual_embed_type": "none"}}, "teacher_layer is for a teacher with a foundation"),
    ({"dvae": {"code_noise": "no"}}, "code_noise is 'no'; it must be a number of at least 0"),
    ({"dvae": {"num_token": 3}}, r"unknown key 'model.dvae_config.num_token' \(did you mean 'num_tokens'\?\)"),
])
def test_wrong_configs(change, message):
    with pytest.raises(ConfigError, match=message):
        distillation(**change)


def test_the_teacher_is_the_stage_one_checkpoint(tmp_path):
    teacher = build_model_from_cfg({"NAME": "ACTPromptedDiscreteVAEwithVIT", **DVAE})
    path = str(tmp_path / "stage1.pth")
    checkpoint.save({"base_model": teacher.state_dict()}, path)
    model = distillation(dvae={"ckpt": path})
    assert all(torch.equal(value, model.dvae_tokenizer.state_dict()[key])
               for key, value in teacher.state_dict().items())
    with pytest.raises(CheckpointError, match=r"stage1.pth is not of this ACTPromptedDiscreteVAEwithVIT: "):
        distillation(dvae={"ckpt": path, "num_prompt_token": 3})


def test_a_checkpoint_of_the_teacher_needs_no_download(tmp_path, monkeypatch):
    monkeypatch.setattr(foundation, "_cached", lambda *arguments: pytest.fail("looked for pretrained weights"))
    teacher = build_model_from_cfg({"NAME": "ACTPromptedDiscreteVAEwithVIT", **DVAE})
    checkpoint.save({"base_model": teacher.state_dict()}, tmp_path / "stage1.pth")
    keys = {key: value for key, value in DVAE.items() if key != "visual_embed_pretrained"}  # true is its default
    build_model_from_cfg({"NAME": "ACT_PointDistillation", "transformer_config": STUDENT,
                          "dvae_config": {**keys, "ckpt": str(tmp_path / "stage1.pth")}})


def test_a_classifier_takes_over_the_student(tmp_path):
    student, classifier = distillation(), build_model_from_cfg(CLASSIFIER)
    checkpoint.save({"base_model": student.state_dict()}, tmp_path / "stage2.pth")
    checkpoint.load_model(classifier, checkpoint.read_weights(tmp_path / "stage2.pth"), "stage2.pth")
    with torch.no_grad():
        expected = student.eval().forward_features(POINTS)
        torch.testing.assert_close(classifier.eval().forward_features(POINTS), expected)


def test_a_classifier_of_another_width_is_refused():
    classifier = build_model_from_cfg({**CLASSIFIER, "embed_dim": 12, "encoder_dims": 12})
    with pytest.raises(CheckpointError, match="x.pth is not of this PointTransformer: 18 of 75 weights match, "):
        checkpoint.load_model(classifier, distillation().state_dict(), "x.pth")


TRAINED = {
    "linear": {"cls_token", "cls_pos", "cls_head_finetune.0.weight", "cls_head_finetune.0.bias"},
    "mlp-3": {"cls_token", "cls_pos", *(f"cls_head_finetune.{layer}.{kind}" for layer in (0, 1, 4, 5, 8)
                                        for kind in ("weight", "bias"))},
}


@pytest.mark.parametrize("kind", TRAINED)
def test_what_trains_in_a_probe(kind):
    model = build_model_from_cfg({**CLASSIFIER, "transfer_type": kind})
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == TRAINED[kind]


def test_what_trains_with_bit_fit_and_side():
    model = build_model_from_cfg({**CLASSIFIER, "transfer_type": "bit-fit"})
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"blocks.blocks.0.mlp.fc1.bias", "cls_token", "cls_pos", "cls_head_finetune.8.weight"} <= trained
    assert all("bias" in name or "cls" in name for name in trained)
    model = build_model_from_cfg({**CLASSIFIER, "transfer_type": "side"})
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"cls_token", "cls_pos", "cls_head_finetune", "side", "side_projection", "side_alpha"}


def test_a_side_network_starts_as_an_even_blend():
    model = build_model_from_cfg({**CLASSIFIER, "transfer_type": "side"}).eval()
    with torch.no_grad():
        both = model.forward_features(POINTS)[:, 24:]
        model.side_alpha.fill_(50.0)  # sigmoid 1: the backbone alone
        backbone = model.forward_features(POINTS)[:, 24:]
        model.side_alpha.fill_(-50.0)
        side = model.forward_features(POINTS)[:, 24:]
    assert not torch.allclose(backbone, side)
    assert (both <= (backbone + side) / 2 + 1e-5).all()  # a maximum of means is at most the mean of maxima


def test_unknown_transfer_type():
    with pytest.raises(ConfigError, match="transfer_type 'linaer' is not one of full, linear, mlp-3, side, bit-fit"):
        build_model_from_cfg({**CLASSIFIER, "transfer_type": "linaer"})


def targets_of(model):
    """Return what the student is compared with, for the same clouds, mask and noise."""
    seen = []
    model.loss = lambda prediction, target: seen.append(target) or prediction.sum()
    torch.manual_seed(5)
    model.eval()(POINTS, mask=torch.tensor([[True] * 4 + [False] * 4] * 3))
    return seen[0]


def test_the_target_is_the_feature_that_is_asked_for():
    after, before = (distillation(dvae={"teacher_target": name, "teacher_codes": "argmax"})
                     for name in ("after_dgcnn2", "before_dgcnn2"))
    before.dvae_tokenizer.load_state_dict(after.dvae_tokenizer.state_dict())
    teacher = after.eval().dvae_tokenizer
    neighborhood, center = group(POINTS, 8, 8)
    with torch.no_grad():
        for model, flag in ((after, True), (before, False)):
            expected = teacher.teacher_features(neighborhood, center, "argmax", flag)[:, :4]
            torch.testing.assert_close(targets_of(model), expected)
    assert (targets_of(after).shape[-1], targets_of(before).shape[-1]) == (20, 16)
    with pytest.raises(ConfigError, match="teacher_target 'dgcnn' is not one of after_dgcnn2, before_dgcnn2"):
        distillation(dvae={"teacher_target": "dgcnn"})


def test_soft_codes_mix_the_codebook():
    teacher = distillation().dvae_tokenizer.eval()
    neighborhood, center = group(POINTS, 8, 8)
    with torch.no_grad():
        logits = teacher.code_logits(neighborhood, center_graph(center))
        mixed = teacher.transform(logits.softmax(-1) @ teacher.codebook, center)
        torch.testing.assert_close(teacher.teacher_features(neighborhood, center, "soft", False), mixed)


def test_the_output_of_a_block_is_the_target():
    """That of the last block, normed and projected, is the feature before ``dgcnn_2``."""
    for change in ({}, {"use_deep_prompt": False}, {"num_prompt_token": 0}):
        model = distillation(dvae={"teacher_layer": 1, "teacher_codes": "argmax", **change}).eval()
        teacher, (neighborhood, center) = model.dvae_tokenizer, group(POINTS, 8, 8)
        with torch.no_grad():
            before = teacher.teacher_features(neighborhood, center, "argmax", False)
            torch.testing.assert_close(teacher.proj_post(teacher.visual_embed.end(
                teacher.teacher_features(neighborhood, center, "argmax", layer=1))), before)
            assert not torch.equal(teacher.teacher_features(neighborhood, center, "argmax", layer=0),
                                   teacher.teacher_features(neighborhood, center, "argmax", layer=1))
        assert targets_of(model).shape[-1] == 48


def test_standardised_targets():
    target = targets_of(distillation(dvae={"teacher_codes": "argmax"}, keys={"target_norm": "standardise"},
                                     return_all_tokens=True))
    std, mean = torch.std_mean(target.flatten(0, 1), 0)
    torch.testing.assert_close(mean, torch.zeros(20), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones(20), atol=1e-3, rtol=0)


def test_the_cloud_loss_is_added_and_sees_the_visible_patches_alone():
    keys, mask = {"cloud_loss": 0.5}, torch.tensor([[True] * 6 + [False] * 2] * 3)
    model = distillation("l2", {"teacher_codes": "argmax"}, keys).eval()
    out = model(POINTS, mask=mask)
    torch.testing.assert_close(out["loss"], out["token_loss"] + 0.5 * out["cloud_loss"])
    neighborhood, center = group(POINTS, 8, 8)
    with torch.no_grad():
        target = model.dvae_tokenizer.teacher_features(neighborhood, center, "argmax")
        pooled = torch.cat([target.mean(1), target.amax(1)], -1)
        std, mean = torch.std_mean(pooled, 0)
        x, _ = model.ACT_encoder.encode(model.ACT_encoder.tokens(neighborhood)[:, 6:], center[:, 6:])
        seen = torch.cat([x[:, 0], x[:, 1:].amax(1)], -1)
        expected = (model.cloud_head(seen) - (pooled - mean) / std.clamp_min(1e-4)).square().mean()
    torch.testing.assert_close(out["cloud_loss"], expected)
    assert model.cloud_head.weight.shape == (40, 48)


def test_the_loss_of_predicting_the_mean():
    """A student whose head gives the mean direction has that loss, whatever the patch."""
    model = distillation(dvae={"teacher_codes": "argmax"}, return_all_tokens=True).train()
    model(POINTS)
    with torch.no_grad():
        target = model.dvae_tokenizer.teacher_features(*group(POINTS, 8, 8), "argmax")
        model.proj_head.weight.zero_()
        model.proj_head.bias.copy_(torch.nn.functional.normalize(target, dim=-1).mean((0, 1)))
    out = model(POINTS)
    torch.testing.assert_close(out["mean_loss"], out["loss"])
    assert 0 < out["target_between"] < 1


def test_sampled_codes_give_other_targets_each_time():
    model = distillation(dvae={"teacher_codes": "gumbel"}).eval()
    neighborhood, center = group(POINTS, 8, 8)
    with torch.no_grad():
        one, two = (model.dvae_tokenizer.teacher_features(neighborhood, center, "gumbel") for _ in range(2))
        same = [model.dvae_tokenizer.teacher_features(neighborhood, center, "argmax") for _ in range(2)]
    assert not torch.equal(one, two)
    assert torch.equal(*same)


@pytest.mark.parametrize(("key", "values", "count"), [
    ("decoder_depth", (1, 3), lambda model: len(model.ACT_decoder.blocks)),
    ("mask_ratio", (0.25, 0.75), lambda model: 8 - model.eval()(POINTS)["encoder_visible"].shape[1]),
    ("depth", (2, 3), lambda model: len(model.ACT_encoder.blocks.blocks)),
])
def test_a_student_key_changes_what_it_says(key, values, count):
    expected = [int(8 * value) if key == "mask_ratio" else value for value in values]
    assert [count(distillation(**{key: value})) for value in values] == expected


@pytest.mark.parametrize(("key", "value", "there", "expected"), [
    ("num_heads", 2, lambda model: model.ACT_encoder.blocks.blocks[0].attn.num_heads, 2),
    ("decoder_num_heads", 4, lambda model: model.ACT_decoder.blocks[0].attn.num_heads, 4),
    ("drop_path_rate", 0.3, lambda model: model.ACT_encoder.blocks.blocks[-1].drop_path.rate, 0.3),
    ("cls_dim", 5, lambda model: model.ACT_encoder.cls_head[-1].out_features, 5),
    ("proj", "conv", lambda model: model.proj_head.weight.shape, (20, 24, 1)),
    ("proj", "linear", lambda model: model.proj_head.weight.shape, (20, 24)),
])
def test_a_student_key_shapes_the_model(key, value, there, expected):
    assert there(distillation(**{key: value})) == expected


def test_the_second_loss_takes_the_block_that_is_hooked():
    """``cls_loss`` adds the loss of the class token in front of what a shallow block gives."""
    mask = torch.tensor([[True] * 4 + [False] * 4] * 3)
    dvae = {"teacher_codes": "argmax"}

    def loss(**keys):
        torch.manual_seed(3)
        return distillation(dvae=dvae, **keys).eval()(POINTS, mask=mask)["loss"]

    with torch.no_grad():
        assert loss(register_shallow_hook=0).equal(loss(register_shallow_hook=2))
        one, other = (loss(cls_loss=True, register_shallow_hook=block) for block in (0, 2))
        assert not one.equal(other)
        model = distillation(dvae=dvae, cls_loss=True, register_shallow_hook=2).eval()
        terms, decode = [], model.decode
        model.decode = lambda front, pos, target: terms.append((front, decode(front, pos, target))) or terms[-1][1]
        total = model(POINTS, mask=mask)["loss"]
    assert total.equal(terms[0][1] + terms[1][1])
    assert [front.shape[1] for front, _ in terms] == [4, 5]


def test_a_teacher_in_training_mode_gives_other_targets():
    """As published: the batch's statistics and the dropout of prompts stay on."""
    found = {}
    for mode in ("eval", "train"):
        torch.manual_seed(2)
        model, seen = distillation(dvae={"teacher_mode": mode, "teacher_codes": "argmax"}).train(), []
        model.loss = lambda prediction, target, seen=seen: seen.append(target) or prediction.sum()
        torch.manual_seed(5)
        model(POINTS, mask=torch.tensor([[True] * 4 + [False] * 4] * 3))
        found[mode] = seen[0]
    assert (found["eval"] - found["train"]).abs().mean() > 0.01


@pytest.mark.parametrize(("changes", "shapes"), [
    ({"num_prompt_token": 5}, {"visual_prompt_token": (1, 5, 48), "deep_prompt_tokens": (1, 5, 48)}),
    ({"use_deep_prompt": False}, {"visual_prompt_token": (1, 4, 48), "deep_prompt_tokens": None}),
    ({"num_prompt_token": 0}, {"visual_prompt_token": None, "deep_prompt_tokens": None}),
])
def test_a_teacher_key_changes_what_it_says(changes, shapes):
    weights = distillation(dvae=changes).dvae_tokenizer.state_dict()
    for name, shape in shapes.items():
        assert (tuple(weights[name].shape) if name in weights else None) == shape


def test_a_student_of_every_loss_becomes_a_classifier_and_a_segmenter():
    """What the losses of stage II have beside the encoder is left over."""
    student = distillation(keys={"cloud_loss": 1}, cls_loss=True)
    assert any(key.startswith("cloud_head.") for key in student.state_dict())
    classifier = build_model_from_cfg(CLASSIFIER)
    report = checkpoint.load_model(classifier, student.state_dict(), "student.pth")
    assert ", 0 of another shape" in report
    torch.testing.assert_close(dict(classifier.blocks.state_dict()), dict(student.ACT_encoder.blocks.state_dict()))
    keys = {key: value for key, value in CLASSIFIER.items() if key not in ("NAME", "cls_dim")}
    segmenter = PointSegmenter(**keys, num_classes=4, taps=(1, 2, 3))
    checkpoint.load_model(segmenter, student.state_dict(), "student.pth")
    torch.testing.assert_close(dict(segmenter.blocks.state_dict()), dict(student.ACT_encoder.blocks.state_dict()))
