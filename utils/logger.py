"""The log of a run: one readable line an event, on the screen and in a file."""
import logging
import sys


def open_log(path):
    """Return a logger that writes to the screen and adds to the file ``path``."""
    logger = logging.getLogger("act")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    screen = logging.StreamHandler(sys.stdout)
    screen.setFormatter(logging.Formatter("%(message)s"))
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(screen)
    logger.addHandler(file)
    return logger


def silent_log():
    """Return a logger that says nothing, for the processes beside the main one."""
    logger = logging.getLogger("act.silent")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return logger
