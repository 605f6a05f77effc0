"""What a command says and how it exits when something goes wrong in it."""
import re
import signal

import pytest

from utils.command import run_command
from utils.errors import UserError


@pytest.fixture(autouse=True)
def _keep_handler():
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("after", [None, RuntimeError("unexpected pos 160128 vs 160016"), ValueError("closed"),
                                   UserError("x.pth cannot be written")], ids=["alone", "torch", "other", "user"])
def test_a_dead_worker_is_named_whatever_it_cut_short(capsys, after):
    """A signal of its death comes at any moment: in the midst of writing a checkpoint, say."""
    def main():
        try:
            raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. ")
        finally:
            if after:
                raise after

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == 2
    assert re.fullmatch(r"error: a process that loads data has died \(DataLoader worker \(pid 17\) is killed by "
                        r"signal: Killed\), most often .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("error", [RuntimeError("a mistake in the code"), KeyError("x")])
def test_a_mistake_in_the_code_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        run_command(main)
