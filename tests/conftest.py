"""What all tests share."""
import sys

import pytest

from utils.command import run_command


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a way to run a command's module inside the test: ``run(module, *argv, status=0)`` → (stdout, stderr)."""
    def run(module, *argv, status=0):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, argv)])
        got = 0
        try:
            run_command(module.main)
        except SystemExit as stop:
            got = stop.code
        out = capsys.readouterr()
        assert got == status, out.err
        return out

    return run


@pytest.fixture
def in_tmp_path(monkeypatch, tmp_path):
    """Run the test in a folder of its own, where commands write to unless they are told otherwise."""
    monkeypatch.chdir(tmp_path)
