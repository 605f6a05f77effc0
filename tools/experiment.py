"""One run's surroundings: config, device, folder, log, TensorBoard."""
import contextlib
import ctypes
import dataclasses
import logging
import pathlib
import random

import numpy as np
import tensorboardX
import torch
from easydict import EasyDict

import extensions
from utils.config import apply_few_shot, load_config, save_config
from utils.errors import ConfigError, UserError
from utils.logger import open_log

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass
class Experiment:
    """What a runner and the trainer share; ``folder`` holds checkpoints, the resolved config and the log."""

    args: object
    config: EasyDict
    device: torch.device
    folder: pathlib.Path
    log: logging.Logger
    board: tensorboardX.SummaryWriter

    def autocast(self):
        """Return the mixed-precision context of ``--amp``."""
        dtype = AMP_DTYPES.get(self.args.amp)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def close(self):
        """Say where everything was written."""
        self.board.close()
        self.log.info("Written to %s: %s; TensorBoard: %s", self.folder,
                      ", ".join(sorted(path.name for path in self.folder.iterdir())), self.board.logdir)


def open_experiment(args):
    """Read the config, seed every generator, and make the experiment's folder ``args.folder``."""
    config = load_config(args.config, args.set)
    apply_few_shot(config, args)
    device = choose_device(args.device)
    if args.amp == "fp16" and device.type != "cuda":
        raise ConfigError("--amp fp16 needs a GPU; on a CPU give --amp bf16")
    if device.type == "cpu":
        keep_freed_memory()
    seed_everything(args.seed, args.deterministic)
    folder = args.folder
    if args.resume and not (folder / "ckpt-last.pth").is_file():
        raise ConfigError(f"--resume: there is no {folder / 'ckpt-last.pth'}; check --exp_name, or train without it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (args.testing and (folder / "config.yaml").exists()):  # a test does not rewrite how training was
            save_config(config, folder / "config.yaml")
        board = tensorboardX.SummaryWriter(str(folder.parent / "TFBoard" / folder.name))
        log = open_log(folder / "log.txt")
    except OSError as error:
        raise UserError(f"the experiment's folder {folder} cannot be written: {error.strerror}") from error
    return Experiment(args, config, device, folder, log, board)


def choose_device(name):
    """Return the device called ``name``; ``auto`` is the first GPU, or the CPU where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def keep_freed_memory():
    """Let the C library (glibc) keep large freed blocks instead of returning them to the system.

    A training step on a CPU otherwise asks for its activations page by page again: a third of the step.
    """
    mmap_max, trim_threshold = -4, -1
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


def seed_everything(seed, deterministic):
    """Seed Python, numpy and torch; ``deterministic`` also chooses deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def summarize(experiment, model, datasets):
    """Log what is about to run: device, operators, data and parameters. ``datasets`` maps a name to a data set."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    device = experiment.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    experiment.log.info("Experiment  %s", experiment.folder)
    experiment.log.info("Device      %s; operators: %s; precision: %s", name, extensions.backend(device),
                        "float32" if experiment.args.amp == "off" else experiment.args.amp)
    experiment.log.info("Data        %s", "; ".join(f"{split}: {data.describe()}" for split, data in datasets.items()))
    experiment.log.info("Model       %s: %.2f M parameters, %.2f M trained, %.2f M frozen", type(model).__name__,
                        total / 1e6, trained / 1e6, (total - trained) / 1e6)
