"""Command lines of semantic_segmentation/ and part_segmentation/, whose flags are those of the published run.sh."""
import json
import os

from utils.errors import ConfigError
from utils.parser import common_parser, finish, natural, positive, say_meaningless

# published flags of the segmentation commands → the config keys that they stand for
SEGMENTATION_FLAGS = {
    "learning_rate": ("float", ["optimizer.kwargs.lr"], "peak learning rate"),
    "decay_rate": ("float", ["optimizer.kwargs.weight_decay"], "weight decay"),
    "warmup_epoch": ("natural", ["scheduler.kwargs.initial_epochs"], "epochs of warm-up"),
    "batch_size": ("positive", ["total_bs"], "clouds a step"),
    "npoint": ("positive", ["dataset.train.others.npoints", "dataset.val.others.npoints"], "points a cloud"),
    "root": ("text", ["dataset.train._base_.ROOT", "dataset.val._base_.ROOT"], "the data set's folder"),
    "num_votes": ("positive", ["vote.times"], "votes of a test"),
    "optimizer": ("text", ["optimizer.type"], "AdamW"),
}
# published flags without a meaning here → why
MEANINGLESS_IN_SEGMENTATION = {
    "normal": "coordinates alone reach the model", "step_size": "the learning rate follows a cosine",
    "lr_decay": "the learning rate follows a cosine"}


def segmentation_arguments(config, areas=False, test=False, argv=None):
    """Parse a command line of segmentation, whose flags stand for keys of ``config``; ``areas``: of S3DIS."""
    parser = common_parser("Test a segmentation model." if test else "Train a segmentation model.", config)
    add = parser.add_argument
    kinds = {"float": float, "natural": natural, "positive": positive, "text": str}
    for name, (kind, _, text) in SEGMENTATION_FLAGS.items():
        names = (f"--{name}", "--num_point") if name == "npoint" else (f"--{name}",)
        add(*names, type=kinds[kind], metavar={"root": "DIR", "optimizer": "NAME"}.get(name, "N"), help=text)
    add("--optimizer_part", choices=("all", "only_new"), default="all",
        help="what is trained: everything, or what a pretrained checkpoint does not hold")
    for name, reason in MEANINGLESS_IN_SEGMENTATION.items():
        add(f"--{name}", nargs="?", const=True, metavar="VALUE", help=f"no effect: {reason}")
    add("--model", choices=("pt",), help="the published name of the model, of which there is one")
    add("--epoch", type=positive, metavar="N", help="epochs to train")
    if areas:
        add("--test_area", type=positive, metavar="N", help="the area that is tested on, not trained on")
    add("--log_dir", metavar="NAME", help="the same as --exp_name")
    add("--gpu", metavar="N", help="the GPU to use, as in CUDA_VISIBLE_DEVICES")
    if test:
        add("--visual", action="store_true", help="write pictures and coloured .ply files")
    args = parser.parse_args(argv)
    if test and not args.ckpts:
        raise ConfigError("testing needs --ckpts, a trained checkpoint")
    if test and args.resume:
        raise ConfigError("--resume is for training")
    if args.optimizer_part == "only_new" and (test or not (args.ckpts or args.start_ckpts or args.resume)):
        raise ConfigError("--optimizer_part only_new is for training from --ckpts, a pretrained checkpoint")
    say_meaningless(args, MEANINGLESS_IN_SEGMENTATION)
    if args.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = args.gpu
    args.exp_name, args.test = args.log_dir or args.exp_name, test
    args.set.insert(0, _as_overrides(args))  # --set comes later and so has the last word
    return finish(args)


def _as_overrides(args):
    """Return the given flags as texts ``key=value``."""
    texts = [f"{key}={json.dumps(getattr(args, name))}" for name, (_, keys, _) in SEGMENTATION_FLAGS.items()
             if getattr(args, name) is not None for key in keys]  # JSON, so that a text stays a text
    if args.epoch:  # epochs are 0 … max_epoch
        texts += [f"max_epoch={args.epoch - 1}", f"scheduler.kwargs.epochs={args.epoch}"]
    if getattr(args, "test_area", None):
        texts += [f"dataset.{split}._base_.test_area={args.test_area}" for split in ("train", "val")]
    return texts
