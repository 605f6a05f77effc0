"""Copies for the published code: what its loaders look for, beside slim ones."""
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from models import build_model_from_cfg
from models.i2p_mae.clip_names import openai_weights
from models.pretrained import load_pretrained
from tools import convert_checkpoint
from utils import checkpoint

I2P = {"NAME": "I2P_MAE", "num_groups": [32, 16, 8], "group_sizes": [8, 4, 4], "encoder_depths": [1, 1, 1],
       "encoder_dims": [12, 24, 48], "num_heads": 3, "decoder_dims": [48, 24],
       "clip_config": {"visual_encoder": "ViT-B/16", "feat_dim": 512, "pretrained": False,
                       "kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 2}}}
LAYER = {"ln_1.weight": (24,), "ln_1.bias": (24,), "attn.in_proj_weight": (72, 24), "attn.in_proj_bias": (72,),
         "attn.out_proj.weight": (24, 24), "attn.out_proj.bias": (24,), "ln_2.weight": (24,), "ln_2.bias": (24,),
         "mlp.c_fc.weight": (96, 24), "mlp.c_fc.bias": (96,), "mlp.c_proj.weight": (24, 96), "mlp.c_proj.bias": (24,)}
TOWER = {"class_embedding": (24,), "positional_embedding": (197, 24), "proj": (24, 512),
         "conv1.weight": (24, 3, 16, 16),
         **{f"ln_{name}.{part}": (24,) for name in ("pre", "post") for part in ("weight", "bias")},
         **{f"transformer.resblocks.{index}.{name}": shape for index in range(2) for name, shape in LAYER.items()}}
TEXT = {"token_embedding.weight": torch.ones(9, 4), "text_projection": torch.ones(4, 512),
        "logit_scale": torch.tensor(4.6)}


def i2p_file(path, **more):
    model = build_model_from_cfg(I2P)
    torch.save({"base_model": {**model.state_dict(), **more}, "optimizer": {}, "notes": {"model": I2P}}, path)
    return model


def clip_model(path):
    return {key.removeprefix("clip_model."): value for key, value in checkpoint.read_weights(path).items()
            if key.startswith("clip_model.")}


def test_openai_names_are_those_that_timm_reads():
    tower = timm.create_model("vit_base_patch16_clip_quickgelu_224.openai", embed_dim=24, depth=2, num_heads=2,
                              num_classes=512)
    named = openai_weights(tower.state_dict())
    assert {key: tuple(value.shape) for key, value in named.items()} == {f"visual.{key}": shape
                                                                         for key, shape in TOWER.items()}
    back = checkpoint_filter_fn(dict(named), tower)
    assert back.keys() == tower.state_dict().keys()
    assert all(torch.equal(value, tower.state_dict()[key]) for key, value in back.items() if key != "head.bias")


def test_slim_copies_hold_no_image_model(run, tmp_path):
    model = i2p_file(tmp_path / "a.pth", **{"clip_model.visual.proj": torch.ones(2)})
    run(convert_checkpoint, tmp_path / "a.pth", tmp_path / "slim.pth")
    assert checkpoint.read_weights(tmp_path / "slim.pth").keys() == model.state_dict().keys()


def test_the_image_model_of_training_is_added(run, tmp_path):
    model = i2p_file(tmp_path / "a.pth")
    run(convert_checkpoint, tmp_path / "a.pth", tmp_path / "p.pth", "--published")
    assert {key: tuple(value.shape) for key, value in clip_model(tmp_path / "p.pth").items()} == {
        f"visual.{key}": shape for key, shape in TOWER.items()}
    weights = checkpoint.read_weights(tmp_path / "p.pth")
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    report = checkpoint.load_model(build_model_from_cfg(I2P), weights, "p.pth", complete=True)  # and is read here
    assert "not used: clip_model of I2P-MAE" in report


def test_the_image_model_of_a_file_is_kept(run, tmp_path):
    i2p_file(tmp_path / "a.pth", **{"clip_model.visual.proj": torch.ones(2)})
    run(convert_checkpoint, tmp_path / "a.pth", tmp_path / "p.pth", "--published")
    assert clip_model(tmp_path / "p.pth")["visual.proj"].tolist() == [1, 1]
    assert len(clip_model(tmp_path / "p.pth")) == 1


def test_the_image_model_of_another_file(run, tmp_path):
    """All of OpenAI's file but the sizes that it holds as numbers; of timm's the image tower."""
    i2p_file(tmp_path / "a.pth")
    openai = {f"visual.{key}": torch.rand(shape) for key, shape in TOWER.items()} | TEXT
    torch.save({**openai, "context_length": torch.tensor(77)}, tmp_path / "openai.pth")
    run(convert_checkpoint, tmp_path / "a.pth", tmp_path / "p.pth", "--published", "--clip", tmp_path / "openai.pth")
    added = clip_model(tmp_path / "p.pth")
    assert added.keys() == openai.keys()
    assert all(torch.equal(added[key], value) for key, value in openai.items())
    tower = timm.create_model("vit_base_patch16_clip_quickgelu_224.openai", embed_dim=24, depth=1, num_heads=2)
    torch.save(tower.state_dict(), tmp_path / "timm.pth")
    run(convert_checkpoint, tmp_path / "a.pth", tmp_path / "q.pth", "--published", "--clip", tmp_path / "timm.pth")
    assert torch.equal(clip_model(tmp_path / "q.pth")["visual.transformer.resblocks.0.attn.in_proj_weight"],
                       tower.state_dict()["blocks.0.attn.qkv.weight"])


def test_where_no_image_model_is_found(run, tmp_path):
    torch.save({"base_model": build_model_from_cfg(I2P).state_dict()}, tmp_path / "bare.pth")
    err = run(convert_checkpoint, tmp_path / "bare.pth", tmp_path / "p.pth", "--published", status=2).err
    assert err == (f"error: {tmp_path}/bare.pth holds no image model, which the published code wants: give --clip "
                   "FILE, OpenAI's weights of CLIP (nothing says which one it was)\n")
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pth")
    err = run(convert_checkpoint, tmp_path / "bare.pth", tmp_path / "p.pth", "--published", "--clip",
              tmp_path / "x.pth", status=2).err
    assert "x.pth holds no CLIP under OpenAI's or timm's names" in err
    assert not (tmp_path / "p.pth").exists()
    out = run(convert_checkpoint, tmp_path / "bare.pth", tmp_path / "p.safetensors", "--published", status=2)
    assert out.err == f"error: {tmp_path}/p.safetensors must end in .pth\n"
    assert "--clip is for --published" in run(convert_checkpoint, tmp_path / "bare.pth", tmp_path / "p.pth", "--clip",
                                              tmp_path / "x.pth", status=2).err


def test_a_segmentation_model_for_its_published_loader(run, tmp_path):
    model = build_model_from_cfg({"NAME": "PointSegmenter", "embed_dim": 24, "depth": 3, "num_heads": 3,
                                  "encoder_dims": 24, "group_size": 8, "num_group": 8, "taps": [1, 2, 3],
                                  "num_classes": 4})
    torch.save({"base_model": model.state_dict()}, tmp_path / "a.pth")
    run(convert_checkpoint, tmp_path / "a.pth", tmp_path / "p.pth", "--published")
    model.load_state_dict(torch.load(tmp_path / "p.pth", weights_only=True)["model_state_dict"])
    assert (tmp_path / "p.pth").stat().st_size < 1.05 * (tmp_path / "a.pth").stat().st_size + 20_000


def test_weights_in_16_bits(run, tmp_path):
    """They take half the space, and a model loads and computes nearly the same."""
    section = {"NAME": "PointTransformer", "embed_dim": 24, "encoder_dims": 24, "depth": 2, "num_heads": 2,
               "cls_dim": 3, "group_size": 8, "num_group": 8}
    model, points = build_model_from_cfg(section).eval(), torch.rand(2, 64, 3)
    torch.save({"base_model": model.state_dict(), "notes": {"model": section, "npoints": 64}}, tmp_path / "a.pth")
    for half in ((), ("--half",)):
        run(convert_checkpoint, tmp_path / "a.pth", tmp_path / f"{len(half)}.safetensors", *half)
    assert (tmp_path / "1.safetensors").stat().st_size < 0.55 * (tmp_path / "0.safetensors").stat().st_size
    loaded = load_pretrained(tmp_path / "1.safetensors")
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(loaded(points)["logits"], model(points)["logits"], atol=5e-3, rtol=0)
    err = run(convert_checkpoint, tmp_path / "a.pth", tmp_path / "b.pth", "--half", "--published", status=2).err
    assert "--half and --published contradict each other" in err
    model.cls_token.data[:] = 1e6
    torch.save({"base_model": model.state_dict()}, tmp_path / "a.pth")
    err = run(convert_checkpoint, tmp_path / "a.pth", tmp_path / "b.pth", "--half", status=2).err
    assert "'cls_token' holds values that are too large for float16" in err
    assert not (tmp_path / "b.pth").exists()
