"""Writing files so that no half-written one ever bears its name."""
import contextlib
import os
import pathlib
import shutil
import uuid

from utils.errors import UserError


@contextlib.contextmanager
def replacing(path, durable=False, keep=None):
    """Open a temporary file that becomes ``path`` when the block ends well and is removed when it does not.

    ``durable`` waits until it is on the disk, so that not even a power failure leaves half of it. The file that was
    ``path`` is then called ``keep`` (in the same folder).
    """
    path = pathlib.Path(path)
    temporary = temporary_for(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if keep and path.exists():
            keep_as(path, keep)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def why_not_writable(path: str | os.PathLike) -> str | None:
    """Return why no file ``path`` can be written, in a word or two, or None where it can."""
    temporary = temporary_for(pathlib.Path(path))
    try:
        open(temporary, "wb").close()
        temporary.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None


def check_writable(path: str | os.PathLike) -> None:
    """Raise UserError where the file ``path`` cannot be written: before the work whose result is to go there."""
    reason = why_not_writable(path)
    if reason:
        raise UserError(f"{path} cannot be written: {reason}")


def temporary_for(path):
    """Return an unused name for what is to become the file ``path``."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")


def remove_leftovers(folder):
    """Remove temporary files that a process left in ``folder`` when it was killed while writing."""
    for path in pathlib.Path(folder).glob(".*.part"):
        path.unlink(missing_ok=True)


def keep_as(path, before):
    """Give the file ``path`` a second name ``before`` (in the same folder), in place of what bore it.

    There is no moment at which ``path`` is missing, so that it can be replaced afterwards.
    """
    temporary = temporary_for(path)
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        os.replace(temporary, path.with_name(before))
    finally:
        temporary.unlink(missing_ok=True)  # renaming does nothing where both are names of one file


@contextlib.contextmanager
def saying_what(path):
    """Turn an OSError in the block, such as a full disk, into a UserError about the file ``path``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); checkpoints written before are whole: "
                        f"make room and go on with --resume") from error
