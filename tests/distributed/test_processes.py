"""Runs of two processes as a cluster's user starts, loses and stops them."""
import os
import pathlib
import re
import signal
import time

import pytest
import yaml
from forks import wait_for
from starting import ROOT, TORCHRUN, finish, launch, records
from tiny_configs import CONFIGS

from utils import checkpoint

pytestmark = pytest.mark.slow

LAUNCH = ("-m", "torch.distributed.launch")


@pytest.fixture
def words(tmp_path):
    """Return a function that gives the command of a fine-tuning run in ``tmp_path``."""
    def words(*more, **changes):
        path = tmp_path / "finetune.yaml"
        path.write_text(yaml.safe_dump({**CONFIGS["finetune"], **changes}))
        return (ROOT / "main.py", "--config", path, "--scratch_model", "--device", "cpu", "--num_workers", "1", *more)

    return words


def folder_of(tmp_path):
    return tmp_path / "work_dirs" / "finetune" / tmp_path.name / "default"


def processes_of(launcher):
    """Return the process numbers of what torchrun has started."""
    return [int(text) for text in
            pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]


def wait_for_epoch(tmp_path, number):
    log = folder_of(tmp_path) / "log.txt"
    wait_for(lambda: log.is_file() and f"Epoch {number}/" in log.read_text(), 120)


@pytest.mark.parametrize(("launcher", "more"), [(TORCHRUN, ["--launcher", "pytorch"]), (LAUNCH, [])])
def test_launchers(words, tmp_path, launcher, more):
    out, err = finish(launch(tmp_path, 2, *words(*more), launcher=launcher))
    assert "Device      2 processes, each with CPU" in out
    assert out.count("Last        OA") == 1  # one process reports
    folder = folder_of(tmp_path)
    assert [line["split"] for line in records(folder)] == ["val", "train", "train", "val"]
    assert checkpoint.read(folder / "ckpt-last.pth")["processes"] == 2
    assert len(list((folder.parent / "TFBoard" / "default").iterdir())) == 1
    assert not re.search("Traceback|warning: ", err)


def test_a_batch_that_cannot_be_shared(words, tmp_path):
    _, err = finish(launch(tmp_path, 2, *words(total_bs=5)), status=None)
    assert "total_bs is 5, the clouds of a step of all processes together; 2 processes cannot share them: give a " \
           "multiple of 2" in err


def test_a_killed_process_ends_the_others_within_a_minute(words, tmp_path):
    started = launch(tmp_path, 2, *words(max_epoch=100_000))
    wait_for_epoch(tmp_path, 0)
    os.kill(processes_of(started)[1], signal.SIGKILL)
    begun = time.monotonic()
    _, err = finish(started, status=None, timeout=60)
    assert time.monotonic() - begun < 60
    assert re.search(r"exitcode +: -9", err)


def test_torchrun_restarts_a_run_where_it_was(words, tmp_path):
    started = launch(tmp_path, 2, *words("--save_every", 1, max_epoch=300),
                     launcher=(*TORCHRUN, "--max_restarts=1"))
    wait_for_epoch(tmp_path, 2)
    os.kill(processes_of(started)[0], signal.SIGKILL)
    log = folder_of(tmp_path) / "log.txt"
    wait_for(lambda: "Resuming" in log.read_text(), 120)
    at = int(re.search(r"Resuming after epoch (\d+)", log.read_text())[1])
    assert at >= 1
    wait_for_epoch(tmp_path, at + 2)
    started.send_signal(signal.SIGTERM)
    _, err = finish(started, status=None, timeout=60)
    epochs = [line["epoch"] for line in records(folder_of(tmp_path)) if line["split"] == "train"]
    assert epochs == list(range(len(epochs)))  # none lost, none twice


def test_a_stopped_run_goes_on_in_one_process(words, tmp_path):
    started = launch(tmp_path, 2, *words(max_epoch=300))
    wait_for_epoch(tmp_path, 0)
    started.send_signal(signal.SIGTERM)  # torchrun hands it on
    _, err = finish(started, status=None, timeout=60)
    state = checkpoint.read(folder_of(tmp_path) / "ckpt-last.pth")
    assert re.search(rf"(?m)^stopped by SIGTERM; .*ckpt-last.pth holds all {state['iteration']} steps", err)
    end = state["epoch"] + 2
    out, _ = finish(launch(tmp_path, 1, *words("--resume", max_epoch=end)))
    assert "The run had 2 processes and has 1 now. The clouds of each step stay the same" in out
    assert checkpoint.read(folder_of(tmp_path) / "ckpt-last.pth")["iteration"] == 2 * (end + 1)
