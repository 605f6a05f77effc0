"""What the trainer asks of a task."""
from torch.utils.data import DataLoader

from tools.engine.run import Run


class Task:
    """What one step and one evaluation are; a subclass for each kind of training.

    Attributes:
        run: what the run has: arguments, config, device, folder, log and records.
        model: the network, on its device.
        loader: of training batches.
        metrics: names of metrics → the checkpoint of the epoch that is best by them; the first counts.
        notes: plain values that checkpoints carry for those who use them.
    """

    run: Run
    loader: DataLoader
    metrics: dict[str, str]
    notes: dict

    def losses(self, model, batch, iteration):
        """Return a dict with ``loss`` and scalars to report.

        ``model`` is to be called in place of the task's own: through it several processes share the gradients.
        """
        raise NotImplementedError

    def evaluate(self, epoch, best):
        """Return a dict of metrics, or None where the config gives no data for it."""
        raise NotImplementedError

    def watch(self, epoch, values):
        """Look at the mean ``values`` of what the epoch's steps reported, and warn where they mean trouble."""
