"""A way to run the commands on tiny configs inside the test process."""
import logging
import pathlib
import sys

import pytest
import torch
import yaml
from tiny_configs import CONFIGS

import main as main_command
import main_autoencoder as autoencoder_command
from utils.command import run_command


class Commands:
    """Runs ``main.py`` or ``main_autoencoder.py`` on one of the tiny configs, in a folder of the test's own."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        (folder / "cfgs").mkdir()
        for name, config in CONFIGS.items():
            (folder / "cfgs" / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def experiment(self, name, exp_name="default"):
        """Return the folder of an experiment with a tiny config."""
        return self.folder / "work_dirs" / name / "cfgs" / exp_name

    def __call__(self, name, *flags, status=0, module=None):
        """Run config ``name``, or the one in a file, with ``flags`` and return (stdout, stderr); assert the status."""
        module = module or (autoencoder_command if name == "autoencoder" else main_command)
        config = name if isinstance(name, pathlib.Path) else self.folder / "cfgs" / f"{name}.yaml"
        argv = [module.__name__, "--config", str(config), "--work_dir",
                f"{self.folder}/work_dirs", "--num_workers", "0", "--device", "cpu", *map(str, flags)]
        self.monkeypatch.setattr(sys, "argv", argv)
        got = 0
        try:
            run_command(module.main)
        except SystemExit as stop:
            got = stop.code
        for handler in list(logging.getLogger("act").handlers):
            handler.close()
            logging.getLogger("act").removeHandler(handler)
        out = self.capsys.readouterr()
        assert got == status, out.err
        return out


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield Commands(tmp_path, monkeypatch, capsys)
    torch.use_deterministic_algorithms(deterministic)
