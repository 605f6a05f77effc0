"""The commands for one's own clouds: predict, extract_features, convert_checkpoint, few_shot; and load_pretrained."""
import json
import pathlib
import re

import numpy as np
import pytest
import torch
import trimesh
import yaml
from classification_data import write_few_shot

from datasets.clouds import normalize
from datasets.procedural.objects import RECIPES
from datasets.transforms import furthest_subset
from models import build_model_from_cfg, load_pretrained
from tools import convert_checkpoint, extract_features, few_shot, predict
from utils import checkpoint
from utils.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def finetuned(command):
    """A fine-tuned checkpoint of the tiny classifier, and its config."""
    command("finetune", "--scratch_model", "--set", "max_epoch=0")
    return command.experiment("finetune") / "ckpt-last.pth", command.folder / "cfgs" / "finetune.yaml"


@pytest.fixture
def clouds(tmp_path):
    folder = tmp_path / "clouds"
    folder.mkdir()
    trimesh.creation.box((1, 2, 3)).export(folder / "box.off")
    trimesh.creation.icosphere().export(folder / "deep.ply")
    np.save(folder / "sphere.npy", trimesh.creation.icosphere(subdivisions=4).vertices)
    return folder


def test_predictions(run, finetuned, clouds):
    path, config = finetuned
    lines = run(predict, "--ckpts", path, clouds).out.splitlines()
    assert [line.split(": ")[0].rsplit("/")[-1] for line in lines] == ["box.off", "deep.ply", "sphere.npy"]
    assert re.fullmatch(r".*box.off: (\w+ [\d.]+ %, ){2}\w+ [\d.]+ %", lines[0])
    assert run(predict, "--ckpts", path, "--config", config, clouds).out.splitlines() == lines
    lines = run(predict, "--ckpts", path, "--json", "--top", 20, clouds).out.splitlines()
    results = [json.loads(line) for line in lines]
    model = load_pretrained(path)
    points = torch.from_numpy(normalize(np.load(clouds / "sphere.npy")).astype(np.float32))[None]
    expected = model(furthest_subset(points, 64))["logits"][0].softmax(-1)
    got = {entry["class"]: entry["probability"] for entry in results[2]["classes"]}
    assert [got[name] for name in model.class_names] == pytest.approx(expected.tolist(), abs=1e-4)
    assert results[2]["classes"] == sorted(results[2]["classes"], key=lambda entry: -entry["probability"])
    assert set(got) == set(RECIPES)


def test_good_files_are_done_and_bad_ones_named(run, finetuned, clouds, tmp_path):
    (clouds / "bad.ply").write_text("no ply")
    np.save(clouds / "few.npy", np.eye(3))
    files = [clouds / "bad.ply", clouds / "box.off", clouds / "absent.obj", clouds / "few.npy", clouds / "sphere.npy"]
    out = run(predict, "--ckpts", finetuned[0], *files, status=1)
    assert [line.split(": ")[0] for line in out.out.splitlines()] == [str(files[1]), str(files[4])]
    errors = out.err.splitlines()
    assert len(errors) == 3
    assert re.match(r"error: .*bad.ply is damaged or not a .ply file", errors[0])
    assert re.match(r"error: .*absent.obj does not exist", errors[1])
    assert re.match(r"error: .*few.npy: it has 3 points, but this model needs 8", errors[2])
    results = [json.loads(line) for line in run(predict, "--json", "--ckpts", finetuned[0], *files, status=1)
               .out.splitlines()]
    assert ["error" in result for result in results] == [True, False, True, True, False]
    out = run(extract_features, "--ckpts", finetuned[0], "--output", tmp_path / "f.npz", *files, status=1)
    assert len(out.err.splitlines()) == 3
    with np.load(tmp_path / "f.npz") as content:
        assert content["names"].tolist() == [str(files[1]), str(files[4])]
    run(extract_features, "--ckpts", finetuned[0], "--output", tmp_path / "g.npz", files[0], status=2)
    assert not (tmp_path / "g.npz").exists()
    (tmp_path / "empty").mkdir()
    out = run(predict, "--ckpts", finetuned[0], tmp_path / "empty", files[1], status=1)
    assert out.err.startswith(f"error: {tmp_path}/empty holds no files")
    assert len(out.out.splitlines()) == 1


def test_a_head_that_does_not_fit_is_refused(run, command, clouds, tmp_path):
    """A linear head under the config of an MLP must not be replaced by a random one."""
    command("finetune", "--scratch_model", "--set", "max_epoch=0", "model.transfer_type=linear")
    path = command.experiment("finetune") / "ckpt-last.pth"
    config = command.folder / "cfgs" / "finetune.yaml"
    err = run(predict, "--ckpts", path, "--config", config, clouds, "--set", "model.transfer_type=full", status=2).err
    assert "is not of this PointTransformer" in err
    bare = tmp_path / "bare.pth"  # as a released file, which says nothing of itself
    checkpoint.save({"base_model": checkpoint.read_weights(path)}, bare)
    model = load_pretrained(bare, config)  # which says nothing of the transfer type
    assert model.transfer_type == "linear"
    assert "0 missing" in model.load_report
    out = run(extract_features, "--ckpts", path, "--config", config, "--output", tmp_path / "f.npz", clouds, "--set",
               "model.transfer_type=full").out
    assert "features (3, 48)" in out


