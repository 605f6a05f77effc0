"""Environment variables that hold what they should not, or too little."""
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from utils import distributed, environment
from utils.command import run_command
from utils.errors import ConfigError

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
WHOLE = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in (*NUMBERS, "MASTER_ADDR", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "0x1", "²"])
def test_no_number(name, value, monkeypatch, command):
    monkeypatch.setenv(name, value)
    err = command("finetune", "--scratch_model", status=2).err
    assert err.startswith(f"error: the environment variable {name} is '{value}', not a whole number")
    assert err.count("\n") == 1


@pytest.mark.parametrize("value", ["", "  "])
def test_empty_is_unset(value, monkeypatch, command):
    for name in (*NUMBERS, "MASTER_ADDR", "TORCHELASTIC_RESTART_COUNT", "ACT_OPS"):
        monkeypatch.setenv(name, value)
    assert not environment.launched()
    assert (distributed.local_rank(), distributed.restarts(), distributed.planned()) == (0, 0, 1)
    command("finetune", "--scratch_model", "--set", "max_epoch=0")


@pytest.mark.parametrize("given", [
    {"RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "1", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "2"},
    {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": ""}])
def test_a_launch_in_part(given, monkeypatch, command):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    err = command("finetune", "--scratch_model", status=2).err
    assert "is set, but " in err
    assert "start several processes by torchrun, or unset " in err
    for name in environment.LAUNCH:
        assert (f" {name}" in err.split("is set, but")[1].split(" not:")[0]) != bool(given.get(name))
    assert err.count("\n") == 1


def test_ranks_that_there_are_not(monkeypatch):
    for name, value in {**WHOLE, "RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="RANK is 2, but WORLD_SIZE is 2: ranks are 0 … 1"):
        environment.check_launch()
    monkeypatch.setenv("RANK", "1")
    environment.check_launch()
    assert (environment.launched(), environment.main_process()) == (True, False)


def test_stray_variables_of_one_machine_change_nothing(monkeypatch):
    """Some schedulers set these for every job."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    environment.check_launch()
    assert not environment.launched()


def test_messages_of_a_process_without_a_number(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "abc")

    def fail():
        raise ConfigError("no")

    with pytest.raises(SystemExit):
        run_command(fail)
    assert capsys.readouterr().err == "error: no\n"


@pytest.mark.parametrize("words", [("tools/predict.py", "--help"), ("-m", "datasets.verify", "x.yaml")])
def test_a_wrong_choice_of_operators_while_modules_are_imported(words):
    """Programs that import the operators before they can catch anything."""
    got = subprocess.run([sys.executable, *words], cwd=ROOT, env={**os.environ, "ACT_OPS": "fast"}, check=False,
                         capture_output=True, text=True)
    assert got.returncode == 2
    assert got.stderr == "error: the environment variable ACT_OPS is 'fast'; it must be auto, require or python\n"


def test_a_port_that_is_in_use(monkeypatch, command):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        for name, value in {**WHOLE, "MASTER_PORT": str(other.getsockname()[1])}.items():
            monkeypatch.setenv(name, value)
        err = command("finetune", "--scratch_model", status=2).err
    assert err.startswith("error: the processes cannot meet at MASTER_ADDR localhost, MASTER_PORT ")
