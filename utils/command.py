"""What surrounds every command: a user's mistake is one line on stderr and exit status 2."""
import os
import signal
import sys
import warnings

from utils.environment import main_process
from utils.errors import StoppedBySignal, UserError, one_line

# exit statuses; a run that a signal has ended exits with 128 + the signal's number, as shells have it
USER_ERROR, LOST = 2, 1


def run_command(main):
    """Call ``main``, show warnings and errors as single lines, and exit with a fitting status."""
    warnings.showwarning = _show_warning
    try:
        _run(main)
    except UserError as error:
        _end_dead_worker(error)
        _end(f"error: {one_line(error)}", USER_ERROR)
    except StoppedBySignal as stop:
        _end(str(stop), 128 + stop.number)
    except KeyboardInterrupt:
        _end("stopped", 130)
    except Exception as error:
        _end_dead_worker(error)
        if not (isinstance(error, RuntimeError) and _lost_another(error)):
            raise
        _end(f"error: another process of this run has ended; what it says is the reason. Here: {one_line(error)[:100]}",
             LOST)


def show_uncaught_in_one_line() -> None:
    """Let a UserError that ends a program outside ``run_command``, while modules are imported, be one line too."""
    def show(kind, error, traceback):
        if not issubclass(kind, UserError):
            sys.__excepthook__(kind, error, traceback)
            return
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        if not hasattr(sys, "ps1"):  # at a prompt it ends nothing
            raise SystemExit(USER_ERROR)

    sys.excepthook = show


def _run(main):
    try:
        main()
    except StoppedBySignal:  # all processes are
        _leave()
        raise
    _leave()


def _end(text, status):
    """Say ``text``, in front of it which process of several does, and exit."""
    print(text if main_process() else f"[process {os.environ['RANK']}] {text}", file=sys.stderr, flush=True)
    sys.exit(status)


def _end_dead_worker(error):
    """Exit if a process that loads data has died before ``error``.

    torch says so wherever the program is at that moment, and what is cut short there may raise an error of its own.
    """
    while error is not None and "DataLoader worker (pid" not in str(error):
        error = error.__cause__ or error.__context__
    if error is None:
        return
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report the others' end too
    reason = next(line for line in str(error).splitlines() if "DataLoader worker (pid" in line).strip(" .")
    _end(f"error: a process that loads data has died ({reason}), most often for want of memory or of room in "
         f"/dev/shm: go on with --resume and a lower --num_workers", USER_ERROR)


def _lost_another(error):
    distributed = sys.modules.get("utils.distributed")
    return distributed is not None and distributed.lost_another(error)


def _leave():
    if "utils.distributed" in sys.modules:
        sys.modules["utils.distributed"].stop()


def _show_warning(message, category, filename, lineno, file=None, line=None):
    if issubclass(category, UserWarning) and main_process():
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
