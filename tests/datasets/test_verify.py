import sys

import numpy as np
import pytest
import yaml
from segmentation_data import write_parts, write_rooms

from datasets import verify
from utils.command import run_command


@pytest.fixture
def root(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "clouds").mkdir()
    names = [f"0269115{kind}-{index}.npy" for kind in (6, 7) for index in range(3)]
    for name in names:
        np.save(tmp_path / "clouds" / name, np.random.default_rng(0).random((40, 3)))
    for subset in ("train", "test"):
        (tmp_path / "lists" / f"{subset}.txt").write_text("\n".join(names))
    base = {"NAME": "ShapeNet", "DATA_PATH": str(tmp_path / "lists"), "PC_PATH": str(tmp_path / "clouds")}
    config = {"dataset": {name: {"_base_": base, "others": {"subset": subset, "npoints": 32}}
                          for name, subset in (("train", "train"), ("val", "test"), ("test", "test"))}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**base, "N_POINTS": 32}))
    return tmp_path


def run(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["verify", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        run_command(verify.main)
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


@pytest.mark.parametrize("name", ["run.yaml", "data.yaml"])
def test_all_is_there(root, monkeypatch, capsys, name):
    status, out, _ = run(monkeypatch, capsys, root / name)
    assert status == 0
    assert "6 clouds of 32 points, 2 classes, 3 to 3 a class" in out
    assert ("dataset.test: ShapeNet\n  as dataset.val" in out) == (name == "run.yaml")


def test_damaged_clouds_are_all_named(root, monkeypatch, capsys):
    for index, content in ((0, b"no array"), (2, b"")):
        (root / "clouds" / f"02691156-{index}.npy").write_bytes(content)
    status, out, err = run(monkeypatch, capsys, root / "run.yaml")
    assert status == 1
    assert "2 of 6 clouds are damaged" in out
    assert "02691156-0.npy is damaged" in out
    assert "02691156-2.npy is damaged" in out
    assert "get it: https://" in out
    assert err == ""


def test_missing_data(root, monkeypatch, capsys):
    (root / "clouds" / "02691156-1.npy").unlink()
    status, out, _ = run(monkeypatch, capsys, root / "data.yaml")
    assert status == 1
    assert "02691156-1.npy does not exist (1 of 6 listed files is missing)" in out


def test_few_shot_and_mistakes(root, monkeypatch, capsys):
    config = {"dataset": {"train": {"_base_": {"NAME": "ModelNetFewShot", "DATA_PATH": str(root)},
                                    "others": {"subset": "train"}}}}
    (root / "few.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    status, out, _ = run(monkeypatch, capsys, root / "few.yaml", "--way", 5, "--shot", 10, "--fold", 0)
    assert status == 1
    assert "5way_10shot/0.pkl does not exist: make them" in out
    status, out, _ = run(monkeypatch, capsys, root / "few.yaml")
    assert status == 1
    assert out.count("does not exist") == 40  # every fold of the paper
    status, _, err = run(monkeypatch, capsys, root / "run.yaml", "--way", 5)
    assert (status, err.count("\n")) == (2, 1)
    assert "--way, --shot and --fold are for configs with few-shot data" in err
    (root / "none.yaml").write_text("model: 1")
    assert "names no data set" in run(monkeypatch, capsys, root / "none.yaml")[2]


def test_segmentation_data(tmp_path, monkeypatch, capsys):
    base = {"NAME": "S3DIS", "ROOT": str(write_rooms(tmp_path / "rooms", range(1, 7)))}
    (tmp_path / "rooms.yaml").write_text(yaml.safe_dump(base))
    status, out, _ = run(monkeypatch, capsys, tmp_path / "rooms.yaml")
    assert status == 0
    assert "blocks of 2048 points from 5 rooms, 13 classes" in out
    base = {"NAME": "ShapeNetPart", "ROOT": str(write_parts(tmp_path / "parts"))}
    (tmp_path / "parts.yaml").write_text(yaml.safe_dump(base))
    status, out, _ = run(monkeypatch, capsys, tmp_path / "parts.yaml")
    assert status == 0
    assert "8 clouds of 2048 points, 16 classes, 4 to 4 a class" in out
    assert "classes without a cloud: Bag, Car" in out
