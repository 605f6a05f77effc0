"""I2P-MAE: the pre-training model and its classifiers."""
import pytest
import torch
import torch.nn.functional as F

from datasets.transforms import scale_and_translate
from models import build_model_from_cfg
from models.i2p_mae.model import chamfer_l2, read_saliency
from models.i2p_mae.projection import Projection
from models.layers.transformer import DropPath
from models.masking import guided_mask
from tools.benchmarks.i2p import looped
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError

IMAGE_MODEL = {"visual_encoder": "vit_tiny_patch16_224", "feat_dim": 24, "pretrained": False,
               "kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 3}}
SCALES = {"num_groups": [32, 16, 8], "group_sizes": [8, 4, 4], "encoder_depths": [1, 2, 1],
          "encoder_dims": [12, 24, 48], "num_heads": 3}
CONFIG = {"NAME": "I2P_MAE", **SCALES, "decoder_dims": [48, 24], "clip_config": IMAGE_MODEL}
POINTS = torch.randn(3, 128, 3, generator=torch.Generator().manual_seed(1))
UNUSED = {f"h_encoder.encoder_norms.0.{kind}" for kind in ("weight", "bias")}  # no decoder for the finest scale


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(**changes):
    return build_model_from_cfg({**CONFIG, **changes})


def without_gradient(model):
    return {name for name, parameter in model.named_parameters() if parameter.grad is None}


def test_every_parameter_that_takes_part_is_trained():
    model = build().train()
    out = model(POINTS)
    out["loss"].backward()
    assert without_gradient(model) == UNUSED
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert out["loss"].item() == pytest.approx(out["loss_3d"].item() + out["loss_2d"].item())


@pytest.mark.parametrize("change", [{"mask_type": "rand"}, {"mask_type": "block"}, {"loss_2d": False},
                                    {"decoder_dims": [48], "decoder_depths": [2]}])
def test_ablations_train(change):
    model = build(**change).train()
    out = model(POINTS)
    out["loss"].backward()
    head = {"rec_head_2d.weight", "rec_head_2d.bias"} if change.get("loss_2d") is False else set()
    finer = {name.replace(".0.", ".1.") for name in UNUSED} if "decoder_dims" in change else set()
    assert without_gradient(model) == UNUSED | head | finer
    assert ("loss_2d" in out) == ("loss_2d" not in change)


def test_a_step_lowers_the_loss():
    model = build().train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(45):
        loss = model(POINTS)["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_loops_compute_the_same():
    model = build().eval()
    mask = torch.tensor([[True] * 6 + [False] * 2, [False] * 2 + [True] * 6, [True, False] * 3 + [True] * 2])
    mask[2, 1:5] = torch.tensor([False, True, True, False])
    batched, plain = model(POINTS, mask), looped(model)(POINTS, mask)
    for name in ("loss_3d", "loss_2d"):
        torch.testing.assert_close(batched[name], plain[name], rtol=1e-5, atol=1e-6)


def test_a_cloud_alone_is_reconstructed_as_beside_others():
    model, generator = build().eval(), torch.Generator().manual_seed(0)  # the model's weights differ by version
    mask = torch.stack([torch.randperm(8, generator=generator) >= 2 for _ in range(3)])
    together = model(POINTS, mask)
    parts = [model(POINTS[index:index + 1], mask[index:index + 1]) for index in range(3)]
    assert len({len(part["original"]) for part in parts}) > 1  # the clouds differ in how much is masked
    for name in ("original", "reconstruction"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), together[name], rtol=1e-4, atol=1e-5)


def test_chamfer_by_hand():
    prediction = torch.tensor([[[0.0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]]])
    target = torch.tensor([[[1.0, 0, 0], [0, 2, 0]], [[0, 0, 0], [1, 0, 0]]])
    # forth: (1, 1), (0, 0); back: (1, 4), (0, 0)
    assert chamfer_l2(prediction, target).item() == pytest.approx(2 / 4 + 5 / 4)
    assert chamfer_l2(prediction[:0], target[:0]).item() == 0


def test_the_2d_target_is_what_the_views_show_at_the_points():
    model = build()
    projection = Projection(POINTS)
    maps = torch.stack(torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")).expand(9, -1, -1, -1)
    child = torch.randint(128, (3, 5, 4))
    masked = torch.rand(3, 5) < 0.5
    target = model.image_targets(maps, projection.pixels(POINTS), child, masked)
    enlarged = F.interpolate(maps, size=(224, 224), mode="bicubic")
    expected = []
    for cloud in range(3):
        for patch in range(5):
            if not masked[cloud, patch]:
                for point in child[cloud, patch]:
                    for view in range(3):
                        row, column = projection.pixels(POINTS)[3 * view + cloud, point]
                        expected.append(enlarged[3 * view + cloud, :, row, column])
    torch.testing.assert_close(target.flatten(), torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_the_2d_loss_is_the_mean_squared_error_of_visible_tokens():
    model = build().eval()
    mask = torch.tensor([[True] * 6 + [False] * 2] * 3)
    with torch.no_grad():
        model.rec_head_2d.weight.zero_()
        model.rec_head_2d.bias.fill_(0.5)
        model._image_model.model.norm.weight.zero_()
        model._image_model.model.norm.bias.fill_(2.0)
    assert model(POINTS, mask)["loss_2d"].item() == pytest.approx(1.5 ** 2, rel=1e-5)


def test_saliency_is_the_mean_over_views():
    attention = torch.arange(1.0, 10).view(9, 1, 1).expand(-1, 14, 14)  # view-major: cloud 0 has 1, 4, 7
    values = read_saliency(Projection(POINTS), attention, POINTS[:, :4])
    torch.testing.assert_close(values, torch.tensor([[4.0], [5], [6]]).expand(-1, 4))


def test_salient_tokens_are_seen_more_often():
    values = torch.tensor([[50.0, 50, 0, 0, 0, 0], [0, 0, 0, 0, 50, 50]])
    assert guided_mask(values, 4).tolist() == [[False] * 2 + [True] * 4, [True] * 4 + [False] * 2]
    values = torch.tensor([1.0, 0, 0]).expand(4000, -1)
    share = (~guided_mask(values, 2)).float().mean(0)
    torch.testing.assert_close(share, values[0].softmax(0), rtol=0, atol=0.03)


def test_what_the_image_model_attends_to_is_seen():
    """With attention so sharp that nothing is left to chance, and another one for each cloud."""
    model = build(mask_ratio=0.875).eval()  # one of eight tokens is seen
    slopes = torch.tensor([1.0, -1, 1]).repeat(3).view(9, 1, 1)  # view-major
    attention = 1e5 * slopes * torch.arange(196.0).view(1, 14, 14)
    model._image_model = lambda images: (torch.zeros(9, 24, 14, 14), attention)
    out = model(POINTS)
    assert (~out["mask"]).sum(1).tolist() == [1] * 3
    assert (~out["mask"]).int().argmax(1).tolist() == out["saliency"].argmax(1).tolist()


def test_drop_path_rates_rise_over_encoder_and_over_decoder():
    model = build(drop_path_rate=0.3)
    rates = [[module.rate for module in part.modules() if isinstance(module, DropPath)]
             for part in (model.h_encoder.encoder_blocks, model.h_decoder)]
    assert sorted(set(rates[0])) == pytest.approx([0, 0.1, 0.2, 0.3])  # four blocks
    assert sorted(set(rates[1])) == pytest.approx([0, 0.3])
    assert all(part == sorted(part) for part in rates)


def test_the_drawn_mask_has_the_asked_ratio():
    out = build(mask_ratio=0.7)(POINTS)
    assert out["mask"].sum(1).tolist() == [5] * 3  # int(0.7 * 8)
    assert out["saliency"].shape == (3, 8)


def test_without_need_there_is_no_image_model(monkeypatch):
    expected = build().state_dict().keys()
    monkeypatch.setattr("models.i2p_mae.image_model.create_pretrained", lambda *arguments: pytest.fail("built a model"))
    model = build(mask_type="rand", loss_2d=False)
    assert "saliency" not in model(POINTS)
    assert model.state_dict().keys() == expected


def test_the_image_model_is_no_part_of_the_model():
    model = build().train()
    image_model = model._image_model
    assert not any("image" in name for name in (*model.state_dict(), *dict(model.named_parameters())))
    assert not image_model.training
    before = image_model.model.pos_embed.clone()
    model.load_state_dict(build().state_dict())
    assert torch.equal(image_model.model.pos_embed, before)
    model.double()
    assert image_model.model.pos_embed.dtype == torch.float64  # it goes where the model goes


def test_features_are_the_maximum_over_the_coarsest_tokens():
    model = build().eval()
    features = model.forward_features(POINTS)
    assert features.shape == (3, 48)
    torch.testing.assert_close(features[1:2], model.forward_features(POINTS[1:2]), rtol=1e-4, atol=1e-5)
    norm = model.h_encoder.encoder_norms[-1]
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.copy_(torch.arange(48.0))
    assert torch.equal(model.forward_features(POINTS), torch.arange(48.0).expand(3, -1))


def test_mixed_precision():
    model = build().train()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(scale_and_translate(POINTS))
    out["loss"].backward()
    assert out["loss"].dtype == torch.float32
    assert without_gradient(model) == UNUSED


@pytest.mark.parametrize(("change", "message"), [
    ({"mask_ratio": 1.0}, "model.mask_ratio is 1.0; it must be a number between 0 and 1"),
    ({"mask_ratio": "0.8"}, "model.mask_ratio is '0.8'; it must be a number between 0 and 1"),
    ({"num_groups": 64}, "model.num_groups is 64; it must be a non-empty list of whole numbers .*: one for each scale"),
    ({"encoder_dims": 96}, r"model.encoder_dims is 96; it must be a non-empty list of whole numbers .*, as in \[96\]"),
    ({"num_heads": 0}, "model.num_heads is 0; it must be a whole number of at least 1"),
    ({"local_radius": None}, "model.local_radius is None; it must be a number of at least 0, or a list of numbers"),
    ({"local_radius": [-1, 0, 0]}, r"model.local_radius is \[-1, 0, 0\]; it must be a number .*: one for each scale"),
    ({"drop_path_rate": 2}, "model.drop_path_rate is 2; it must be a number from 0 to 1"),
    ({"decoder_dims": 48}, "model.decoder_dims is 48; it must be a list of whole numbers of at least 0: .*first"),
    ({"clip_config": "ViT-B/16"}, "model.clip_config is 'ViT-B/16'; it must be a section of visual_encoder, feat_dim"),
    ({"clip_config": {"feat_dim": "24"}}, "model.clip_config.feat_dim is '24'; it must be a whole number of at least"),
    ({"clip_config": {"kwargs": "x"}}, "model.clip_config.kwargs is 'x'; it must be a section of keys, or null"),
    ({"mask_type": "guide"}, "model.mask_type 'guide' is not one of guided, rand, block"),
    ({"decoder_dims": [48, 12]}, r"model.decoder_dims is \[48, 12\]; it must be the last of encoder_dims"),
    ({"decoder_dims": [48, 24, 12]}, r"at least one and not all"),
    ({"decoder_depths": [1]}, r"decoder_depths \[1\] and decoder_up_blocks \[1, 1\] must have a number for each of"),
    ({"clip_config": {"feat_dims": 3}}, r"unknown key 'model.clip_config.feat_dims' \(did you mean 'feat_dim'\?\)"),
    ({"group_size": 3}, r"unknown key 'model.group_size' \(did you mean 'group_sizes'\?\)"),
])
def test_wrong_configs(change, message):
    with pytest.raises(ConfigError, match=message):
        build(**change)


@pytest.mark.parametrize(("change", "message"), [
    ({"smooth": 1.5}, "model.smooth is 1.5; it must be a number from 0 to 1"),
    ({"cls_dim": 0}, "model.cls_dim is 0; it must be a whole number of at least 1"),
])
def test_wrong_configs_of_classifiers(change, message):
    with pytest.raises(ConfigError, match=message):
        classifier(**change)


def classifier(name="ModelNet40", **changes):
    return build_model_from_cfg({"NAME": f"I2P_MAE_{name}", **SCALES, "local_radius": [0.5, 1, 2], "cls_dim": 5,
                                 **changes})


@pytest.mark.parametrize(("name", "width"), [("ModelNet40", 48), ("ScanObjectNN", 96)])
def test_classifiers(name, width):
    model = classifier(name).train()
    out = model(POINTS, torch.tensor([0, 4, 2]))
    out["loss"].backward()
    assert not without_gradient(model)
    assert model(POINTS)["logits"].shape == (3, 5)
    assert model.forward_features(POINTS).shape == (3, width)


def test_pooling_by_hand():
    tokens = torch.tensor([[[1.0, 4], [3, 0]]])
    assert classifier().pool(tokens).tolist() == [[5.0, 6.0]]
    assert classifier("ScanObjectNN").pool(tokens).tolist() == [[2.0, 2.0, 3.0, 4.0]]


def test_label_smoothing_is_for_training():
    model, label = classifier(smooth=0.2).eval(), torch.tensor([0, 4, 2])
    out = model(POINTS, label)
    torch.testing.assert_close(out["loss"], F.cross_entropy(out["logits"], label))
    model.train()
    torch.manual_seed(3)
    smoothed = model(POINTS, label)["loss"]
    model.smooth = 0.0
    torch.manual_seed(3)
    plain = model(POINTS, label)
    log = plain["logits"].log_softmax(-1)  # of 5 classes: 0.8 at the true one, 0.05 at each other
    target = torch.full((3, 5), 0.05)
    target[range(3), label] = 0.8
    torch.testing.assert_close(smoothed, -(target * log).sum(-1).mean())


def test_classifiers_take_over_the_pretrained_encoder(tmp_path):
    pretrained, model = build(local_radius=[0.5, 1, 2]), classifier()
    checkpoint.save({"base_model": pretrained.state_dict()}, tmp_path / "i2p.pth")
    checkpoint.load_model(model, checkpoint.read_weights(tmp_path / "i2p.pth"), "i2p.pth")
    own = model.state_dict()
    for key, value in pretrained.h_encoder.state_dict().items():
        if not key.startswith("encoder_norms."):
            assert torch.equal(own[f"h_encoder.{key}"], value), key
    narrow = classifier("ScanObjectNN", encoder_dims=[6, 12, 24])
    with pytest.raises(CheckpointError, match="i2p.pth is not of this I2P_MAE_ScanObjectNN"):
        checkpoint.load_model(narrow, checkpoint.read_weights(tmp_path / "i2p.pth"), "i2p.pth")


def test_a_released_file_may_hold_the_image_model():
    model = build()
    weights = {**model.state_dict(), "clip_model.visual.proj": torch.zeros(2, 2)}
    report = checkpoint.load_model(build(), weights, "released.pth", complete=True)
    assert f"{len(model.state_dict())} of {len(model.state_dict())} weights match" in report
