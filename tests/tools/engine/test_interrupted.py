"""Runs that are killed, told to stop, or meet a broken machine: nothing is lost, and it is said what happened."""
import os
import pathlib
import random
import re
import resource
import signal
import time

import numpy as np
import pytest
import torch
import yaml
from forks import Forks, wait_for
from tiny_configs import CONFIGS

from utils import checkpoint

pytestmark = pytest.mark.slow

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
        return keys + [place for key in one if key in other
                       for place in differences(one[key], other[key], f"{at}/{key}")]
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_step_saves_and_exits(forks, arguments, tmp_path, number):
    out, text = tmp_path / "out.txt", arguments("finetune", "told")
    pid = forks.start(*text, out=out)
    parts, log = folder_of(tmp_path, "finetune", "told"), folder_of(tmp_path, "finetune", "told") / "log.txt"
    wait_for(lambda: log.is_file() and "Before training" in log.read_text())
    os.kill(pid, number)
    assert forks.wait(pid) == 128 + number
    state = checkpoint.read(parts / "ckpt-last.pth")
    name = signal.Signals(number).name
    assert out.read_text().endswith(
        f"stopped by {name}; {parts / 'ckpt-last.pth'} holds all {state['iteration']} steps; go on with --resume\n")
    assert 0 < state["iteration"] < 4 * EPOCHS
    assert "Resuming" in forks.run(*text, "--resume", out=out)
    forks.run(*arguments("finetune", "whole"), out=out)
    assert_same(folder_of(tmp_path, "finetune", "whole"), parts)


def test_a_damaged_checkpoint_is_said_loudly_and_the_one_before_it_taken(forks, arguments, tmp_path):
    out, text = tmp_path / "out.txt", arguments("pretrain", "cut")
    forks.run(*text, "--set", "max_epoch=2", out=out)
    last = folder_of(tmp_path, "pretrain", "cut") / "ckpt-last.pth"
    last.write_bytes(last.read_bytes()[:-1000])
    (last.parent / ".ckpt-last.pth.0123456789ab.part").write_bytes(b"left by a kill")
    said = forks.run(*text, "--resume", out=out)
    assert re.search(r"WARNING: checkpoint .*ckpt-last.pth is damaged .*Going on from the one before it, "
                     r"ckpt-last-before.pth\nResuming after epoch 1 of .*ckpt-last-before.pth", said)
    forks.run(*arguments("pretrain", "whole"), out=out)
    assert_same(folder_of(tmp_path, "pretrain", "whole"), last.parent)
    for name in ("ckpt-last.pth", "ckpt-last-before.pth"):
        (last.parent / name).write_bytes(b"")
    said = forks.run(*text, "--resume", out=out, status=2)
    assert re.search("error: checkpoint .*ckpt-last-before.pth is damaged", said)


def die_before_last():
    """Be killed where the last checkpoint is about to be written for the second time."""
    from tools.engine.trainer import Trainer

    save, seen = Trainer.save, []

    def dying(self, name):
        seen.append(name)
        if seen.count("ckpt-last.pth") == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, name)

    Trainer.save = dying


def test_the_best_checkpoint_is_there_before_the_last_one_knows_of_it(forks, arguments, tmp_path):
    out, text = tmp_path / "out.txt", arguments("finetune", "best", "--val_freq", 1)
    forks.run(*text, out=out, status=-signal.SIGKILL, patch="test_interrupted:die_before_last")
    forks.run(*text, "--resume", out=out)
    forks.run(*arguments("finetune", "whole", "--val_freq", 1), out=out)
    assert_same(folder_of(tmp_path, "finetune", "whole"), folder_of(tmp_path, "finetune", "best"))


def test_a_new_run_is_not_taken_for_an_older_one_in_its_folder(forks, arguments, tmp_path):
    out, text = tmp_path / "out.txt", arguments("finetune", "twice")
    forks.run(*text, "--seed", 3, out=out)
    parts = folder_of(tmp_path, "finetune", "twice")
    old = (parts / "ckpt-last.pth").read_bytes()
    pid = forks.start(*text, out=out, patch="test_interrupted:slow_steps")
    wait_for(lambda: "Before training" in out.read_text() and not (parts / "ckpt-last.pth").exists())
    os.kill(pid, signal.SIGKILL)
    assert forks.wait(pid) == -signal.SIGKILL
    assert (parts / "ckpt-last-old.pth").read_bytes() == old
    assert "there is no" in forks.run(*text, "--resume", out=out, status=2)
    assert "Resuming" not in forks.run(*text, "--resume", "auto", out=out)


def slow_steps():
    """Let every step take half a second."""
    from tools.engine.trainer import Trainer

    step = Trainer.step
    Trainer.step = lambda *given: time.sleep(0.5) or step(*given)


def test_a_signal_that_comes_twice_is_one(forks, arguments, tmp_path):
    out = tmp_path / "out.txt"
    pid = forks.start(*arguments("finetune", "told"), out=out, patch="test_interrupted:slow_steps")
    wait_for(lambda: out.is_file() and "Before training" in out.read_text())
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.1)
    os.kill(pid, signal.SIGTERM)
    assert forks.wait(pid) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in out.read_text()


