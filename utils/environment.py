"""Environment variables that hold numbers, a launcher's above all; an empty one is unset. torch is not imported."""
import os

from utils.errors import ConfigError

LAUNCH = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what a process needs to find the others


def is_set(name: str) -> bool:
    """Whether the environment variable ``name`` is set, and not to blanks."""
    return bool(os.environ.get(name, "").strip())


def whole_number(name: str, default: int, least: int = 0) -> int:
    """Return the number in the environment variable ``name``, or ``default`` where it is not set.

    Raises ConfigError where it is anything but a whole number of at least ``least``.
    """
    if not is_set(name):
        return default
    text = os.environ[name].strip()
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise ConfigError(f"the environment variable {name} is '{text}', not a whole number of at least {least}: "
                          f"unset it, or let torchrun set it")
    return int(text)


def launched() -> bool:
    """Whether torchrun (or a launcher that sets the same variables) has started this process."""
    whole_number("RANK", 0)
    whole_number("WORLD_SIZE", 1, least=1)
    return is_set("RANK") and is_set("WORLD_SIZE")


def check_launch() -> None:
    """Raise ConfigError where a launcher's variables are set in part, or contradict each other."""
    rank, count = whole_number("RANK", 0), whole_number("WORLD_SIZE", 1, least=1)
    for name, least in (("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1), ("MASTER_PORT", 0)):
        whole_number(name, 0, least)
    if not is_set("RANK") and count == 1:
        return
    missing = [name for name in LAUNCH if not is_set(name)]
    if missing:
        there = "RANK" if is_set("RANK") else "WORLD_SIZE"
        raise ConfigError(f"the environment variable {there} is set, but {' and '.join(missing)} "
                          f"{'are' if len(missing) > 1 else 'is'} not: start several processes by torchrun, or unset "
                          f"{there} for a single one")
    if rank >= count:
        raise ConfigError(f"the environment variable RANK is {rank}, but WORLD_SIZE is {count}: ranks are 0 … "
                          f"{count - 1}")


def main_process() -> bool:
    """Whether this is the first process, or the only one, as far as the environment tells."""
    text = os.environ.get("RANK", "").strip()
    return not text.isdecimal() or int(text) == 0
