"""Command lines of main.py and main_autoencoder.py. torch is not imported here, so that ``--help`` is quick."""
import argparse
import os
import pathlib
import warnings

from utils.environment import whole_number
from utils.errors import ConfigError

# names of data after --test_svm, as I2P-MAE has them → the data sets that they stand for
PROBED = {"modelnet40": ("ModelNet", "ModelNetHDF5", "ModelNet40_SVM"),
          "scan": ("ScanObjectNN", "ScanObjectNN_hardest")}

FEW_SHOT = ("way", "shot", "fold")
# published flags without a meaning here → why
MEANINGLESS = {"loss": "the loss is a key of the config", "mode": "the data has no such choice"}


class ArgumentParser(argparse.ArgumentParser):
    """The parser of every command. Flags stand in full: an abbreviation would mean another one when flags are added."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)


def autoencoder_arguments(argv=None):
    """Parse the command line of stage I; contradictory flags are a ConfigError."""
    parser = common_parser("Stage I: tune a foundation Transformer into a discrete 3D autoencoder.")
    parser.add_argument("--val", action="store_true", help="evaluate --ckpts and stop")
    parser.add_argument("--test", action="store_true", help="draw reconstructions by --ckpts and stop")
    args = parser.parse_args(argv)
    for one, other in (("val", "test"), ("val", "resume"), ("test", "resume")):
        _refuse_together(args, one, other)
    if (args.val or args.test) and not args.ckpts:
        raise ConfigError(f"--{'val' if args.val else 'test'} needs --ckpts, the checkpoint to use")
    if args.ckpts and not (args.val or args.test):
        raise ConfigError("--ckpts is for --val and --test; to train from it give --start_ckpts")
    return finish(args)


def main_arguments(argv=None):
    """Parse the command line of stage II, fine-tuning and testing; contradictory flags are a ConfigError."""
    parser = common_parser("Stage II (pre-training by masked distillation), fine-tuning for classification, testing.")
    add = parser.add_argument
    add("--finetune_model", action="store_true", help="fine-tune the student in --ckpts")
    add("--scratch_model", action="store_true", help="train the same classifier from scratch")
    add("--test", action="store_true", help="test the classifier in --ckpts, plain and with voting")
    add("--test_svm", nargs="?", const="any", choices=("any", *PROBED), metavar="|".join(PROBED),
        help="fit SVM, k-NN and logistic regression on frozen features of --ckpts; with a name, on that data alone")
    add("--vote", action="store_true", help="while fine-tuning, test by a vote too wherever accuracy is at its best")
    return check_main(finish(parser.parse_args(argv)))


def check_main(args):
    """Return ``args`` of main.py, or raise ConfigError where flags contradict each other or one is lacking."""
    for one, other in (("finetune_model", "scratch_model"), ("test", "finetune_model"), ("test", "scratch_model"),
                       ("test", "test_svm"), ("test_svm", "finetune_model"), ("test", "resume"), ("test_svm", "vote"),
                       ("test_svm", "resume")):
        _refuse_together(args, one, other)
    if args.finetune_model and not (args.ckpts or args.resume == "must"):
        raise ConfigError("--finetune_model needs --ckpts, a stage-II checkpoint")
    if args.test and not args.ckpts:
        raise ConfigError("--test needs --ckpts, a fine-tuned checkpoint")
    if args.test_svm and not (args.ckpts or args.scratch_model):
        raise ConfigError("--test_svm needs --ckpts, a checkpoint, or --scratch_model for an untrained encoder")
    _refuse_together(args, "scratch_model", "ckpts")
    if args.ckpts and not (args.finetune_model or args.test or args.test_svm):
        raise ConfigError("--ckpts is for --finetune_model, --test and --test_svm; to continue pre-training from it "
                          "give --start_ckpts")
    if args.vote and args.test:
        warnings.warn("--vote adds nothing to --test, which votes by itself", stacklevel=2)
    elif args.vote and not (args.finetune_model or args.scratch_model):
        raise ConfigError("--vote is for --finetune_model and --scratch_model; --test votes by itself")
    return args


def common_parser(description: str, config: str | os.PathLike | None = None) -> ArgumentParser:
    """Return a parser of the flags that all training commands have; ``config`` is the default of ``--config``."""
    parser = ArgumentParser(description=description)
    add = parser.add_argument
    add("--config", required=config is None, default=config, metavar="FILE", help="YAML config file")
    add("--exp_name", metavar="NAME", help="name of the experiment's folder (default: default, or test for a test)")
    add("--work_dir", default="work_dirs", metavar="DIR", help="where experiment folders are made")
    add("--set", action="append", nargs="+", default=[], metavar="KEY=VALUE",
        help="override config values, as in --set model.depth=6 total_bs=16")
    add("--print_config", action="store_true", help="print every key of the config with its value, and stop")
    add("--ckpts", metavar="FILE", help="checkpoint to evaluate or to fine-tune")
    add("--start_ckpts", metavar="FILE", help="checkpoint whose weights training starts from")
    add("--resume", nargs="?", const="must", choices=("must", "auto"), metavar="auto",
        help="go on from ckpt-last.pth of the experiment's folder; auto: or start, if it is not there")
    add("--save_every", type=positive, metavar="N", help="save ckpt-last.pth every N steps too, not after epochs alone")
    add("--ema", type=share, nargs="?", const=0.999, metavar="DECAY",
        help="average the weights over training, for evaluation and use (without a number: 0.999)")
    add("--val_freq", type=positive, default=1, metavar="N", help="evaluate every N epochs")
    add("--seed", type=natural, default=0, metavar="N", help="seed of every random generator")
    add("--deterministic", action="store_true", help="deterministic kernels, at some cost in speed")
    add("--num_workers", type=natural, default=default_workers(), metavar="N",
        help="processes that load data, for each training process (0: itself)")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 …")
    add("--amp", choices=("off", "bf16", "fp16"), default="off", help="mixed precision (fp16 on GPUs alone)")
    add("--compile", action="store_true", help="compile the model with torch.compile")
    add("--launcher", choices=("none", "pytorch"), default="none", help="pytorch: insist on being started by torchrun")
    add("--local_rank", "--local-rank", type=natural, help=argparse.SUPPRESS)  # torch.distributed.launch gives it
    add("--sync_bn", action="store_true", help="batch-norm statistics over the batch of all processes")
    add("--wandb", metavar="PROJECT", help="log to Weights & Biases too")
    add("--profile", action="store_true", help="write where the time of ten training steps goes")
    add("--way", type=few_shot_number, metavar="N", help="few-shot: classes of a fold (-1: none, as published)")
    add("--shot", type=few_shot_number, metavar="N", help="few-shot: training clouds a class")
    add("--fold", type=few_shot_number, metavar="N", help="few-shot: number of the fold")
    add("--allow_bad", type=natural, metavar="N",
        help="PointFolder: leave out up to N damaged files of each subset, with a warning")
    for name, reason in MEANINGLESS.items():
        add(f"--{name}", metavar="NAME", help=f"no effect: {reason}")
    return parser


def say_meaningless(args: argparse.Namespace, reasons: dict[str, str]) -> None:
    """Warn of published flags that were given and have no meaning here."""
    for name, reason in reasons.items():
        if getattr(args, name) is not None:
            warnings.warn(f"--{name} has no effect here: {reason}", stacklevel=2)


def finish(args: argparse.Namespace) -> argparse.Namespace:
    """Return parsed ``args`` with what follows from several of them; contradictions are a ConfigError."""
    if args.resume == "must":
        _refuse_together(args, "resume", "start_ckpts")
    _refuse_together(args, "ckpts", "start_ckpts")
    say_meaningless(args, MEANINGLESS)
    for name in FEW_SHOT:
        if getattr(args, name) == -1:
            setattr(args, name, None)
    if args.way == 0 or args.shot == 0:
        raise ConfigError("--way and --shot must be at least 1")
    args.testing = any(getattr(args, name, False) for name in ("test", "val", "test_svm"))
    args.exp_name = args.exp_name or ("test" if args.testing else "default")
    args.set = [text for group in args.set for text in group]
    config = pathlib.Path(args.config)
    args.folder = pathlib.Path(args.work_dir) / config.stem / config.resolve().parent.name / args.exp_name
    return args


def _refuse_together(args, one, other):
    if getattr(args, one) and getattr(args, other):
        raise ConfigError(f"--{one} and --{other} contradict each other: give one of them")


def default_workers():
    """Return how many processes load data for each training process: its part of half the cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores // 2 // whole_number("LOCAL_WORLD_SIZE", 1, least=1))


def share(text):
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


def few_shot_number(text):
    if text != "-1" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 0, or -1 for none")
    return int(text)


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def natural(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 0")
    return int(text)
