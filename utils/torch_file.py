"""Reading what torch.save has written, and saying what is wrong with a file that it has not, or that is damaged."""
import errno
import io
import pickle
import re
import struct
import zipfile

import torch

from utils.errors import CheckpointError
from utils.numpy_pickle import Refused
from utils.stand_ins import NUMPY, StandIn, stand_ins

OLD_FORMAT = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save wrote before version 1.6


def read_pickled(file):
    """Return what torch.save has written to the open ``file``; CheckpointError says what is wrong without naming it."""
    file.seek(0)
    start = file.read(256)
    whole = False  # as far as check sums tell
    if start.startswith(b"PK\x03\x04"):
        whole = _check_archive(file)
    elif start.startswith(b"\x80") and not start.startswith(OLD_FORMAT):
        raise CheckpointError("is not a checkpoint: it is a pickle that torch.save has not written")
    elif start.startswith(b"version https://git-lfs"):
        raise CheckpointError("is not a checkpoint, but what Git LFS keeps in its place: run git lfs pull")
    elif re.match(rb"\s*<(!doctype )?html", start, re.IGNORECASE):
        raise CheckpointError("is not a checkpoint, but a web page: download it again")
    try:
        content = _load(file)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged pickle makes its reader trip over anything
        raise CheckpointError(f"{_verdict(error, whole)}: {reason(error)}") from error
    if isinstance(content, StandIn):
        raise CheckpointError(f"holds an object of the class {content.asked_for}, not weights: where that class is at "
                              f"hand, write its state_dict()")
    return content


def _load(file):
    """Return the content of ``file``, by way of stand-ins where it holds what torch does not make."""
    for more in (list, lambda: stand_ins(_pickles(file))):
        file.seek(0)
        extras = more()
        file.seek(0)
        try:
            with torch.serialization.safe_globals([*NUMPY, *extras]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            unknown = error
    raise unknown


def _pickles(file):
    """Return a file of the pickles in a checkpoint."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return file
    with zipfile.ZipFile(file) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
    file.seek(entry.header_offset + 26)  # read as it stands, because zipfile insists on a check sum
    lengths = struct.unpack("<HH", file.read(4))
    file.seek(sum(lengths), 1)
    return io.BytesIO(file.read(entry.file_size))


def _check_archive(file):
    """Raise CheckpointError for a zip file that is damaged, or not one of torch.save; torch checks neither.

    Returns whether check sums say that it is whole; torch can be told to write none.
    """
    size = file.seek(0, 2)
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > size:
                raise CheckpointError(f"is refused: it is packed and would take {unpacked / 1e9:.3g} GB")
            names = [name.split("/", 1)[-1] for name in archive.namelist()]
            if "constants.pkl" in names:
                raise TorchScriptError("is a TorchScript archive, which holds code: write its state dict")
            if "data.pkl" not in names:
                raise CheckpointError("is not a checkpoint, but a zip file of something else")
            _check_sums(archive)
            return all(entry.CRC for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:  # cut off, most often
        raise CheckpointError(f"is damaged or not a checkpoint: {reason(error)}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is a place before the start of the file
            raise
        raise CheckpointError("is damaged or not a checkpoint: it lacks a part") from error


def _check_sums(archive):
    """Raise CheckpointError for a member of a zip file that is not what was written."""
    for entry in archive.infolist():
        if not entry.CRC:
            continue
        try:
            with archive.open(entry) as member:
                while member.read(1 << 20):
                    pass
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
            raise CheckpointError(f"is damaged: {reason(error)}") from error


class TorchScriptError(CheckpointError):
    """A TorchScript archive in place of a state dict, as OpenAI's files of CLIP are."""


def _verdict(error, whole):
    """Say what kind of fault ``error``, raised while reading, is; a file that is ``whole`` is not damaged."""
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "can't allocate memory" in str(error):
        return "does not fit into memory"
    cause = error.__context__ if isinstance(error, pickle.UnpicklingError) else error
    if "persistent_load" in str(cause):
        return "holds a whole model, not its weights (write its state_dict())"
    if isinstance(cause, Refused) or re.search(r"\bGLOBAL\b|Can only|Trying to", str(cause)):
        return "is refused"
    if whole and "operand" in str(cause):
        return "was written with a pickle protocol that has no safe reader (write it again with torch.save's own, 2)"
    return "is not a checkpoint that can be read" if whole else "is damaged or not a checkpoint"


def reason(error):
    """Return what is wrong, without torch's advice to read the file in a way that runs what is in it."""
    if isinstance(error, pickle.UnpicklingError) and error.__context__ is not None:
        error = error.__context__  # what torch wraps its advice around
    text = re.split(r" was not an allowed|\. Please|\. In PyTorch", " ".join(str(error).split()))[0]
    return text[:160] or type(error).__name__
