"""Ways to start commands in several processes."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


def environment():
    """Return the environment of a started process: one thread each, none of a launcher's variables."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "MASTER_"))}
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(folder, *words, **options):
    """Start Python with ``words`` in ``folder``; returns the process, whose output is text."""
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, env=environment(), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options)


def launch(folder, count, *words, launcher=TORCHRUN):
    """Start ``words`` in ``count`` processes by torchrun, or by another ``launcher``."""
    return start(folder, *launcher, f"--nproc_per_node={count}", *words)


def finish(process, status=0, timeout=300):
    """Wait for a process; returns (stdout, stderr), and asserts its exit status (None: any but 0)."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        pytest.fail(f"still running after {timeout} s: {process.communicate()}")
    assert process.returncode != 0 if status is None else process.returncode == status, out + err
    return out, err


def records(folder):
    """Return the lines of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