def test_another_axis_in_training_is_said(run, command, tmp_path):
    for name, scale in (("flat", (3, 3, 1)), ("tall", (1, 1, 3))):
        for subset in ("train", "test"):
            folder = tmp_path / "data" / subset / name
            folder.mkdir(parents=True)
            for index in range(2):
                np.save(folder / f"{index}.npy", np.random.default_rng(index).random((80, 3)) * scale)
    path = command.folder / "cfgs" / "finetune.yaml"
    config = yaml.safe_load(path.read_text())
    base = {"NAME": "PointFolder", "DATA_PATH": str(tmp_path / "data"), "up": "z"}
    config["dataset"] = {split: {"_base_": base, "others": {"subset": subset, "npoints": 64}}
                         for split, subset in (("train", "train"), ("val", "test"))}
    del config["model"]["cls_dim"]
    path.write_text(yaml.safe_dump(config))
    command("finetune", "--scratch_model", "--set", "max_epoch=0", "total_bs=2")
    trained = command.experiment("finetune") / "ckpt-last.pth"
    cloud = tmp_path / "data" / "test" / "tall" / "0.npy"
    told, z, y, config = (run(predict, "--json", "--ckpts", trained, *flags, cloud)
                          for flags in ((), ("--up", "z"), ("--up", "y"), ("--config", path)))
    assert told.out == config.out == y.out
    assert z.out != y.out
    assert [out.err.count("the files of training had z up") for out in (told, y, z)] == [1, 0, 0]
    model = load_pretrained(trained)
    assert (model.class_names, model.classes) == (["flat", "tall"], 2)


def test_features_are_those_of_the_model(run, command, clouds, tmp_path):
    command("pretrain", "--set", "max_epoch=0")
    path = command.experiment("pretrain") / "ckpt-last.pth"
    out = run(extract_features, "--ckpts", path, "--output", tmp_path / "f.npz", clouds)
    assert "features (3, 48) of 3 files" in out.out
    config = yaml.safe_load((command.folder / "cfgs" / "pretrain.yaml").read_text())
    with pytest.warns(UserWarning, match="untrained"):
        whole = build_model_from_cfg(config["model"])
    checkpoint.load_model(whole, checkpoint.read_weights(path), path)
    points = torch.rand(2, 64, 3)
    expected = whole.eval().forward_features(points)
    for model in (load_pretrained(path), load_pretrained(path, command.folder / "cfgs" / "pretrain.yaml"),
                  load_pretrained(path, command.folder / "cfgs" / "finetune.yaml")):
        assert model.forward_features(points).allclose(expected, atol=1e-6)
        assert not model.training
    with np.load(tmp_path / "f.npz") as content:
        assert content["features"].dtype == np.float32
        assert len(np.unique(content["features"], axis=0)) == 3
    err = run(predict, "--ckpts", path, clouds, status=2).err
    assert "has no classification head: fine-tune it first" in err


def test_up_turns_the_files(run, finetuned, tmp_path):
    cloud = np.random.default_rng(0).random((64, 3)) * (1, 2, 3)
    np.save(tmp_path / "y.npy", cloud)
    np.save(tmp_path / "z.npy", cloud[:, [0, 2, 1]] * (1, -1, 1))  # the same, lying on its back

    def features(*flags):
        run(extract_features, "--ckpts", finetuned[0], "--output", tmp_path / "f.npz", *flags)
        return np.load(tmp_path / "f.npz")["features"][0]

    standing = features(tmp_path / "y.npy")
    assert features("--up", "z", tmp_path / "z.npy") == pytest.approx(standing, abs=1e-5)
    assert np.abs(features(tmp_path / "z.npy") - standing).max() > 1e-4


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_slim_copy_works_everywhere(run, command, tmp_path, suffix):
    command("autoencoder", "--set", "max_epoch=0")
    teacher = f"model.dvae_config.ckpt={command.experiment('autoencoder')}/ckpt-last.pth"
    command("pretrain", "--set", "max_epoch=0", teacher)
    source, slim = command.experiment("pretrain") / "ckpt-last.pth", tmp_path / f"slim{suffix}"
    out = run(convert_checkpoint, source, slim).out
    assert slim.stat().st_size < source.stat().st_size / 3
    weights, whole = checkpoint.read_weights(slim), checkpoint.read_weights(source)
    assert f"{len(weights)} weights" in out
    assert weights.keys() == {key for key in whole if not key.startswith("dvae_tokenizer.")}
    assert all(torch.equal(weights[key], whole[key]) for key in weights)
    assert "48 of 64 weights match" in command("finetune", "--finetune_model", "--ckpts", slim, "--set",
                                               "max_epoch=0").out
    again = command("pretrain", "--start_ckpts", slim, "--exp_name", "again", "--set", "max_epoch=0",
                    "optimizer.kwargs.lr=0", teacher).out
    assert re.search(r"weights match, \d+ missing, 0 unexpected", again)
    restarted = checkpoint.read_weights(command.experiment("pretrain", "again") / "ckpt-last.pth")
    assert all(torch.equal(restarted[key], whole[key]) for key in whole if key.startswith("dvae_tokenizer.visual"))
    assert load_pretrained(slim).forward_features(torch.rand(1, 64, 3)).shape == (1, 48)
    err = run(convert_checkpoint, source, tmp_path / "slim.txt", status=2).err
    assert err == f"error: {tmp_path}/slim.txt must end in .pth or .safetensors\n"
    assert "is the file itself" in run(convert_checkpoint, slim, slim, status=2).err


