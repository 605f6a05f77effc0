"""Writing files so that no half-written one ever bears its name."""
import contextlib
import os
import pathlib
import uuid


@contextlib.contextmanager
def replacing(path, durable=False):
    """Open a temporary file that becomes ``path`` when the block ends well and is removed when it does not.

    ``durable`` waits until it is on the disk, so that not even a power failure leaves half of it.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
