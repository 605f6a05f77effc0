"""From raw annotations to coloured pictures, by the commands."""
import pathlib
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import torch
import trimesh
from segmentation_data import TINY, write_raw_rooms, write_rooms
from segmentation_data import flags as tiny_flags

from datasets.s3dis_room import Room
from models import build_model_from_cfg
from semantic_segmentation import main, main_test, prepare_s3dis
from semantic_segmentation.whole_scene import blocks, label_room, samples
from utils import checkpoint

ROOT = pathlib.Path(__file__).parents[2]

STUDENT = {
    "NAME": "ACT_PointDistillation",
    "dvae_config": {"visual_embed_type": "vit_tiny_patch16_224", "visual_embed_dim": 24,
                    "visual_embed_pretrained": False, "num_prompt_token": 2, "num_group": 8, "group_size": 8,
                    "visual_embed_kwargs": {"embed_dim": 24, "depth": 2, "num_heads": 2}, "num_tokens": 16,
                    "encoder_dims": 24, "tokens_dims": 24, "decoder_dims": 24},
    "transformer_config": {"embed_dim": 24, "encoder_dims": 24, "depth": 3, "num_heads": 2, "cls_dim": 8,
                           "decoder_depth": 1, "decoder_num_heads": 2}}

pytestmark = [pytest.mark.usefixtures("in_tmp_path"), pytest.mark.slow]


def flags(root, *more):
    return tiny_flags(root, 256, *more)


def test_raw_annotations_become_rooms(run, tmp_path):
    raw = write_raw_rooms(tmp_path / "raw")
    ceiling = raw / "Area_5" / "office_1" / "Annotations" / "ceiling_1.txt"
    clean = ceiling.read_bytes()
    ceiling.write_bytes(clean.replace(b" ", b" ", 1)[:-1] + b"\n1.5 2.5 3.5 185\x10187 182\n")  # as in hallway_6
    assert "2 of 2 rooms" in run(prepare_s3dis, raw, "rooms").out
    room = np.load("rooms/Area_5_office_1.npy")
    assert (room.shape, room.dtype) == ((3002, 7), np.float32)
    assert room[:, :3].min(0).tolist() == [0, 0, 0]
    assert (room[:, 6] == 12).sum() == 1  # the stairs
    assert room[room[:, 6] == 0][-1, 3:6].tolist() == [185, 187, 182]
    before = (tmp_path / "rooms" / "Area_1_office_1.npy").stat().st_mtime_ns
    (tmp_path / "rooms" / "Area_5_office_1.npy").unlink()
    run(prepare_s3dis, raw, "rooms", "--workers", 1)
    assert (tmp_path / "rooms" / "Area_1_office_1.npy").stat().st_mtime_ns == before
    assert np.array_equal(np.load("rooms/Area_5_office_1.npy"), room)


def test_bad_annotations(run, tmp_path):
    raw = write_raw_rooms(tmp_path / "raw")
    (raw / "Area_1" / "office_1" / "Annotations" / "table_1.txt").write_text("")
    (raw / "Area_5" / "office_1" / "Annotations" / "table_1.txt").write_text("1 2 3 4 5 6\n1 2 3\n")
    out = run(prepare_s3dis, raw, "rooms", status=1)
    assert "0 of 2 rooms" in out.out
    lines = [line for line in out.err.splitlines() if line.startswith("error")]
    assert re.search("Area_1/office_1/Annotations/table_1.txt is empty", lines[0])
    assert re.search("Area_5/office_1/Annotations/table_1.txt, line 2: '1 2 3' is not x y z r g b", lines[1])
    assert list((tmp_path / "rooms").iterdir()) == []
    empty = raw / "Area_1" / "office_1" / "Annotations" / "table_1.txt"
    empty.write_bytes(b"\0" * 4096)  # what an interrupted unzip leaves
    (empty.parent / "._chair_1.txt").write_bytes(b"\0\5\x16\7")  # what macOS leaves
    assert "table_1.txt holds no points" in run(prepare_s3dis, raw, "rooms", status=1).err
    run(prepare_s3dis, raw, "rooms", "--workers", 0, status=2)
    assert "cannot be made" in run(prepare_s3dis, raw, empty, status=2).err
    err = run(prepare_s3dis, tmp_path, "rooms", status=2).err
    assert err.count("\n") == 1
    assert "holds no Area_<n>/<room>/Annotations" in err


