"""The models that come with the code: they load, score, and serve predict, pictures, both stages and fine-tuning."""
import json
import pathlib
import re

import pytest
import torch

import main
import main_autoencoder
from datasets import Shapes
from models import load_pretrained
from tools import predict, visualize

ROOT = pathlib.Path(__file__).resolve().parent.parent
ZOO = ROOT / "model_zoo"
AUTOENCODER, CLASSIFIER, CHAIR = (ZOO / name for name in (
    "shapes_autoencoder.safetensors", "shapes_classifier.safetensors", "chair.ply"))
LEAST_ACCURACY = 0.85
README = (ROOT / "README.md").read_text()
FEW = ("--device", "cpu", "--num_workers", 0, "--work_dir", "w")


@pytest.fixture(autouse=True)
def _where(in_tmp_path):
    """Run in a folder of its own: the commands write there."""


def config(name):
    return ROOT / "cfgs" / "model_zoo" / f"{name}.yaml"


def test_they_are_small():
    assert AUTOENCODER.stat().st_size + CLASSIFIER.stat().st_size < 3e6


def test_the_classifier_recognises_shapes_that_it_has_not_seen():
    model, data = load_pretrained(CLASSIFIER), Shapes(subset="test", npoints=512, size=200)
    assert (model.npoints, model.class_names) == (512, data.class_names)
    points, label = torch.stack([data[index][0] for index in range(200)]), torch.as_tensor(data.labels)
    with torch.inference_mode():
        accuracy = (model(points)["logits"].argmax(-1) == label).float().mean().item()
    assert accuracy > LEAST_ACCURACY


def test_the_example_in_the_readme_runs_as_shown(monkeypatch, capsys):
    example, = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    expected = example.rstrip().rpartition("# ")[2]
    monkeypatch.chdir(ROOT)
    exec(example, {})  # noqa: S102 - it is our own
    assert capsys.readouterr().out.strip() == expected == "torch.Size([1, 128]) chair"


def test_predict_prints_what_the_readme_shows(run, monkeypatch):
    (line, expected), = re.findall(r"\$ python tools/predict\.py (.*)\n(.*)\n", README)
    monkeypatch.chdir(ROOT)
    out = run(predict, *line.split(), "--device", "cpu").out
    number = re.compile(r"[\d.]+ %")
    assert number.split(out.strip()) == number.split(expected)
    shown, got = (float(number.search(text).group()[:-2]) for text in (expected, out))
    assert got == pytest.approx(shown, abs=1)


def test_predict(run):
    out = run(predict, "--ckpts", CLASSIFIER, CHAIR, "--json", "--device", "cpu").out
    assert json.loads(out.splitlines()[0])["classes"][0]["class"] == "chair"


@pytest.mark.slow
def test_the_autoencoder_reconstructs_by_its_codes(run):
    out = run(main_autoencoder, "--config", config("autoencoder"), "--val", "--ckpts", AUTOENCODER, *FEW,
              "--set", "dataset.val.others.size=60", "dataset.train.others.size=60").out
    line = next(line for line in out.splitlines() if "recon-shuffled" in line)
    values = {name: float(line.split(f"{name} ")[1].split()[0]) for name in ("recon", "recon-shuffled", "perplexity")}
    assert values["recon"] < 0.8 * values["recon-shuffled"]
    assert values["perplexity"] > 30


@pytest.mark.slow
def test_pictures(run):
    run(visualize, "reconstructions", "--config", config("autoencoder"), "--ckpts", AUTOENCODER, "--number", 2,
        "--output", "r.png", "--device", "cpu")
    run(visualize, "targets", "--config", config("autoencoder"), "--ckpts", AUTOENCODER, "--number", 20,
        "--output", "t.png", "--device", "cpu")
    run(visualize, "attention", "--config", config("finetune"), "--ckpts", CLASSIFIER, "--number", 2,
        "--output", "a.png", "--device", "cpu")
    assert all(pathlib.Path(name).stat().st_size > 10_000 for name in ("r.png", "t.png", "a.png"))


@pytest.mark.slow
def test_pre_training_and_fine_tuning_start_from_them(run):
    small = ("--set", "dataset.train.others.size=64", "max_epoch=0", "model.transformer_config.depth=4")
    out = run(main, "--config", config("pretrain"), *FEW, *small, f"model.dvae_config.ckpt={AUTOENCODER}",
              "dataset.extra_train.others.size=64", "dataset.val.others.size=64").out
    assert "mean_loss" in out
    out = run(main, "--config", config("finetune"), "--finetune_model", "--ckpts", CLASSIFIER, *FEW, "--set",
              "max_epoch=0", "dataset.train.others.samples_per_class=4", "dataset.val.others.size=60",
              "optimizer.kwargs.lr=0").out
    assert float(out.split("Last")[1].split("OA ")[1].split()[0]) > 100 * LEAST_ACCURACY
