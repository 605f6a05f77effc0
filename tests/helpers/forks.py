"""Start commands quickly, as processes of their own that can be killed: ``with Forks() as forks``.

A server process imports everything once and forks a child for every command; run as a script, this file is the server.
"""
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PATH = (ROOT, ROOT / "tests" / "helpers", ROOT / "tests" / "tools" / "engine")  # of the last, functions for ``patch``
MODULES = ("main", "main_autoencoder", "tools.tasks.autoencoding", "tools.tasks.pretraining",
           "tools.tasks.classification")


class Forks:
    """The side of the tests."""

    def __enter__(self):
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, PATH))})
        return self

    def __exit__(self, *error):
        self.server.stdin.close()
        self.server.wait(30)

    def ask(self, **request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(self, module, *argv, out, patch=None):
        """Start ``module`` with ``argv``, its output in the file ``out``; returns its process number.

        ``patch`` is the name of a function ``module:function`` to call first.
        """
        return self.ask(start=module, argv=[str(word) for word in argv], out=str(out), patch=patch)

    def wait(self, pid):
        """Return the exit status of a process, negative for the signal that has ended it."""
        return self.ask(wait=pid)

    def run(self, module, *argv, out, status=0, patch=None):
        """Run a command to its end; returns what it has printed."""
        got = self.wait(self.start(module, *argv, out=out, patch=patch))
        text = pathlib.Path(out).read_text()
        assert got == status, text
        return text


def wait_for(condition, seconds=60):
    """Wait until ``condition()`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def child(request):
    """Be the command: in the forked process."""
    os.setsid()
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1), os.dup2(out, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = [request["start"], *request["argv"]]
    if request["patch"]:
        module, _, function = request["patch"].partition(":")
        getattr(importlib.import_module(module), function)()
    from utils.command import run_command

    status = 1
    try:
        run_command(importlib.import_module(request["start"]).main)
        status = 0
    except SystemExit as stop:
        status = stop.code
    except BaseException:  # noqa: BLE001 - what the interpreter would print
        import traceback

        traceback.print_exc()
    os._exit(status)


def serve():
    """Answer requests until there are no more."""
    import torch

    torch.set_num_threads(1)  # a forked process must find no threads to wait for
    for name in MODULES:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            code = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
            answer = code
        else:
            answer = os.fork()
            if answer == 0:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                child(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
