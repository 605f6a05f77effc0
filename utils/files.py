"""Writing files so that no half-written one ever bears its name."""
import contextlib
import os
import pathlib
import shutil
import uuid


@contextlib.contextmanager
def replacing(path, durable=False):
    """Open a temporary file that becomes ``path`` when the block ends well and is removed when it does not.

    ``durable`` waits until it is on the disk, so that not even a power failure leaves half of it.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder):
    """Remove temporary files that a process left in ``folder`` when it was killed while writing."""
    for path in pathlib.Path(folder).glob(".*.part"):
        path.unlink(missing_ok=True)


def keep_as(path, before):
    """Give the file ``path`` a second name ``before`` (in the same folder), in place of what bore it.

    There is no moment at which ``path`` is missing, so that it can be replaced afterwards.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{before}.{uuid.uuid4().hex[:12]}.part")
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, path.with_name(before))
    temporary.unlink(missing_ok=True)  # renaming does nothing where both are names of one file
