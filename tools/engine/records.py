"""What a run writes down as numbers: ``metrics.jsonl``, TensorBoard and, if asked for, Weights & Biases."""
import json
import math

import tensorboardX

from utils.errors import ConfigError
from utils.files import replacing, saying_what


class Records:
    """One line of ``metrics.jsonl`` for every epoch's losses and every evaluation, the same as scalars in TensorBoard.

    A line: ``{"split": "train" or "val", "epoch": 3, "iteration": 400, "values": {"loss": 0.12, …}}``; what is not a
    finite number is null. ``lines`` counts them, so that a resumed run can go back to where its checkpoint was.
    """

    def __init__(self, folder, config, project=None):
        self.path, self.lines = folder / "metrics.jsonl", 0
        self.board = tensorboardX.SummaryWriter(str(folder.parent / "TFBoard" / folder.name))
        self.wandb = open_wandb(project, folder, config) if project else None

    def rewind(self, lines):
        """Drop what stands behind the first ``lines`` lines (None: nothing), and write on from there."""
        kept = self.path.read_bytes().splitlines(keepends=True)[:lines] if self.path.is_file() else []
        with saying_what(self.path), replacing(self.path) as file:
            file.writelines(kept)
        self.lines = len(kept)

    def add(self, split, epoch, iteration, values):
        """Write down ``values`` (a dict of numbers) of ``split``; epoch −1 is the evaluation before training."""
        line = {"split": split, "epoch": epoch, "iteration": iteration,
                "values": {name: value if math.isfinite(value) else None for name, value in values.items()}}
        with saying_what(self.path), open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines += 1
        named = {f"{split}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self.board.add_scalar(name, value, max(epoch, 0))
        if self.wandb:
            self.wandb.log({**named, "epoch": max(epoch, 0)})

    def image(self, name, image, epoch):
        """Show an ``image`` (H, W, 3) in TensorBoard."""
        self.board.add_image(name, image, max(epoch, 0), dataformats="HWC")

    def close(self):
        self.board.close()
        if self.wandb:
            self.wandb.finish()


class NoRecords:
    """What the other processes have: nothing is written down twice."""

    lines = 0

    def rewind(self, lines): ...

    def add(self, split, epoch, iteration, values): ...

    def image(self, name, image, epoch): ...

    def close(self): ...


def open_wandb(project, folder, config):
    """Return a run of Weights & Biases in ``project``, named after the experiment's folder; a resumed run goes on."""
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("--wandb needs the package wandb: pip install wandb") from error
    name = "-".join(folder.parts[-3:])
    return wandb.init(project=project, name=name, id="".join(c if c.isalnum() else "-" for c in name)[-128:],
                      resume="allow", config=config, dir=str(folder))
