import pathlib
import subprocess
import sys
import time

import pytest

from utils.errors import ConfigError
from utils.parser import autoencoder_arguments, main_arguments

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
    (main_arguments, ["--test", "--vote", "--ckpts", "x"], "--test and --vote contradict"),
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