def test_every_point_is_labelled_by_its_votes(tmp_path):
    room = Room(write_rooms(tmp_path / "rooms") / "Area_1_office_1.npy", 13)
    rng = np.random.default_rng(0)
    centres, chosen = samples(room, 256, rng)
    assert np.array_equal(np.unique(chosen), np.arange(6000))
    spread = np.abs(room.xyz[chosen][..., :2] - centres[:, None])
    assert spread.max() <= 0.5 + 0.0011
    corners = sorted({tuple(np.round(centre, 3)) for centre, _ in blocks(room)})
    assert (len(corners), corners[0], corners[1]) == (12, (0.5, 0.5), (0.5, 1.0))

    class ByHeight:
        """Calls what is below 1 m class 7, the rest class 0."""

        def __call__(self, points):
            log_prob = torch.zeros(*points.shape[:2], 13)
            log_prob[..., 7] = (points[..., 2] < 1).float()
            return {"log_prob": log_prob}

    prediction = label_room(ByHeight(), room, 13, 256, 2, 8, torch.device("cpu"))
    assert np.array_equal(prediction, np.where(room.xyz[:, 2] < 1, 7, 0))


def test_train_and_test(run, tmp_path):
    root = write_rooms(tmp_path / "rooms", range(1, 7))
    out = run(main, *flags(root, "--epoch", 3, "--warmup_epoch", 0, "--learning_rate", 0.002)).out
    folder = tmp_path / "work_dirs" / "s3dis" / "semantic_segmentation" / "default"
    assert {"ckpt-last.pth", "ckpt-best.pth", "config.yaml", "log.txt"} <= {path.name for path in folder.iterdir()}
    state = torch.load(folder / "ckpt-best.pth", weights_only=True)
    published = state["model_state_dict"]  # what the published loader looks for: the same tensors, written once
    assert published.keys() == state["base_model"].keys()
    assert all(value.data_ptr() == published[key].data_ptr() for key, value in state["base_model"].items())
    losses = [float(value) for value in re.findall(r"Epoch \d/2  loss ([\d.]+)", out)]
    assert losses[-1] < 0.8 * losses[0]
    best = float(re.search(r"Best  mIoU ([\d.]+)  OA", out)[1])
    out = run(main_test, *flags(root, "--ckpts", folder / "ckpt-best.pth", "--num_votes", 2, "--visual")).out
    scores = re.search(r"All 1 rooms, 2 votes  mIoU ([\d.]+)  OA ([\d.]+)", out)
    assert float(scores[1]) == pytest.approx(best, abs=15)
    folder = folder.parent / "test"
    prediction = np.load(folder / "predictions" / "Area_5_office_1.npy")
    truth = np.load(root / "Area_5_office_1.npy")[:, 6]
    assert 100 * (prediction == truth).mean() == pytest.approx(float(scores[2]), abs=0.01)
    assert re.search(r"floor +\d+ +[\d.]+", out)
    assert re.search(r"beam +0 +–", out)
    for name in ("truth", "prediction"):
        assert len(trimesh.load(folder / "predictions" / f"Area_5_office_1_{name}.ply").vertices) == 6000
    assert matplotlib.image.imread(folder / "predictions" / "Area_5_office_1.png").std() > 0.05


def test_a_run_resumes_and_takes_bf16(run, tmp_path):
    root = write_rooms(tmp_path / "rooms", (1, 5))
    whole = run(main, *flags(root, "--exp_name", "whole", "--epoch", 2, "--amp", "bf16")).out
    run(main, *flags(root, "--log_dir", "parts", "--epoch", 1, "--amp", "bf16"), "scheduler.kwargs.epochs=2")
    parts = run(main, *flags(root, "--log_dir", "parts", "--epoch", 2, "--amp", "bf16", "--resume")).out
    assert "Resuming after epoch 0" in parts
    assert re.findall(r"Epoch 1/1  .*(?=  \d+ clouds)", parts) == re.findall(r"Epoch 1/1  .*(?=  \d+ clouds)", whole)


@pytest.mark.filterwarnings("ignore:model.dvae_config.ckpt")
def test_checkpoints_of_stage_two_and_of_both_published_layouts(run, tmp_path):
    root, student = write_rooms(tmp_path / "rooms", (1, 5)), tmp_path / "student.pth"
    checkpoint.save({"base_model": build_model_from_cfg(STUDENT).state_dict()}, student)
    out = run(main, *flags(root, "--ckpts", student, "--epoch", 1)).out
    assert re.search(r"student.pth: 57 of 87 weights match, 30 missing, \d+ unexpected, 0 of another shape", out)
    weights = checkpoint.read_weights(tmp_path / "work_dirs/s3dis/semantic_segmentation/default/ckpt-last.pth")
    layouts = {"act": {f"module.{key}": value for key, value in weights.items()},
               "mae": {key.replace("_cls.", "."): value for key, value in weights.items()}}
    for name, content in layouts.items():
        torch.save({"model_state_dict": content, "epoch": 3}, tmp_path / f"{name}.pth")
        out = run(main_test, *flags(root, "--ckpts", tmp_path / f"{name}.pth", "--num_votes", 1)).out
        assert "87 of 87 weights match, 0 missing, 0 unexpected" in out
    err = run(main_test, *flags(root, "--ckpts", student), status=2).err
    assert "is not of this PointSegmenter: 57 of 87 weights match, 30 missing" in err


