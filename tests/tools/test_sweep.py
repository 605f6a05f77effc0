import csv
import re

import pytest
import yaml

from tools import sweep
from utils import checkpoint
from utils.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture
def write(command):
    def write(**changes):
        path = command.folder / "losses.yaml"
        path.write_text(yaml.safe_dump({
            "config": str(command.folder / "cfgs" / "finetune.yaml"), "seeds": [0, 1], "metrics": ["OA", "mAcc"],
            "flags": ["--scratch_model", "--num_workers", 0, "--device", "cpu", "--set", "max_epoch=1"],
            "grid": {"model.depth": [1, 2], "train_transforms": [["Rotate"]]}, **changes}))
        return [str(path), "--work_dir", str(command.folder / "out")]

    return write


def test_a_grid_becomes_a_table_and_goes_on(command, write, capsys):
    sweep.main(write())
    capsys.readouterr()
    folder = command.folder / "out" / "sweeps" / "losses"
    runs = command.folder / "out" / "finetune" / "cfgs" / "losses"
    names = sorted(path.name for path in runs.iterdir() if path.name != "TFBoard")
    assert names == ["depth=1_train_transforms=_Rotate_", "depth=2_train_transforms=_Rotate_"]
    accuracies = [checkpoint.read(runs / names[0] / f"seed{seed}" / "ckpt-last.pth")["metrics"]["OA"]
                  for seed in (0, 1)]
    with open(folder / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model.depth"], row["seeds"]) for row in rows] == [("1", "2"), ("2", "2")]
    assert float(rows[0]["OA mean"]) == pytest.approx(sum(accuracies) / 2, rel=1e-5)
    assert float(rows[0]["OA std"]) == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2, rel=1e-5)
    table = (folder / "table.md").read_text()
    assert table.splitlines()[0] == "| depth | train_transforms | OA | mAcc | seeds |"
    assert re.search(r"\| 1 \| \['Rotate'\] \| [\d.]+ ± [\d.]+ \|", table)
    last = runs / names[1] / "seed1" / "ckpt-last.pth"
    state = checkpoint.read(last)
    checkpoint.save({**state, "epoch": 0}, last)  # as if interrupted after the first epoch
    sweep.main(write())
    out = capsys.readouterr().out
    assert len(re.findall(r"Epoch \d/1  loss", out)) == 1
    assert "Resuming after epoch 0" in out
    assert (folder / "table.md").read_text().splitlines()[:3] == table.splitlines()[:3]
    with pytest.raises(SystemExit):  # what ended before was of another config
        sweep.main(write(flags=["--scratch_model", "--num_workers", 0, "--device", "cpu", "--set", "max_epoch=0"]))
    assert "holds a run of another config: remove it, or rename the sweep file" in capsys.readouterr().err


def test_values_with_points_have_folders_of_their_own(command, write, capsys):
    flags = ["--scratch_model", "--num_workers", 0, "--device", "cpu", "--set", "max_epoch=0"]
    changes = {"grid": {"optimizer.kwargs.lr": [0.5, 1.5], "grad_norm_clip": [None]}, "seeds": [0], "flags": flags}
    sweep.main(write(**changes))
    runs = command.folder / "out" / "finetune" / "cfgs" / "losses"
    names = sorted(path.name for path in runs.iterdir() if path.name != "TFBoard")
    assert names == ["grad_norm_clip=null_lr=0.5", "grad_norm_clip=null_lr=1.5"]
    assert yaml.safe_load((runs / names[1] / "seed0" / "config.yaml").read_text())["grad_norm_clip"] is None
    assert "| null | 0.5 | " in capsys.readouterr().out
    (runs / names[0] / "seed0" / "ckpt-last.pth").write_bytes(b"cut short")
    (runs / names[0] / "seed0" / "ckpt-last-before.pth").write_bytes(
        (runs / names[1] / "seed0" / "ckpt-last.pth").read_bytes())
    sweep.main(write(**changes))  # takes the one before
    assert "Epoch" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        sweep.main(write(**{**changes, "flags": [*flags, "--ema"]}))
    assert "holds a run with other flags: remove it" in capsys.readouterr().err


def test_a_metric_that_is_not_there(write):
    with pytest.raises(ConfigError, match="the runs report no metric 'SVM'; there are OA, mAcc"):
        sweep.main(write(metrics=["OA", "SVM"], seeds=[0], grid={"model.depth": [1]}))


def test_a_failing_run_is_named_and_the_others_go_on(command, write, capsys):
    with pytest.raises(SystemExit) as stop:
        sweep.main(write(grid={"model.num_heads": [7, 2]}, seeds=[0]))
    assert stop.value.code == 1
    out = capsys.readouterr()
    assert re.search("error: model.num_heads=7, seed 0: tokens of width 24 cannot be shared out among 7", out.err)
    assert "| 2 | " in out.out


@pytest.mark.parametrize(("change", "message"), [
    ({"gird": 1}, r"losses.yaml: unknown key 'gird' \(did you mean 'grid'\?\)"),
    ({"grid": {"model.depth": 1}}, "grid must map config keys to lists"),
    ({"command": "train.py"}, "command 'train.py' is not one of main.py"),
    ({"seeds": 3}, r"seeds is 3; it must be a list, as in \[3\]"),
    ({"seeds": []}, r"seeds is \[\]; it must be a list"),
    ({"metrics": "OA"}, "metrics is OA; it must be a list"),
    ({"flags": 3}, "flags is 3; it must be a list"),
    ({"config": 3}, "config is 3; it must name a file"),
    ({"grid": {"model.depth": [1], "other.depth": [1], "model.loss": ["a,b", "a b"]}}, "would share the folder"),
])
def test_wrong_files(write, change, message):
    with pytest.raises(ConfigError, match=message):
        sweep.main(write(**change))


def test_a_run_of_an_earlier_version_is_looked_up(command, write, capsys):
    """Its config.yaml holds the keys that were given alone."""
    argv = write(seeds=[0], grid={"model.depth": [1]})
    sweep.main(argv)
    saved = command.folder / "out" / "finetune" / "cfgs" / "losses" / "depth=1" / "seed0" / "config.yaml"
    assert yaml.safe_load(saved.read_text())["model"]["transfer_type"] == "full"
    given = yaml.safe_load((command.folder / "cfgs" / "finetune.yaml").read_text())
    given["model"]["depth"], given["step_per_update"] = 1, 1
    saved.write_text(yaml.safe_dump(given))
    capsys.readouterr()
    sweep.main(argv)
    assert "Epoch" not in capsys.readouterr().out
    given["model"]["transfer_type"] = "mlp-3"
    saved.write_text(yaml.safe_dump(given))
    with pytest.raises(SystemExit):
        sweep.main(argv)
    assert "holds a run of another config" in capsys.readouterr().err
