"""Data-loading workers at the end of a program that has not finished with them."""
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[3]
PROGRAM = """
from types import SimpleNamespace
import torch
from tools.engine.loaders import build_loader
run = SimpleNamespace(args=SimpleNamespace(num_workers=1, seed=0), device=torch.device("cpu"))
kept = iter(build_loader(run, torch.utils.data.TensorDataset(torch.arange(40.0)), 4))
print(next(kept)[0].tolist(), flush=True)
kept.itself = kept  # as an error's traceback may, a cycle holds the workers until the very end
"""


def test_a_program_ends_with_workers_at_work():
    """They ignore SIGTERM, with which multiprocessing would end them and then wait for them, without a limit."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "[0.0, 1.0, 2.0, 3.0]\n"
    assert ended.returncode == 0, ended.stderr
    assert "Exception" not in ended.stderr