def limit_files():
    """Let no file of this process grow beyond 100 KiB, which is what a full disk looks like."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, 100 * 1024))


def test_a_full_disk(forks, arguments, tmp_path):
    out, text = tmp_path / "out.txt", arguments("finetune", "full")
    forks.run(*text, "--set", "max_epoch=2", out=out)
    parts = folder_of(tmp_path, "finetune", "full")
    before = (parts / "ckpt-last.pth").read_bytes()
    said = forks.run(*text, "--resume", out=out, status=2, patch="test_interrupted:limit_files")
    assert re.search(r"error: .*ckpt-last.pth cannot be written \(.+\); checkpoints written before are whole: make "
                     r"room and go on with --resume\n$", said)
    assert "Traceback" not in said
    assert (parts / "ckpt-last.pth").read_bytes() == before
    forks.run(*text, "--resume", out=out)
    forks.run(*arguments("finetune", "whole"), out=out)
    assert_same(folder_of(tmp_path, "finetune", "whole"), parts)


def test_records_on_a_full_disk(forks, arguments, tmp_path):
    folder = folder_of(tmp_path, "finetune", "full")
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").symlink_to("/dev/full")
    said = forks.run(*arguments("finetune", "full", "--resume", "auto"), out=tmp_path / "out.txt", status=2,
                     patch="test_interrupted:keep_records")
    assert re.search(r"error: .*metrics.jsonl cannot be written \(No space left on device\)", said)
    assert "Traceback" not in said


def keep_records():
    """Let the records stay the file that they are."""
    from tools.engine.records import Records

    Records.rewind = lambda self, lines: None


def test_an_error_in_a_worker_keeps_its_name(forks, arguments, tmp_path):
    said = forks.run(*arguments("finetune", "broken"), out=tmp_path / "out.txt", status=1,
                     patch="test_interrupted:break_data")
    assert "RuntimeError: a mistake in the code" in said
    assert "most often for want of memory" not in said


def break_data():
    """Let every sample of the built-in shapes fail."""
    from datasets import Shapes

    def fail(self, index):
        raise RuntimeError("a mistake in the code")

    Shapes.__getitem__ = fail


def folder_of_clouds(folder):
    """Write a ShapeNet of ten clouds; returns the section of a config for it."""
    (folder / "clouds").mkdir(parents=True)
    names = [f"0000000{index % 2}-{index:02}.npy" for index in range(10)]
    for name in names:
        np.save(folder / "clouds" / name, np.random.default_rng(0).random((64, 3), np.float32))
    for subset in ("train", "test"):
        (folder / f"{subset}.txt").write_text("\n".join(names))
    base = {"NAME": "ShapeNet", "DATA_PATH": str(folder), "PC_PATH": str(folder / "clouds"), "N_POINTS": 64}
    return {split: {"_base_": base, "others": {"subset": subset, "npoints": 64}}
            for split, subset in (("train", "train"), ("val", "test"))}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_file_that_disappears(forks, arguments, tmp_path, workers):
    dataset, out = folder_of_clouds(tmp_path / "data"), tmp_path / "out.txt"
    text = arguments("autoencoder", "gone", "--num_workers", workers, dataset=dataset, max_epoch=10_000)
    pid = forks.start(*text, out=out)
    log = folder_of(tmp_path, "autoencoder", "gone") / "log.txt"
    wait_for(lambda: log.is_file() and "Epoch 0/" in log.read_text())
    (tmp_path / "data" / "clouds" / "00000001-01.npy").unlink()
    assert forks.wait(pid) == 2
    assert re.search(r"\nerror: .*00000001-01.npy does not exist[^\n]*\n$", out.read_text())
    assert "Traceback" not in out.read_text()
    assert checkpoint.read(log.parent / "ckpt-last.pth")["epoch"] >= 0


def test_a_worker_that_is_killed(forks, arguments, tmp_path):
    out, text = tmp_path / "out.txt", arguments("finetune", "worker", max_epoch=10_000)
    pid = forks.start(*text, out=out)
    log = folder_of(tmp_path, "finetune", "worker") / "log.txt"
    wait_for(lambda: log.is_file() and "Epoch 1/" in log.read_text())
    for worker in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    assert forks.wait(pid) == 2, out.read_text()
    assert re.search(r"\nerror: a process that loads data has died \(DataLoader worker \(pid.*\), most often for "
                     r"want of memory or of room in /dev/shm: go on with --resume and a lower --num_workers\n$",
                     out.read_text())
    assert "Traceback" not in out.read_text()


def test_a_step_that_is_not_finite(forks, arguments, tmp_path):
    out, text = tmp_path / "out.txt", arguments("finetune", "nan", "--set", "optimizer.kwargs.lr=1e30")
    said = forks.run(*text, out=out, status=2)
    parts = folder_of(tmp_path, "finetune", "nan")
    assert re.search(rf"error: the loss is (nan|inf) in epoch \d, step \d+; its batch and weights are in "
                     rf"{parts}/nonfinite-step.pth", said)
    state = checkpoint.read(parts / "nonfinite-step.pth")
    assert [len(part) for part in state["batch"]] == [5, 5]
