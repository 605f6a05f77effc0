import importlib
import pathlib
import subprocess
import sys
import time

import pytest

from utils.errors import ConfigError
from utils.parser import ArgumentParser, autoencoder_arguments, main_arguments
from utils.segmentation_parser import segmentation_arguments

ROOT = pathlib.Path(__file__).parents[2]


def test_the_folder_follows_the_config():
    args = main_arguments(["--config", "cfgs/pretrain/some.yaml", "--exp_name", "one"])
    assert args.folder == pathlib.Path("work_dirs/some/pretrain/one")


def test_overrides_are_gathered():
    args = main_arguments(["--config", "c.yaml", "--set", "a=1", "b=2", "--set", "c=3"])
    assert args.set == ["a=1", "b=2", "c=3"]


@pytest.mark.parametrize(("parse", "flags", "message"), [
    (main_arguments, ["--finetune_model", "--scratch_model"], "--finetune_model and --scratch_model contradict"),
    (main_arguments, ["--finetune_model"], "--finetune_model needs --ckpts"),
    (main_arguments, ["--scratch_model", "--ckpts", "x"], "--scratch_model and --ckpts contradict"),
    (main_arguments, ["--resume", "--start_ckpts", "x"], "--resume and --start_ckpts contradict"),
    (main_arguments, ["--ckpts", "x"], "--ckpts is for --finetune_model"),
    (main_arguments, ["--test"], "--test needs --ckpts"),
    (main_arguments, ["--way", "0"], "--way and --shot must be at least 1"),
    (main_arguments, ["--vote"], "--vote is for --finetune_model"),
    (main_arguments, ["--test_svm"], "--test_svm needs --ckpts"),
    (autoencoder_arguments, ["--val", "--test", "--ckpts", "x"], "--val and --test contradict"),
    (autoencoder_arguments, ["--test"], "--test needs --ckpts"),
    (autoencoder_arguments, ["--ckpts", "x"], "--ckpts is for --val and --test"),
])
def test_contradictory_flags(parse, flags, message):
    with pytest.raises(ConfigError, match=message):
        parse(["--config", "c.yaml", *flags])


@pytest.mark.parametrize("script", ["main.py", "main_autoencoder.py"])
def test_help_is_quick_and_contradictions_show_no_traceback(script):
    start = time.monotonic()
    helped = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--exp_name" in helped.stdout
    assert time.monotonic() - start < 5  # a second on an idle machine; importing torch alone takes several
    wrong = subprocess.run([sys.executable, script, "--config", "c.yaml", "--resume", "--start_ckpts", "x"], cwd=ROOT,
                           capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr == "error: --resume and --start_ckpts contradict each other: give one of them\n"


PROGRAMS = [path.relative_to(ROOT) for folder in (".", "tools", "datasets", "semantic_segmentation",
                                                  "part_segmentation") for path in sorted((ROOT / folder).glob("*.py"))
            if "run_command(main)" in path.read_text(encoding="utf-8")]


def test_no_parser_takes_abbreviations():
    parser = ArgumentParser()
    parser.add_argument("--val_freq")
    assert parser.parse_args(["--val_freq", "3"]).val_freq == "3"
    with pytest.raises(SystemExit):
        parser.parse_args(["--val", "3"])
    assert len(PROGRAMS) > 12
    for path in (ROOT / name for folder in (".", "tools", "utils", "datasets", "semantic_segmentation",
                                            "part_segmentation") for name in (ROOT / folder).glob("*.py")):
        own = path.read_text(encoding="utf-8").replace("class ArgumentParser(argparse.ArgumentParser)", "")
        assert "argparse.ArgumentParser" not in own, path


@pytest.mark.parametrize("path", PROGRAMS, ids=str)
def test_an_abbreviated_flag_is_no_flag(path, run):
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    assert "error: " in run(module, "--hel", status=2).err  # in full it would be --help


def test_a_flag_is_not_taken_for_a_longer_one():
    for parse, flag in ((main_arguments, "--val"), (main_arguments, "--finetune"), (autoencoder_arguments, "--val_f")):
        with pytest.raises(SystemExit):
            parse(["--config", "c.yaml", flag, "2"])


@pytest.mark.parametrize("parse", [main_arguments, autoencoder_arguments, segmentation_arguments])
def test_published_flags_without_a_meaning(parse):
    config = ["c.yaml"] if parse is segmentation_arguments else []
    argv = [*config, [*([] if config else ["--config", "c.yaml"]), "--loss", "cd1", "--mode", "easy"]]
    with pytest.warns(UserWarning, match="has no effect here") as said:
        args = parse(*argv[:-1], argv=argv[-1])
    assert [str(warning.message).split(" here: ")[0] for warning in said] == ["--loss has no effect",
                                                                             "--mode has no effect"]
    assert (args.way, args.shot, args.fold) == (None, None, None)


def test_no_few_shot_in_published_form():
    args = main_arguments(["--config", "c.yaml", "--way", "-1", "--shot", "-1", "--fold", "-1"])
    assert (args.way, args.shot, args.fold) == (None, None, None)
    args = main_arguments(["--config", "c.yaml", "--way", "5", "--shot", "10", "--fold", "0"])
    assert (args.way, args.shot, args.fold) == (5, 10, 0)
    with pytest.raises(SystemExit):
        main_arguments(["--config", "c.yaml", "--way", "-2"])


def test_testing_votes_anyway():
    with pytest.warns(UserWarning, match="--vote adds nothing to --test"):
        args = main_arguments(["--config", "c.yaml", "--test", "--vote", "--ckpts", "x"])
    assert args.test


RUN_SH = ("--model pt --optimizer_part all --learning_rate 0.0002 --epoch 60 --warmup_epoch 10 --batch_size 16 "
          "--num_point 4096 --normal --step_size 10 --lr_decay 0.5 --decay_rate 1e-4 --gpu 0 --log_dir exp --root data "
          "--test_area 5 --ckpts x.pth --way -1")


def test_published_flags_of_segmentation(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.warns(UserWarning, match="has no effect here") as said:
        args = segmentation_arguments("c.yaml", areas=True, argv=RUN_SH.split())
    assert sorted(str(warning.message).split()[0] for warning in said) == ["--lr_decay", "--normal", "--step_size"]
    assert "dataset.train.others.npoints=4096" in args.set
    assert "optimizer.kwargs.weight_decay=0.0001" in args.set
    assert args.optimizer_part == "all"
    with pytest.raises(ConfigError, match="--optimizer_part only_new is for training from --ckpts"):
        segmentation_arguments("c.yaml", argv=["--optimizer_part", "only_new"])
