"""Part segmentation by its commands, on objects whose parts are layers."""
import re

import matplotlib.image
import pytest
import torch
from segmentation_data import flags as tiny_flags
from segmentation_data import write_parts

from part_segmentation import main, main_test
from tools.engine.metrics import confusion, part_ious, segmentation_scores

pytestmark = [pytest.mark.usefixtures("in_tmp_path"), pytest.mark.slow]


def flags(root, *more):
    return tiny_flags(root, 128, *more)


def test_train_and_test(run, tmp_path):
    root = write_parts(tmp_path / "parts")
    out = run(main, *flags(root, "--epoch", 8, "--warmup_epoch", 0, "--learning_rate", 0.002, "--val_freq", 7)).out
    folder = tmp_path / "work_dirs" / "shapenetpart" / "part_segmentation" / "default"
    losses = [float(value) for value in re.findall(r"Epoch \d/7  loss ([\d.]+)", out)]
    assert losses[-1] < 0.7 * losses[0]
    trained = re.search(r"Last  ins-mIoU ([\d.]+)  cls-mIoU ([\d.]+)  OA ([\d.]+)", out).groups()
    out = run(main_test, *flags(root, "--ckpts", folder / "ckpt-last.pth", "--num_votes", 2, "--visual")).out
    assert re.search(r"Plain  ins-mIoU ([\d.]+)  cls-mIoU ([\d.]+)  OA ([\d.]+)", out).groups() == trained
    assert re.search(r"Mean of 2 views  ins-mIoU [\d.]+", out)
    assert re.search(r"Airplane  3 +[\d.]+\nCap +3 +[\d.]+", out)
    folder = folder.parent / "test"
    pictures = sorted(path.name for path in (folder / "parts").glob("*.png"))
    assert pictures == ["Airplane_test0.png", "Airplane_test1.png", "Cap_test0.png", "Cap_test1.png"]
    assert matplotlib.image.imread(folder / "parts" / pictures[0]).std() > 0.05
    assert len(list((folder / "parts").glob("*.ply"))) == 8


def test_a_missing_list_is_one_line(run, tmp_path):
    root = write_parts(tmp_path / "parts")
    (root / "train_test_split" / "shuffled_val_file_list.json").unlink()
    err = run(main, *flags(root), status=2).err
    assert re.fullmatch(r"error: .*shuffled_val_file_list.json does not exist: see 'ShapeNetPart' in .*\n", err)


def test_absent_parts_count_as_right():
    label = torch.tensor([[6, 6, 6, 6], [6, 6, 7, 7]])
    right, wrong = label.clone(), torch.tensor([[7, 6, 6, 6], [6, 6, 6, 7]])
    assert part_ious(right, label, (6, 7)).tolist() == [1, 1]
    assert part_ious(wrong, label, (6, 7)).tolist() == pytest.approx([(3 / 4 + 0) / 2, (2 / 3 + 1 / 2) / 2])


def test_scores_of_a_confusion():
    label, prediction = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 3])
    counts = confusion(prediction, label, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0] * 4, [0] * 4]
    scores, ious = segmentation_scores(counts)
    assert ious.tolist() == pytest.approx([200 / 3, 100 / 3, float("nan"), 0], nan_ok=True)
    assert scores == pytest.approx({"mIoU": 100 / 3, "OA": 60, "mAcc": (200 / 3 + 50) / 2})
