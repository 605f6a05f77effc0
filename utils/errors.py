"""Errors that are shown to people: one line that names the file, key or shape and says what to do."""
import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave; printed as one line, never with a traceback."""


class ConfigError(UserError):
    """A configuration key, value or combination of arguments that cannot be used."""


class DataError(UserError):
    """A data file or folder that is missing, damaged or of another form than announced."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read or does not belong to the model."""


class NonFiniteLossError(UserError):
    """A training step whose loss is NaN or infinite."""


class StoppedBySignal(Exception):  # noqa: N818 - no error: what was asked for
    """The run has saved itself and ends because of signal ``number``."""

    def __init__(self, number, text):
        super().__init__(text)
        self.number = number


def one_line(error):
    """Return what ``error`` says as one line.

    A data-loading worker hands its exception over as text, with the traceback in front; the last line of that
    text is the message itself.
    """
    text = str(error).strip()
    if "Original Traceback" in text:
        text = text.rsplit("\n", 1)[-1].split(": ", 1)[-1]
    return " ".join(text.split())


def nearest(word: object, known: Iterable) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest of ``known``, or the whole list where none is near."""
    known = [str(key) for key in known]
    match = difflib.get_close_matches(str(word), known, 1, 0.6)
    if match:
        return f" (did you mean '{match[0]}'?)"
    return f" (valid: {', '.join(known)})" if known else ""