def test_all_folds_and_going_on(run, command, monkeypatch):
    monkeypatch.chdir(command.folder)
    write_few_shot(command.folder, way=3, shot=4, folds=3, points=64, tests=2)
    path = command.folder / "cfgs" / "finetune.yaml"
    config = yaml.safe_load(path.read_text())
    base = {"NAME": "ModelNetFewShot", "DATA_PATH": "data/ModelNetFewshot", "N_POINTS": 64}
    config["dataset"] = {name: {"_base_": base, "others": {"subset": subset}}
                         for name, subset in (("train", "train"), ("val", "test"))}
    path.write_text(yaml.safe_dump(config))
    flags = ("--config", path, "--scratch_model", "--ways", 3, "--shots", 4, "--folds", 3, "--num_workers", 0,
             "--device", "cpu", "--set", "max_epoch=0", "total_bs=4")
    out = run(few_shot, *flags).out
    lasts = [float(value) for value in re.findall(r"Last +OA ([\d.]+)", out)]
    assert len(lasts) == 3
    way, shot, folds, mean, _, spread, *_ = out.splitlines()[-1].split()
    assert (way, shot, folds) == ("3", "4", "3")
    assert float(mean) == pytest.approx(np.mean(lasts), abs=0.06)
    assert float(spread) == pytest.approx(np.std(lasts), abs=0.06)
    folder = pathlib.Path("work_dirs/finetune/cfgs/few_shot/3way_4shot")
    assert {"result.json", "ckpt-last.pth"} <= {path.name for path in (folder / "2").iterdir()}
    (folder / "1" / "result.json").unlink()
    again = run(few_shot, *flags).out
    assert len(re.findall(r"Last +OA", again)) == 1
    assert again.splitlines()[-1] == out.splitlines()[-1]
    result = json.loads((folder / "0" / "result.json").read_text())  # as earlier versions wrote it
    result["of"]["config"] = json.dumps({**config, "max_epoch": 0, "total_bs": 4, "step_per_update": 1})
    (folder / "0" / "result.json").write_text(json.dumps(result))
    assert "Last  OA" not in run(few_shot, *flags).out
    err = run(few_shot, *flags, "model.depth=1", status=2).err
    assert re.search(r"0/result.json is the result of another config: choose another --exp_name", err)
    assert "--fold is for main.py; here give --folds" in run(few_shot, *flags, "--fold", 1, status=2).err
    missing = run(few_shot, "--shots", 4, 7, *[flag for flag in flags if flag not in ("--shots", 4)], status=2)
    assert re.search(r"3way_7shot/0.pkl does not exist, nor do 2 other folds", missing.err)
    assert missing.out == ""


def test_wrong_checkpoints_and_configs(finetuned, command):
    path, config = finetuned
    changed = yaml.safe_load(config.read_text())
    changed["model"]["cls_dim"] = 7
    (command.folder / "other.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(CheckpointError, match="has 20 classes, but the config's model.cls_dim is 7"):
        load_pretrained(path, command.folder / "other.yaml")
    with pytest.raises(ConfigError, match="is of the model ACTPrompted.*; a PointTransformer"):
        load_pretrained(path, command.folder / "cfgs" / "autoencoder.yaml")


def test_the_example_in_the_docs_runs(finetuned, clouds, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "own_data.md").read_text()
    example, = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(example.splitlines()) <= 10
    (tmp_path / "ckpt-best.pth").write_bytes(finetuned[0].read_bytes())
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "chair.ply")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)  # noqa: S102 - it is our own
    assert names["features"].shape == (1, 48)
    assert names["model"].class_names == list(RECIPES)
