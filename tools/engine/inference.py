"""What the tools for one's own clouds share: their options, the model, and going on past bad files."""
import sys
import warnings

import torch

from datasets.class_names import known_names
from datasets.io.point_files import FORMATS, find_files, read_cloud
from datasets.transforms import furthest_subset
from models.pretrained import build_pretrained, notes_in, npoints_of
from tools.engine.run import choose_device
from utils import checkpoint
from utils.config import load_config
from utils.errors import ConfigError, DataError, one_line


def add_arguments(parser):
    """Add the options that all these tools have."""
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help=f"{' '.join(FORMATS)}, or folders of such files")
    add("--config", metavar="FILE", help="the config of the checkpoint (default: what the checkpoint says of itself)")
    add("--ckpts", required=True, metavar="FILE", help="checkpoint (.pth or .safetensors)")
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override config values")
    add("--up", choices=("y", "z"), help="the axis that points upwards in the files (default: y)")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 …")


class Predictor:
    """A trained model, and how clouds are made ready for it."""

    def __init__(self, args, head=True):
        content = checkpoint.read(args.ckpts)
        notes = notes_in(content)
        config = load_config(args.config, args.set) if args.config else notes
        if "model" not in config:
            raise ConfigError(f"checkpoint {args.ckpts} does not say what model it is of: give its --config")
        self.device, self.up = choose_device(args.device), args.up or "y"
        if args.up is None and (notes.get("up") or up_of(config)) != "y":
            warnings.warn("the files of training had z up, and clouds were turned so that y is: give --up z if these "
                          "files have it too, or --up y", stacklevel=2)
        self.model = build_pretrained(config["model"], content, args.ckpts, head).to(self.device)
        self.npoints = npoints_of(config)
        self.has_head = self.model.trained_head
        self.class_names = self.model.class_names or known_names(config, self.model.classes)

    def prepare(self, points):
        """Return a normalised cloud (N, 3) as the model wants it: (1, npoints, 3); of fewer points all are kept.

        Raises DataError where there are too few for the model's patches.
        """
        if len(points) < self.model.least_points:
            raise DataError(f"it has {len(points)} points, but this model needs {self.model.least_points}")
        points = torch.from_numpy(points).unsqueeze(0).to(self.device)
        return furthest_subset(points, min(self.npoints, points.shape[1]))

    @torch.inference_mode()
    def probabilities(self, points):
        """Return the probability of each class (classes,) for a cloud (N, 3)."""
        return self.model(self.prepare(points))["logits"][0].softmax(-1).cpu()

    @torch.inference_mode()
    def features(self, points):
        """Return the features (C,) of a cloud (N, 3)."""
        return self.model.forward_features(self.prepare(points))[0].float().cpu()


def up_of(config):
    """Return the axis that points upwards in the clouds of the config's training set."""
    section = config.get("dataset", {}).get("train", {})
    return {**section.get("_base_", {}), **section.get("others", {})}.get("up", "y")


def each_file(args, model, use, refuse=lambda file, reason: None):
    """Call ``use(file, points)`` for each file that ``args`` names; a bad one is named on stderr and passed over.

    ``refuse(file, reason)`` is told of it too. Returns the number of bad files and folders.
    """
    bad = 0

    def name(path, error):
        nonlocal bad
        bad += 1
        reason = one_line(error)
        reason = reason if str(path) in reason else f"{path}: {reason}"
        print(f"error: {reason}", file=sys.stderr, flush=True)
        refuse(path, reason)

    for path in args.files:
        try:
            files = find_files(path)
        except DataError as error:
            name(path, error)
            continue
        for file in files:
            try:
                use(file, read_cloud(file, up=model.up))
            except DataError as error:
                name(file, error)
    return bad
