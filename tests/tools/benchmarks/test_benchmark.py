"""The benchmark's tables and its JSON, at small sizes."""
import json
import re
import sys

import pytest
import torch
import yaml
from tiny_configs import CONFIGS

from tools import benchmark
from tools.benchmarks import i2p, operators, timing, training
from tools.tasks import autoencoding, classification, pretraining
from utils.parser import autoencoder_arguments, main_arguments

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the benchmark with tiny sizes; returns what it printed and wrote."""
    monkeypatch.setattr(timing, "SECONDS", 0)
    monkeypatch.setattr(operators, "FPS", ((2, 50, 5),))
    monkeypatch.setattr(operators, "KNN", ((2, 40, 8, 4),))
    monkeypatch.setattr(operators, "CHAMFER", ((4, 8, 8),))
    monkeypatch.setattr(operators, "LAYERS", ((4, 8, 6, 5),))
    monkeypatch.setattr(training, "MATMUL", 64)
    stages = {"stage1": ("autoencoder", autoencoding.Autoencoding, autoencoder_arguments),
              "stage2": ("pretrain", pretraining.Pretraining, main_arguments),
              "finetune": ("finetune", classification.Classification, main_arguments)}
    for stage, (name, task, arguments) in stages.items():
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump(CONFIGS[name]))
        monkeypatch.setitem(training.STAGES, stage, (task, arguments, config, {}, {"npoints": 64}))

    def call(*flags):
        report = tmp_path / "report.json"
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *flags, "--device", "cpu", "--json", str(report)])
        benchmark.main()
        return capsys.readouterr().out, json.loads(report.read_text())

    return call


def test_ops(run):
    out, report = run("ops")
    assert report["hardware"].endswith(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    assert [row["op"] for row in report["ops"][:3]] == ["furthest_point_sample", "knn", "chamfer, forward + backward"]
    for row in report["ops"]:
        assert row["ms"] > 0
        assert row["peers"]["pure PyTorch"] > 0
    assert report["ops"][0]["size"] == "2x(50->5)"
    assert {"cdist topk", "cKDTree"} <= report["ops"][1]["peers"].keys()
    assert re.search(r"knn +2x8 in 40, k=4 +\d", out)


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_train(run, amp):
    out, report = run("train", "--batch", "4", "--amp", amp)
    assert list(report["train"]) == ["stage1", "stage2", "finetune"]
    for row in report["train"].values():
        assert (row["amp"], row["compile"], row["batch"]) == (amp, False, 4)
        assert row["samples_per_s"] == pytest.approx(4e3 / row["step_ms"], rel=0.01)
        equivalents = row["step_ms"] / 1e3 * report["matmul_gflops"] / 4
        assert row["gflop_equivalents_per_sample"] == pytest.approx(equivalents, abs=0.01)
        assert row["gflop"] > 0
        assert row["peak_mb"] > 50
    assert "gflop_equivalents_per_sample" in out


def test_data(run):
    _, report = run("data", "--files", "20")
    assert report["data"].keys() == {"npy", "packed"}
    assert min(report["data"].values()) > 0


def test_i2p(run, monkeypatch):
    monkeypatch.setattr(i2p, "POINTS", 128)
    monkeypatch.setattr(i2p, "MODEL", {
        "num_groups": (32, 16, 8), "group_sizes": (8, 4, 4), "encoder_depths": (1, 1, 1), "encoder_dims": (12, 24, 48),
        "decoder_dims": (48, 24), "num_heads": 3})
    monkeypatch.setattr(i2p, "IMAGE_MODEL", {"embed_dim": 24, "depth": 2, "num_heads": 2})
    out, report = run("i2p", "--batch", "4", "--encoder", "vit_tiny_patch16_224", "--feat_dim", "24")
    row = report["i2p"]
    assert (row["encoder"], row["batch"]) == ("vit_tiny_patch16_224", 4)
    assert row["times_as_long"] == pytest.approx(row["looped_ms"] / row["batched_ms"], abs=0.02)
    assert 0 < row["image_model_ms"] < row["batched_ms"]
    assert "times as long without image model" in out


def test_the_stages_are_the_published_models():
    for stage, name in (("stage1", "ACTPromptedDiscreteVAEwithVIT"), ("stage2", "ACT_PointDistillation"),
                        ("finetune", "PointTransformer")):
        config = yaml.safe_load((benchmark.ROOT / training.STAGES[stage][2]).read_text())
        assert config["model"]["NAME"] == name


def test_the_peers_compute_the_same():
    """What is compared must be the same thing."""
    xyz1, xyz2 = (timing.surfaces(3, points, torch.device("cpu")).requires_grad_() for points in (40, 33))
    ours = operators.ops.chamfer(xyz1, xyz2)[:2]
    for peer in (operators.PythonChamfer.apply, operators.cdist_chamfer):
        for one, two in zip(ours, peer(xyz1, xyz2), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    ref = xyz1.detach()
    search = operators.ckdtree_loop(ref, ref, 4)
    if search is not None:
        for ours, (_, theirs) in zip(operators.ops.knn(ref, ref, 4)[1], search(), strict=True):
            assert ours.numpy().tolist() == theirs.tolist()
