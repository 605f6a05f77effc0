"""The checkpoints in a run's folder: the one that it goes on from, its predecessor, and what an older run has left."""
import contextlib
import os

from utils import checkpoint, distributed
from utils.errors import CheckpointError
from utils.files import saying_what

LAST, BEFORE, OLD = "ckpt-last.pth", "ckpt-last-before.pth", "ckpt-last-old.pth"


def is_there(folder):
    """Whether ``folder`` holds a run to go on with."""
    return any((folder / name).is_file() for name in (LAST, BEFORE))


class SavedRun:
    """The checkpoints of one run, of which the main process writes."""

    def __init__(self, folder, log):
        self.folder, self.log = folder, log
        self.has_last = False  # whether ckpt-last.pth is this run's, and whole

    def archive_previous_run(self):
        """Rename what an older run has left in the folder, so that this one is never taken for it."""
        if not distributed.is_main():
            return
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.folder / LAST, self.folder / OLD)
        (self.folder / BEFORE).unlink(missing_ok=True)

    def write(self, name, state):
        """Write ``state`` as the checkpoint ``name``; ``ckpt-last.pth`` keeps its predecessor."""
        if not distributed.is_main():
            return
        with saying_what(self.folder / name):
            checkpoint.save(state, self.folder / name, keep=BEFORE if name == LAST and self.has_last else None)
        self.has_last = self.has_last or name == LAST

    def read(self):
        """Return the path and the state of ``ckpt-last.pth``, or of the one before it where that is damaged."""
        name = distributed.broadcast_from_main(self._readable)
        self.has_last = name == LAST
        path = self.folder / name
        state = checkpoint.read(path)
        if not isinstance(state, dict) or not {"base_model", "optimizer", "epoch"} <= state.keys():
            raise CheckpointError(f"checkpoint {path} holds no training to resume; give it as --start_ckpts")
        return path, state

    def _readable(self):
        try:
            checkpoint.read(self.folder / LAST)
        except CheckpointError as error:
            if not (self.folder / BEFORE).is_file():
                raise
            self.log.warning("WARNING: %s. Going on from the one before it, %s", error, BEFORE)
            return BEFORE
        return LAST