@pytest.mark.filterwarnings("ignore:model.dvae_config.ckpt")
def test_the_new_layers_alone(run, tmp_path):
    root, student = write_rooms(tmp_path / "rooms", (1, 5)), tmp_path / "student.pth"
    checkpoint.save({"base_model": build_model_from_cfg(STUDENT).state_dict()}, student)
    out = run(main, "--optimizer_part", "only_new", "--normal", *flags(root, "--ckpts", student, "--epoch", 1))
    assert "warning: --normal has no effect here: coordinates alone reach the model\n" in out.err
    before = {key.removeprefix("ACT_encoder."): value for key, value in checkpoint.read_weights(student).items()}
    after = checkpoint.read_weights(tmp_path / "work_dirs/s3dis/semantic_segmentation/default/ckpt-last.pth")
    same = {key for key, value in after.items() if key in before and value.equal(before[key])}
    assert {key for key in after if key.startswith(("blocks.", "pos_embed.", "norm."))} <= same
    assert not {key for key in after if key.startswith(("convs", "propagation_0_cls."))} & same


def test_mistakes_are_one_line(run, tmp_path):
    root = write_rooms(tmp_path / "rooms", (1, 2))
    for argv, message in (
            (flags(root), "holds no rooms of Area 5, which is to be tested"),
            (flags(tmp_path / "absent"), "absent is not a folder: see 'S3DIS' in DATASET.md"),
            (flags(root, "--test_area", 9), "dataset.train.test_area is 9; it must be a whole number from 1 to 6"),
            (flags(root, "--test_area", 2)[:-1] + ("model.taps=[4]",), r"model.taps is \[4\]; it must name different"),
            (flags(root, "--config", ROOT / "cfgs" / "part_segmentation" / "shapenetpart.yaml"), "does not exist"),
            (flags(root, "--test_area", 2) + ("model.num_classes=12",), "num_classes is 12, but S3DIS needs 13"),
            (flags(root, "--test_area", 2) + ("total_bs=0",), "total_bs is 0; it must be a whole number"),
            (flags(root, "--learning_rate", "-1"), "optimizer.kwargs.lr is -1.0; it must be a number of at least 0"),
            (flags("2024"), "2024 is not a folder"), (flags("a: b #"), "a: b # is not a folder")):
        err = run(main, *argv, status=2).err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, err
        assert re.search(message, lines[0])
        assert "Traceback" not in err
    run(main, *flags(root, "--num_votes", 0), status=2)
    assert "testing needs --ckpts" in run(main_test, *flags(root), status=2).err


def test_rooms_are_tested_whatever_their_density(run, tmp_path):
    root = write_rooms(tmp_path / "rooms", (1, 2, 5))
    np.save(root / "Area_5_WC_1.npy", np.load(root / "Area_5_office_1.npy")[:900])
    run(main, *flags(root, "--epoch", 1))
    best = tmp_path / "work_dirs" / "s3dis" / "semantic_segmentation" / "default" / "ckpt-last.pth"
    before = (best.parent / "config.yaml").read_text()
    out = run(main_test, *flags(root, "--ckpts", best, "--num_votes", 1))
    assert "All 2 rooms, 1 votes" in out.out
    assert len(np.load(best.parents[1] / "test" / "predictions" / "Area_5_WC_1.npy")) == 900
    assert "has seen" not in out.err
    other = run(main_test, *flags(root, "--ckpts", best, "--num_votes", 1, "--test_area", 2, "--exp_name", "default"))
    assert "was trained with Area 5 held out, so it has seen Area 2: give --test_area 5" in other.err
    assert (best.parent / "config.yaml").read_text() == before


@pytest.mark.parametrize("task", ["semantic_segmentation", "part_segmentation"])
@pytest.mark.parametrize("inside", [True, False])
def test_both_ways_to_call(task, inside, tmp_path):
    """``python main.py`` in the folder, and ``python -m`` from the project's: the same message from either."""
    command = ["main.py"] if inside else ["-m", f"{task}.main"]
    result = subprocess.run([sys.executable, *command, "--root", str(tmp_path / "absent"), "--learning_rate", "0.0002",
                             "--epoch", "60", "--work_dir", str(tmp_path), "--device", "cpu", "--set", *TINY],
                            cwd=ROOT / task if inside else ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert re.search(r"absent.* (is not a folder|does not exist): see '(S3DIS|ShapeNetPart)' in DATASET.md",
                     result.stderr.splitlines()[-1])
    assert "Traceback" not in result.stderr
