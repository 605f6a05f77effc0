"""One run's surroundings: config, processes, device, folder, log, records."""
import contextlib
import ctypes
import dataclasses
import logging
import pathlib
import random

import numpy as np
import torch
from easydict import EasyDict

import extensions
from tools.engine import checkpoints
from tools.engine.records import NoRecords, Records
from tools.engine.resolve import resolve
from utils import distributed
from utils.config import apply_data_flags, as_text, load_config, plain, require_for_training, save_config
from utils.environment import launched, main_process, whole_number
from utils.errors import ConfigError, UserError
from utils.files import remove_leftovers
from utils.logger import open_log, silent_log

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass
class Run:
    """What a task and the trainer share; ``folder`` holds checkpoints, the resolved config and the log.

    ``config`` has every key with its value, ``given`` those alone that the config file or the command line gives.
    """

    args: object
    config: EasyDict
    given: EasyDict
    device: torch.device
    folder: pathlib.Path
    log: logging.Logger
    records: Records

    def autocast(self):
        """Return the mixed-precision context of ``--amp``."""
        dtype = AMP_DTYPES.get(self.args.amp)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def write_config(self):
        """Write the resolved config to the folder; a test does not rewrite how training was."""
        path = self.folder / "config.yaml"
        if distributed.is_main() and not (self.args.testing and path.exists()):
            save_config(self.config, path)

    def close(self):
        """Say where everything was written."""
        self.records.close()
        if distributed.is_main():
            self.log.info("Written to %s: %s; TensorBoard: %s", self.folder,
                          ", ".join(sorted(path.name for path in self.folder.iterdir())),
                          self.folder.parent / "TFBoard" / self.folder.name)


def open_run(args):
    """Read the config, join the other processes, seed every generator, and make the folder ``args.folder``.

    With ``--print_config`` the resolved config is printed, and the program ends.
    """
    given, config = read_config(args)
    if args.print_config:
        print(as_text(config) if main_process() else "", end="")
        raise SystemExit(0)
    if args.launcher == "pytorch" and not launched():
        raise ConfigError("--launcher pytorch: start the command by torchrun, as in torchrun --nproc_per_node=4 "
                          "main.py …")
    device = choose_device(args.device)
    if args.amp == "fp16" and device.type != "cuda":
        raise ConfigError("--amp fp16 needs a GPU; on a CPU give --amp bf16")
    if device.type == "cpu":
        keep_freed_memory()
    distributed.start(device)
    seed_everything(args.seed, args.deterministic)
    again = distributed.all_reduce_max(distributed.restarts()) > 0  # machines count for themselves
    args.resume = distributed.broadcast_from_main(lambda: whether_to_resume(args, again))
    if not distributed.is_main():
        return Run(args, config, given, device, args.folder, silent_log(), NoRecords())
    try:
        log, records = open_folder(args.folder, config, args.wandb)
        run = Run(args, config, given, device, args.folder, log, records)
        run.write_config()
    except OSError as error:
        raise UserError(f"the experiment's folder {args.folder} cannot be written: {error.strerror}") from error
    return run


def read_config(args):
    """Return the config that a command line asks for: what is given, and that with every default."""
    given = load_config(args.config, args.set)
    if not args.testing and not args.print_config:
        require_for_training(given, args.config)
    apply_data_flags(given, args)
    return given, resolve(given, args.config)


def whether_to_resume(args, again):
    """Whether there is a run to go on with, as ``--resume`` says; ConfigError where there should be one and is not.

    Processes that torchrun has started ``again`` go on by themselves.
    """
    wanted = "auto" if again and not args.testing else args.resume
    there = checkpoints.is_there(args.folder)
    if wanted == "must" and not there:
        raise ConfigError(f"--resume: there is no {args.folder / checkpoints.LAST}; check --exp_name, train without "
                          f"it, or give --resume auto, which starts a run that is not there yet")
    return bool(wanted) and there


def open_folder(folder, config, wandb):
    """Make the experiment's folder; returns its log and its records."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    return open_log(folder / "log.txt"), Records(folder, plain(config), wandb)


def choose_device(name):
    """Return the device called ``name``; ``auto`` is a GPU, of several processes one each, or else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda:") and launched() and whole_number("LOCAL_WORLD_SIZE", 1, least=1) > 1:
        raise ConfigError(f"--device {name} names one GPU for several processes: give --device cuda, one each")
    if name == "cuda" and launched():
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
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


def mixed_seed(*numbers):
    """Return one 64-bit seed for whole ``numbers``; different ones give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def seed_step(seed, iteration):
    """Seed Python, numpy and torch for one training step of this process.

    What is random in a step so depends on the seed, the step and the process alone: not on where a run was interrupted,
    and no two processes or steps draw alike.
    """
    value = mixed_seed(seed, distributed.rank(), iteration)
    random.seed(value)
    np.random.seed(value % 2 ** 32)
    torch.manual_seed(value)


def seed_everything(seed, deterministic):
    """Seed Python, numpy and torch; ``deterministic`` also chooses deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def summarize(run, model, datasets):
    """Log what is about to run: device, operators, data and parameters. ``datasets`` maps a name to a data set."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    device = run.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    run.log.info("Experiment  %s", run.folder)
    count = distributed.world_size()
    processes = f"{count} processes, each with " if count > 1 else ""
    run.log.info("Device      %s%s; operators: %s; precision: %s", processes, name,
                 extensions.backend(device), "float32" if run.args.amp == "off" else run.args.amp)
    run.log.info("Data        %s", "; ".join(f"{split}: {data.describe()}" for split, data in datasets.items()))
    run.log.info("Model       %s: %.2f M parameters, %.2f M trained, %.2f M frozen", type(model).__name__,
                 total / 1e6, trained / 1e6, (total - trained) / 1e6)
