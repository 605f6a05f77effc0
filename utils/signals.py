"""Being told to stop: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1, which SLURM sends before a job's time is up."""
import multiprocessing
import signal

from utils.errors import StoppedBySignal

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")


def known():
    """Return the signals that this system has."""
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class StopRequest:
    """Takes note of the first signal while it is in force (``with``); a second Ctrl-C acts as it always does.

    Other signals stay noted: a process may get one twice, from torchrun and from who has sent it to all.
    """

    def __init__(self):
        self.number, self.before = 0, {}

    def __enter__(self):
        for number in known():
            self.before[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number, frame):
        self.number = number
        if number == signal.SIGINT:
            signal.signal(number, self.before[number])


def ignore():
    """Ignore the signals: for data-loading workers, which their training process stops itself."""
    for number in known():
        signal.signal(number, signal.SIG_IGN)


def end_workers():
    """Kill the workers that are still there: SIGTERM, with which multiprocessing would end them, they ignore."""
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report their end as an error
    for worker in workers:
        worker.kill()


def stopped(number, saved):
    """Return the exception that ends a run after signal ``number``."""
    return StoppedBySignal(number, f"stopped by {signal.Signals(number).name}; {saved}")
