"""Runs that are killed, told to stop, or meet a broken machine: nothing is lost, and it is said what happened."""
import os
import random
import signal
import time

import pytest
import torch
import yaml
from forks import Forks
from tiny_configs import CONFIGS

from utils import checkpoint

RUNS = {"autoencoder": ("main_autoencoder", ["--num_workers", "0"]),
        "pretrain": ("main", ["--num_workers", "0", "--ema", "0.9"]),
        "finetune": ("main", ["--num_workers", "1", "--scratch_model", "--vote"])}
EPOCHS = 4


@pytest.fixture(scope="module")
def forks():
    with Forks() as server:
        yield server


@pytest.fixture
def arguments(tmp_path):
    """Return a function that gives the module and arguments of a short run of one of the tiny configs."""
    def arguments(name, exp_name, *more, **changes):
        config = {**CONFIGS[name], "max_epoch": EPOCHS - 1, "scheduler": {
            "type": "CosLR", "kwargs": {"epochs": EPOCHS, "initial_epochs": 1}}, **changes}
        config["total_bs"] = changes.get("total_bs", 5)
        if name == "finetune":
            config["vote"] = {"times": 2, "rounds": 1}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        module, flags = RUNS[name]
        return (module, "--config", path, "--work_dir", tmp_path / "work", "--device", "cpu", "--val_freq", 2,
                "--exp_name", exp_name, *flags, *more)

    return arguments


def folder_of(tmp_path, name, exp_name):
    return tmp_path / "work" / name / tmp_path.name / exp_name


def differences(one, other, at=""):
    """Return the places at which two nested structures of tensors and values are not the very same."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [at]
    if isinstance(one, dict):
        keys = [at + "/keys"] if list(one) != list(other) else []
        return keys + [place for key in one if key in other for place in differences(one[key], other[key], f"{at}/{key}")]
    if isinstance(one, (list, tuple)) and len(one) == len(other):
        return [place for index, pair in enumerate(zip(one, other, strict=True))
                for place in differences(*pair, f"{at}/{index}")]
    return [] if one == other or one != one and other != other else [at]


@pytest.mark.parametrize(("name", "number"), [("finetune", 20), ("autoencoder", 6), ("pretrain", 6)])
def test_kills_change_nothing(forks, arguments, tmp_path, name, number):
    """Runs are killed at random moments and taken up again; each that gets to its end is like the undisturbed one."""
    rng, out, kills, runs = random.Random(name), tmp_path / "out.txt", 0, 0
    begun = time.monotonic()
    forks.run(*arguments(name, "whole"), out=out)
    whole, seconds = folder_of(tmp_path, name, "whole"), time.monotonic() - begun
    while kills < number:
        again = arguments(name, f"killed{runs}", "--resume", "auto", "--save_every", rng.randint(1, 3))
        parts, status = folder_of(tmp_path, name, f"killed{runs}"), -signal.SIGKILL
        while status:
            pid = forks.start(*again, out=out)
            if kills < number:
                time.sleep(rng.random() * seconds / 2)
                os.kill(pid, signal.SIGKILL)
            status = forks.wait(pid)
            assert status in (0, -signal.SIGKILL), out.read_text()
            kills += status != 0
            assert "damaged" not in out.read_text()
            for file in parts.glob("*.pth"):
                checkpoint.read(file)  # there is never half a checkpoint
        assert_same(whole, parts)
        runs += 1


def assert_same(one, other):
    """Assert that two runs have left the same weights, states, metrics and records, bit by bit, and nothing more."""
    assert (other / "metrics.jsonl").read_bytes() == (one / "metrics.jsonl").read_bytes()
    assert not list(other.glob(".*.part"))
    files = sorted(path.name for path in one.glob("*.pth"))
    assert sorted(path.name for path in other.glob("*.pth")) == files
    assert len(files) <= 4
    for file in files:
        if file != "ckpt-last-before.pth":  # that depends on how often a run is saved
            assert differences(checkpoint.read(one / file), checkpoint.read(other / file)) == []
